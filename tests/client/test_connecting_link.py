"""A link that is made in the background."""

import threading
import time

import pytest

from hedgerow.client.connecting_link import ConnectingLink
from hedgerow.errors import BrokerUnreachableError
from hedgerow.link import Connected, Message
from hedgerow.memory_link import MemoryBroker, MemoryLink


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


def test_it_keeps_trying_and_then_is_the_link(broker):
    answers = iter([False, False, True])
    connected = threading.Event()

    def connect():
        if not next(answers):
            raise BrokerUnreachableError("h", 1, "nobody")
        connected.set()
        return broker.connect("d")

    delays = []
    link = ConnectingLink(connect, lambda delay_s: delays.append(delay_s) or 0.01)
    link.subscribe("a/+")
    link.open()
    assert connected.wait(5)
    assert "nobody" in str(link.wait_first_attempt(5))
    while link.receive(0.01) != Connected():
        pass
    broker.route("a/b", b"x", retain=False)
    message = link.receive(5)
    assert message == Message("a/b", b"x")
    link.acknowledge(message)
    link.publish("c", b"y", retain=True)
    link.subscribe("c")
    assert link.receive(5) == Message("c", b"y", retained=True)
    assert delays == [0.0, 0.01]
    link.close()


def test_the_first_success_is_no_error(broker):
    link = ConnectingLink(lambda: broker.connect("d"), lambda _delay_s: 0.01)
    assert not link.is_decided
    link.open()
    assert link.wait_first_attempt(5) is None
    assert link.is_decided
    link.close()


def test_a_fault_while_connecting_is_said_once_and_it_goes_on_trying(broker, caplog):
    class Deaf(MemoryLink):
        def subscribe(self, _topic_filter: str) -> None:
            raise OSError("no such wire")

    made = [RuntimeError("can't start new thread"), RuntimeError("again"), Deaf(broker, "deaf", None)]

    def connect():
        if not made:
            return broker.connect("d")
        first = made.pop(0)
        if isinstance(first, Exception):
            raise first
        return first

    link = ConnectingLink(connect, lambda _delay_s: 0.01)
    link.subscribe("a")
    link.open()
    deadline = time.monotonic() + 5
    while link.receive(0.01) != Connected():
        assert time.monotonic() < deadline
    broker.route("a", b"x", retain=True)
    assert link.receive(5) is not None, "its subscriptions are those of the link that was made at last"
    assert [record.getMessage() for record in caplog.records].count(
        "connecting failed by a fault of the agent; trying again in the background"
    ) == 1
    link.close()


def test_without_a_link_nothing_arrives_and_nothing_is_sent():
    link = ConnectingLink(lambda: pytest.fail("not opened"), lambda _delay_s: 1.0)
    link.publish("a", b"x")
    assert link.receive(0.01) is None
    link.acknowledge(Message("a", b"x"))
    link.close()
