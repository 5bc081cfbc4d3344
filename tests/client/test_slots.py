"""The slot rules, as a state machine."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hedgerow.client.slots import (
    Content,
    Slot,
    Slots,
    Trial,
    cleared,
    committed,
    dropped,
    fallen_back,
    given_up,
    must_fall_back,
    must_give_up,
    rested,
    staged,
    staging,
    started,
    swapped,
    trying,
)
from hedgerow.decode import decode_json, encode_json
from hedgerow.errors import DecodeError


def content(number: int) -> Content:
    return Content(f"demo@{number}", f"{number:064x}")


class SlotMachine(RuleBasedStateMachine):
    """Any order of installations, trials, starts, crashes and power cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots()
        self.number = 0
        self.healthy: set[str] = set()

    @precondition(lambda self: self.slots.may_stage)
    @rule(is_cut=st.booleans(), swaps=st.booleans())
    def install(self, is_cut: bool, swaps: bool) -> None:
        before, idle = self.slots, self.slots.idle
        self.slots = staging(self.slots)
        assert self.slots.release == before.release
        if is_cut:
            return
        self.number += 1
        self.slots = staged(self.slots, content(self.number))
        assert self.slots.release == before.release
        assert self.slots.holds(f"demo@{self.number}") is idle
        self.slots = trying(self.slots, idle, "replay")
        assert self.slots.trial.release == f"demo@{self.number}"
        if swaps:
            self.slots = swapped(self.slots, idle)
            assert self.slots.release == f"demo@{self.number}"
            assert self.slots.trial is None
            assert not self.slots.is_committed
            assert not self.slots.is_proved

    @precondition(lambda self: self.slots.previous_slot is not None)
    @rule()
    def go_back(self) -> None:
        wanted = self.slots.previous
        self.slots = trying(self.slots, self.slots.previous_slot, "load")
        self.slots = swapped(self.slots, self.slots.previous_slot)
        assert self.slots.release == wanted

    @rule()
    def start(self) -> None:
        before, self.slots = self.slots, started(self.slots)
        if before.trial is not None:
            assert self.slots.starts == before.starts, "what is tried is blamed, and nothing else"
            assert self.slots.trial.starts == before.trial.starts + 1

    @rule()
    def become_healthy(self) -> None:
        self.slots = committed(self.slots)
        if self.slots.active is not None:
            self.healthy.add(self.slots.release)
        assert not must_fall_back(self.slots, 1)

    @rule()
    def stop_in_order(self) -> None:
        proved = self.slots.is_proved
        self.slots = rested(self.slots)
        assert self.slots.is_proved == proved
        assert not must_fall_back(self.slots, 1)
        assert not must_give_up(self.slots, 1)

    @rule()
    def stop_serving(self) -> None:
        held = dict(self.slots.contents)
        self.slots = cleared(self.slots)
        assert self.slots.release is None
        assert self.slots.contents == held

    @precondition(lambda self: must_fall_back(self.slots, 2))
    @rule()
    def fall_back(self) -> None:
        wanted, bad = self.slots.previous, self.slots.release
        self.slots = fallen_back(self.slots)
        assert self.slots.release == wanted
        assert self.slots.holds(bad) is None
        assert not must_fall_back(self.slots, 1)

    @precondition(lambda self: must_give_up(self.slots, 2))
    @rule()
    def give_up(self) -> None:
        bad, before = self.slots.trial.release, self.slots
        self.slots = given_up(self.slots)
        assert self.slots.trial is None
        assert self.slots.release == before.release
        assert (self.slots.holds(bad) is None) == (bad not in self.healthy)

    @rule(slot=st.sampled_from(Slot))
    def lose(self, slot: Slot) -> None:
        self.slots = dropped(self.slots, slot)
        assert slot not in self.slots.contents

    @invariant()
    def the_active_slot_is_whole_and_never_idle(self) -> None:
        if self.slots.active is not None:
            assert self.slots.active in self.slots.contents
            assert self.slots.idle is not self.slots.active

    @invariant()
    def only_what_ran_healthily_can_be_fallen_back_to(self) -> None:
        assert self.slots.previous is None or self.slots.previous in self.healthy
        assert {c.release for c in self.slots.contents.values() if c.was_healthy} <= self.healthy

    @invariant()
    def nothing_that_is_tried_runs(self) -> None:
        assert self.slots.trial is None or self.slots.trial.slot is not self.slots.active

    @invariant()
    def the_state_survives_the_disk(self) -> None:
        document = encode_json({"slots": self.slots.to_record()})
        assert Slots.from_fields(decode_json(document, "p", limit_bytes=10_000).nested("slots")) == self.slots


TestSlotMachine = SlotMachine.TestCase


