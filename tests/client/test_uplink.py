"""What goes up to the fleet."""

import pytest

from hedgerow.client.health import Health, Part
from hedgerow.client.spool import Spool
from hedgerow.client.uplink import Uplink
from hedgerow.errors import LinkError
from hedgerow.link import Message
from hedgerow.memory_link import MemoryBroker
from hedgerow.wire.topics import Channel


class Narrow:
    """A link that takes some messages and no more."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[tuple[str, bytes, bool]] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        if not self.room:
            raise LinkError("expected room, found none")
        self.room -= 1
        self.taken.append((topic.rpartition("/")[2], payload, retain))


@pytest.fixture
def spool(tmp_path) -> Spool:
    spool = Spool(tmp_path, limit_messages=10)
    for number in range(3):
        spool.put(b"%d" % number)
    return spool


def uplink(link, spool: Spool, health: Health | None = None) -> Uplink:
    return Uplink(link, "garden", "pi-0", spool, health or Health())


def test_messages_go_to_this_devices_own_topics(spool):
    broker = MemoryBroker()
    fleet = broker.connect("fleet")
    fleet.subscribe("#")
    assert uplink(broker.connect("pi-0"), spool).publish(Channel.REPORTED, b"here")
    fleet.receive(1)
    assert fleet.receive(1) == Message("hedgerow/v1/garden/pi-0/reported", b"here")


def test_windows_that_wait_go_oldest_first_and_stay_until_the_link_took_them(spool):
    health, link = Health(timer=iter(range(0, 10_000, 100)).__next__), Narrow(2)
    up = uplink(link, spool, health)
    up.flush_spool()
    assert link.taken == [("telemetry", b"0", False), ("telemetry", b"1", False)]
    assert [message for _number, message in spool.pending()] == [b"2"]
    assert health.problems == ("link: expected room, found none",)
    assert not up.publish(Channel.REPORTED, b"r")
    link.room = 5
    up.flush_spool()
    assert [payload for _topic, payload, _retain in link.taken] == [b"0", b"1", b"2"]
    assert list(spool.pending()) == []
    assert Part.LINK not in health.failing
