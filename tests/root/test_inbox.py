import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.link import Connected, Disconnected, Message
from hedgerow.mqtt_link import Inbox

DOWN = Disconnected("gone")


def take_all(inbox):
    found = []
    while (event := inbox.take(0)) is not None:
        found.append(event)
    return found


def test_events_come_out_in_the_order_in_which_they_went_in():
    inbox = Inbox()
    events = [Connected(), Message("t", b"1"), DOWN, Connected(), Message("t", b"2")]
    for event in events:
        inbox.put(event)

    assert take_all(inbox) == events


def test_a_full_inbox_drops_new_messages_and_says_so():
    inbox = Inbox(2)

    assert [inbox.put(Message("t", b"%d" % n)) for n in range(3)] == [True, True, False]
    assert [event.payload for event in take_all(inbox)] == [b"0", b"1"]
    assert inbox.put(Message("t", b"3"))


def test_messages_that_wait_are_bounded_in_length_too():
    inbox = Inbox(limit_bytes=10)

    assert [inbox.put(Message("t", bytes(size))) for size in (4, 6, 1)] == [True, True, False]
    inbox.take(0)
    assert inbox.put(Message("t", bytes(4)))
    assert not inbox.put(Message("t", b"x"))


def test_news_of_the_link_finds_room_in_a_full_inbox():
    inbox = Inbox(1)
    inbox.put(Message("t", b""))

    assert inbox.put(DOWN)
    assert inbox.put(Connected())
    assert take_all(inbox)[1:] == [DOWN, Connected()]


def test_a_link_that_flaps_does_not_fill_the_inbox():
    inbox = Inbox()
    for _ in range(1000):
        inbox.put(Connected())
        inbox.put(DOWN)
    assert len(inbox) <= 2
    inbox.put(Connected())

    assert take_all(inbox) == [Connected()]


def test_a_cut_that_was_not_told_yet_stays_told_when_the_link_flaps_on():
    inbox = Inbox()
    for event in (DOWN, Connected(), DOWN, Connected()):
        inbox.put(event)

    assert take_all(inbox) == [DOWN, Connected()]


def test_taking_waits_for_an_event_and_no_longer():
    inbox = Inbox()
    threading.Timer(0.05, inbox.put, [Connected()]).start()
    began = time.monotonic()

    assert inbox.take(5.0) == Connected()
    assert time.monotonic() - began < 2.0
    assert inbox.take(0.01) is None


@given(st.lists(st.sampled_from(["up", "down", "message", "take"]), max_size=60))
def test_whatever_happens_the_last_news_of_the_link_is_told_and_the_inbox_is_bounded(steps):
    inbox, told, last = Inbox(3), None, None
    for step in steps:
        if step == "take":
            event = inbox.take(0)
            told = event if isinstance(event, Connected | Disconnected) else told
        else:
            event = {"up": Connected(), "down": DOWN, "message": Message("t", b"")}[step]
            last = event if step != "message" else last
            inbox.put(event)
        assert len(inbox) <= 3 + 2 * 4

    news = [event for event in take_all(inbox) if not isinstance(event, Message)]
    assert (news[-1] if news else told) == last
