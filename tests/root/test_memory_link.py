"""The broker in memory behaves as MQTT does where the rest of Hedgerow can tell."""

import re
import threading
from pathlib import Path

import pytest

import hedgerow
from hedgerow.link import Connected, Disconnected, LastWill, Message
from hedgerow.memory_link import MemoryBroker, topic_matches


@pytest.mark.parametrize(
    ("topic_filter", "topic", "matches"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a/b/d", False),
        ("a/+", "a/b/c", False),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("#", "a/b", True),
        ("+/+", "a/b", True),
        ("+", "a/b", False),
    ],
)
def test_a_filter_matches_by_levels(topic_filter, topic, matches):
    assert topic_matches(topic_filter, topic) is matches


def pair(broker: MemoryBroker):
    device, fleet = broker.connect("device"), broker.connect("fleet")
    assert device.receive(0) == fleet.receive(0) == Connected()
    return device, fleet


def test_a_message_reaches_whoever_asked_for_it_and_nobody_else():
    device, fleet = pair(MemoryBroker())
    fleet.subscribe("up/+")

    device.publish("up/1", b"x")
    device.publish("down/1", b"y")

    assert fleet.receive(0) == Message("up/1", b"x")
    assert fleet.receive(0) is None
    assert device.receive(0) is None


def test_overlapping_and_repeated_subscriptions_deliver_once():
    device, fleet = pair(MemoryBroker())
    for topic_filter in ("up/+", "up/#", "up/+"):
        fleet.subscribe(topic_filter)

    device.publish("up/1", b"x")

    assert [fleet.receive(0), fleet.receive(0)] == [Message("up/1", b"x"), None]


def test_a_retained_message_waits_for_those_who_come_later_until_an_empty_one():
    device, fleet = pair(MemoryBroker())
    fleet.publish("down/1", b"old", retain=True)
    fleet.publish("down/1", b"new", retain=True)
    device.subscribe("down/+")
    assert device.receive(0) == Message("down/1", b"new", retained=True)

    fleet.publish("down/1", b"", retain=True)
    device.receive(0)
    device.subscribe("down/1")
    assert device.receive(0) is None


def test_a_delivery_can_be_lost_or_repeated():
    times = iter([0, 2])
    device, fleet = pair(MemoryBroker(lambda _receiver, _topic, _payload: next(times)))
    fleet.subscribe("#")

    device.publish("t", b"lost")
    device.publish("t", b"twice")

    assert [fleet.receive(0) for _ in range(3)] == [Message("t", b"twice"), Message("t", b"twice"), None]


def test_a_broken_link_leaves_its_will_and_loses_what_it_sends_until_mended():
    broker = MemoryBroker()
    device = broker.connect("device", will=LastWill("presence", b"offline"))
    fleet = broker.connect("fleet")
    fleet.subscribe("#")
    device.subscribe("down")
    fleet.receive(0)
    device.receive(0)

    broker.break_link("device")
    broker.break_link("device")
    device.publish("up", b"lost")
    fleet.publish("down", b"kept", retain=True)

    assert isinstance(device.receive(0), Disconnected)
    assert [fleet.receive(0), fleet.receive(0), fleet.receive(0)] == [
        Message("presence", b"offline"),
        Message("down", b"kept"),
        None,
    ]
    broker.mend_link(device)
    assert [device.receive(0), device.receive(0)] == [Connected(), Message("down", b"kept", retained=True)]


def test_a_second_link_of_the_same_name_breaks_the_first():
    broker = MemoryBroker()
    first = broker.connect("device")
    first.receive(0)

    second = broker.connect("device")

    assert isinstance(first.receive(0), Disconnected)
    assert second.receive(0) == Connected()
    assert not broker.is_connected(first)


def test_closing_in_order_leaves_no_will():
    broker = MemoryBroker()
    device = broker.connect("device", will=LastWill("presence", b"offline"))
    fleet = broker.connect("fleet")
    fleet.receive(0)
    fleet.subscribe("#")

    device.close()
    device.close()

    assert fleet.receive(0) is None


def test_a_waiting_receiver_wakes_when_a_message_comes():
    device, fleet = pair(MemoryBroker())
    fleet.subscribe("#")
    threading.Timer(0.02, lambda: device.publish("t", b"x")).start()

    assert fleet.receive(5.0) == Message("t", b"x")


def test_acknowledgements_are_noted():
    device, _fleet = pair(MemoryBroker())
    message = Message("t", b"x")

    device.acknowledge(message)

    assert device.acknowledged == [message]


def test_nothing_but_tests_and_users_needs_the_fake():
    root = Path(hedgerow.__file__).parent.parent.parent
    folders = (root / "src", *(root / name for name in ("client", "compile", "fleet", "hardware", "server")))
    texts = {path: path.read_text() for folder in folders for path in folder.rglob("*.py")}
    assert any("from hedgerow.link import" in text for text in texts.values())
    imported = re.compile(r"^\s*(from|import) hedgerow\.memory_link", re.MULTILINE)
    assert [path for path, text in texts.items() if imported.search(text)] == []
