"""A topic names one device and one channel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.wire.topics import Channel, device_topic, fleet_filter, parse_topic

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


@given(NAMES, NAMES, st.sampled_from(list(Channel)))
def test_a_topic_names_its_fleet_device_and_channel(fleet, device, channel):
    topic = device_topic(fleet, device, channel)

    assert parse_topic(topic) == (fleet, device, channel)
    assert topic.count("/") <= 7


@given(st.text(max_size=60))
def test_an_arbitrary_text_is_no_topic(text):
    assert parse_topic(text) is None


@pytest.mark.parametrize(
    "topic",
    [
        "hedgerow/v2/f/d/desired",
        "hedgerow/v1/f/d/desired/x",
        "hedgerow/v1/f/d/other",
        "hedgerow/v1/+/d/desired",
        "hedgerow/v1//d/desired",
        "hedgerow/v1/f/a b/desired",
    ],
)
def test_a_topic_of_another_shape_is_not_ours(topic):
    assert parse_topic(topic) is None


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a b", "-a", "é", "a" * 65, "a\n"])
def test_a_name_that_would_change_a_topic_is_refused(name):
    for fleet, device in (("fleet", name), (name, "device")):
        with pytest.raises(ValueError, match="expected a name like") as caught:
            device_topic(fleet, device, Channel.DESIRED)
        assert str(caught.value) == f"expected a name like [A-Za-z0-9][A-Za-z0-9._-]{{0,63}}, found {name!r}"


def test_a_fleet_listens_to_a_channel_of_all_devices():
    assert fleet_filter("garden", Channel.TELEMETRY) == "hedgerow/v1/garden/+/telemetry"


def test_the_channels_are_the_seven_of_the_protocol():
    assert [device_topic("f", "d", channel) for channel in Channel] == [
        f"hedgerow/v1/f/d/{name}"
        for name in ("desired", "reported", "presence", "execution", "telemetry", "train", "update")
    ]
