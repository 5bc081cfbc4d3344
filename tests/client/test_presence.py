"""How a device says that it is there."""

from hedgerow.client.presence import new_boot, presence_will
from hedgerow.client.settings import AgentSettings
from hedgerow.wire.device import Presence
from hedgerow.wire.topics import NAME


def test_every_start_has_a_name_of_its_own():
    boots = {new_boot() for _ in range(100)}
    assert len(boots) == 100
    assert all(NAME.fullmatch(boot) for boot in boots)


def test_the_last_will_says_on_the_devices_own_topic_that_this_start_is_gone(tmp_path):
    settings = AgentSettings(
        device="pi-0",
        fleet="garden",
        target="t",
        broker_host="h",
        broker_port=1,
        server="http://h",
        trusted_root=tmp_path,
        state_folder=tmp_path,
    )
    will = presence_will(settings, "b1")
    assert will.topic == "hedgerow/v1/garden/pi-0/presence"
    assert Presence.decode(will.payload) == Presence(online=False, boot="b1")