def decoded(record: dict) -> Slots:
    return Slots.from_fields(decode_json(encode_json(record), "p", limit_bytes=10_000))


def running(*, idle: Content | None = None) -> Slots:
    """demo@1 runs and has proved itself; *idle* lies in the other slot."""
    slots = committed(swapped(staged(Slots(), content(1)), Slot.A))
    return slots if idle is None else staged(slots, idle)


def test_a_good_release_is_never_given_up_for_one_that_was_only_staged():
    slots = running(idle=content(3))
    for _ in range(9):
        slots = started(slots)
        assert not must_fall_back(slots, 3)
    slots = fallen_back(slots)
    assert (slots.release, slots.previous, dict(slots.contents)) == (
        "demo@1",
        None,
        {Slot.A: replace(content(1), was_healthy=True)},
    )


def test_a_state_that_says_committed_says_healthy():
    slots = Slots(active=Slot.A, contents={Slot.A: content(1)})
    assert slots.contents[Slot.A].was_healthy
    assert slots.is_proved


def test_crashes_during_a_trial_give_up_what_was_tried_and_leave_the_active_release_alone():
    slots = trying(running(idle=content(3)), Slot.B, "replay")
    for _ in range(3):
        slots = trying(started(slots), Slot.B, "replay")
    assert (slots.trial.starts, slots.starts) == (3, 0)
    assert must_give_up(slots, 3)
    slots = given_up(slots)
    assert (slots.release, slots.holds("demo@3"), slots.trial) == ("demo@1", None, None)


def test_another_trial_begins_its_own_count():
    slots = started(trying(running(idle=content(3)), Slot.B, "replay"))
    slots = trying(staged(staging(slots), content(4)), Slot.B, "load")
    assert slots.trial == Trial(Slot.B, "demo@4", "load", 0)


def test_what_was_healthy_is_not_lost_by_a_trial():
    slots = staged(running(), content(2))
    slots = committed(swapped(slots, Slot.B))
    slots = trying(slots, Slot.A, "load")
    for _ in range(3):
        slots = started(slots)
    assert must_give_up(slots, 3)
    assert given_up(slots).previous == "demo@1"


def test_a_release_that_was_never_healthy_goes_even_with_nothing_behind_it():
    slots = swapped(staged(Slots(), content(1)), Slot.A)
    for _ in range(3):
        slots = started(slots)
    assert must_fall_back(slots, 3)
    assert fallen_back(slots) == Slots()


def test_a_third_release_does_not_take_the_place_of_the_only_proved_one():
    slots = swapped(running(idle=content(2)), Slot.B)
    assert slots.previous == "demo@1"
    assert not slots.may_stage
    assert committed(slots).may_stage


def test_with_nothing_active_what_was_never_healthy_is_overwritten_first():
    slots = cleared(running(idle=content(2)))
    assert slots.idle is Slot.B
    slots = committed(swapped(running(idle=content(2)), Slot.B))
    slots = cleared(dropped(slots, Slot.A))
    assert slots.idle is Slot.A


def test_a_record_without_health_trusts_the_committed_release_alone():
    contents = {s: {"release": f"demo@{n}", "manifest_sha256": f"{n:064x}"} for s, n in (("A", 1), ("B", 2))}
    old = {"active": "B", "contents": contents, "is_committed": True, "starts": 1}
    slots = decoded(old)
    assert (slots.release, slots.previous, slots.starts, slots.trial) == ("demo@2", None, 1, None)
    assert slots.holds("demo@1") is Slot.A, "it can be gone back to without a download, after a trial"
    assert not decoded({**old, "is_committed": False}).is_proved


def test_a_trial_of_an_empty_slot_is_refused():
    with pytest.raises(ValueError, match="empty"):
        trying(Slots(), Slot.A, "load")
    record = running().to_record()
    record["trial"] = {"slot": "B", "release": "demo@2", "step": "load", "starts": 0}
    with pytest.raises(DecodeError, match="what is tried"):
        decoded(record)


def test_an_empty_slot_cannot_become_active():
    with pytest.raises(ValueError, match="empty"):
        swapped(Slots(), Slot.A)


def test_a_proved_release_without_another_slot_stays():
    slots = running()
    for _ in range(9):
        slots = started(slots)
    assert not must_fall_back(slots, 3)


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(payload):
    with pytest.raises(DecodeError):
        Slots.from_fields(decode_json(payload, "p", limit_bytes=10_000))


def test_an_active_slot_without_content_is_refused():
    record = {"active": "A", "contents": {}, "is_committed": True, "starts": 0}
    with pytest.raises(DecodeError, match="slots A and B"):
        Slots.from_fields(decode_json(encode_json(record), "p", limit_bytes=1000))
