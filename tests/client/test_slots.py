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
    tried,
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
    with pytest.raises(ValueError, match=r"^slot A is empty and cannot be tried$"):
        trying(Slots(), Slot.A, "load")


def test_an_empty_slot_cannot_become_active():
    with pytest.raises(ValueError, match=r"^slot A is empty and cannot become active$"):
        swapped(Slots(), Slot.A)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"trial": {"slot": "B", "release": "demo@2", "step": "load", "starts": 0}},
            "p.trial: expected a slot that holds what is tried, found demo@2",
        ),
        (
            {"trial": {"slot": "A", "release": "demo@2", "step": "load", "starts": 0}},
            "p.trial: expected a slot that holds what is tried, found demo@2",
        ),
        ({"active": "B"}, "p.contents: expected slots A and B with the active one filled, found ['A']"),
        (
            {"active": None, "contents": {"C": {"release": "demo@1", "manifest_sha256": "0" * 64}}},
            "p.contents: expected slots A and B with the active one filled, found ['C']",
        ),
        ({"active": "C"}, "p.active: expected one of A, B, found 'C'"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes, sentence):
    with pytest.raises(DecodeError) as caught:
        decoded({**running().to_record(), **changes})
    assert str(caught.value) == sentence


def test_the_slots_that_a_record_fills_are_named_in_order():
    held = b'{"release":"demo@1","manifest_sha256":"' + b"0" * 64 + b'"}'
    record = b'{"active":null,"contents":{"C":' + held + b',"A":' + held + b'},"is_committed":true,"starts":0}'
    with pytest.raises(DecodeError, match=r"with the active one filled, found \['A', 'C'\]$"):
        Slots.from_fields(decode_json(record, "p", limit_bytes=10_000))


def test_a_record_says_everything_by_name():
    slots = Slots(
        active=Slot.B,
        contents={Slot.B: replace(content(2), was_healthy=True), Slot.A: content(1)},
        is_committed=False,
        starts=2,
        trial=Trial(Slot.A, "demo@1", "replay", 1),
    )
    record = {
        "active": "B",
        "contents": {
            "A": {"release": "demo@1", "manifest_sha256": f"{1:064x}", "was_healthy": False},
            "B": {"release": "demo@2", "manifest_sha256": f"{2:064x}", "was_healthy": True},
        },
        "is_committed": False,
        "starts": 2,
        "trial": {"slot": "A", "release": "demo@1", "step": "replay", "starts": 1},
    }
    assert slots.to_record() == record
    assert decoded(record) == slots
    assert Slots().to_record() == {"active": None, "contents": {}, "is_committed": True, "starts": 0, "trial": None}
    assert decoded(Slots().to_record()) == Slots()


def test_a_step_with_a_long_name_is_cut_where_it_would_not_be_read_again():
    slots = trying(running(), Slot.A, "s" * 65)
    assert slots.trial == Trial(Slot.A, "demo@1", "s" * 64, 0)
    assert decoded(slots.to_record()) == slots


def test_the_trial_of_the_same_release_in_the_same_slot_keeps_its_count_and_any_other_begins_anew():
    slots = started(started(trying(running(idle=content(3)), Slot.B, "load")))
    assert trying(slots, Slot.B, "replay").trial == Trial(Slot.B, "demo@3", "replay", 2)
    assert trying(slots, Slot.A, "replay").trial == Trial(Slot.A, "demo@1", "replay", 0)
    other = replace(slots, trial=replace(slots.trial, release="demo@2"))
    assert trying(other, Slot.B, "replay").trial == Trial(Slot.B, "demo@3", "replay", 0)


def test_a_swap_onto_the_active_slot_ends_the_trial_and_changes_nothing_else():
    slots = started(trying(running(), Slot.A, "load"))
    assert swapped(slots, Slot.A) == tried(slots) == replace(slots, trial=None)


def test_a_swap_begins_a_count_of_its_own():
    slots = replace(trying(running(idle=content(2)), Slot.B, "load"), starts=2)
    assert swapped(slots, Slot.B) == Slots(Slot.B, slots.contents, is_committed=False, starts=0, trial=None)


def test_a_start_counts_against_what_is_tried_else_against_what_runs_else_against_nobody():
    assert started(Slots()) == Slots()
    slots = running(idle=content(2))
    assert started(started(slots)) == replace(slots, starts=2)
    slots = replace(trying(slots, Slot.B, "load"), starts=1)
    assert started(slots) == replace(slots, trial=Trial(Slot.B, "demo@2", "load", 1))


def test_a_stop_in_order_forgets_the_starts_and_keeps_the_trial():
    slots = replace(started(trying(running(idle=content(2)), Slot.B, "load")), starts=2, is_committed=False)
    assert rested(slots) == replace(slots, starts=0, trial=Trial(Slot.B, "demo@2", "load", 0))
    assert rested(Slots()) == Slots()


def test_what_was_healthy_stays_healthy_and_its_starts_are_forgotten():
    slots = replace(swapped(running(idle=content(2)), Slot.B), starts=2)
    assert committed(slots) == Slots(
        Slot.B, {slot: replace(held, was_healthy=True) for slot, held in slots.contents.items()}, is_committed=True
    )


@pytest.mark.parametrize(("starts", "must"), [(2, False), (3, True), (4, True)])
def test_the_limit_itself_is_too_often(starts, must):
    tried_often = replace(trying(running(idle=content(2)), Slot.B, "load"), trial=Trial(Slot.B, "demo@2", "l", starts))
    assert must_give_up(tried_often, 3) is must
    assert must_fall_back(replace(swapped(running(idle=content(2)), Slot.B), starts=starts), 3) is must
    assert not must_give_up(running(), 0)
    assert not must_fall_back(cleared(running()), 0)


def test_falling_back_takes_the_proved_one_and_forgets_the_bad_one_and_its_trial():
    slots = replace(swapped(running(idle=content(2)), Slot.B), starts=3)
    assert fallen_back(slots) == running()
    assert fallen_back(Slots()) == Slots()
    alone = replace(trying(running(idle=content(2)), Slot.B, "load"), starts=3)
    assert fallen_back(alone) == running(), "what was tried beside it goes"


def test_a_slot_that_is_dropped_takes_its_trial_along_and_leaves_another_ones():
    slots = trying(running(idle=content(2)), Slot.B, "load")
    assert dropped(slots, Slot.B) == running()
    lone = dropped(slots, Slot.A)
    assert (lone.active, set(lone.contents), lone.trial) == (None, {Slot.B}, slots.trial)
    back = replace(swapped(running(idle=content(2)), Slot.B), starts=2)
    assert dropped(back, Slot.B) == running()


def test_giving_up_drops_what_was_never_healthy_and_only_ends_the_trial_of_the_rest():
    slots = trying(running(idle=content(2)), Slot.B, "load")
    assert given_up(slots) == running()
    assert given_up(running()) == running()
    assert given_up(trying(running(), Slot.A, "load")) == running()
    unproved = swapped(staged(Slots(), content(1)), Slot.A)
    assert given_up(trying(unproved, Slot.A, "load")) == unproved, "the active one is not dropped by a trial"


def test_nothing_runs_after_clearing_and_everything_stays():
    slots = replace(trying(swapped(running(idle=content(2)), Slot.B), Slot.A, "load"), starts=2)
    assert cleared(slots) == Slots(None, slots.contents, is_committed=True, starts=0, trial=None)


def test_the_idle_slot_is_the_empty_one_then_the_unproved_one_then_the_first():
    proved = {slot: replace(content(1), was_healthy=True) for slot in Slot}
    assert Slots().idle is Slot.A
    assert Slots(contents={Slot.A: content(1)}).idle is Slot.B
    assert Slots(contents={**proved, Slot.B: content(2)}).idle is Slot.B
    assert Slots(contents=proved).idle is Slot.A
    assert Slots(active=Slot.B, contents=proved).idle is Slot.A
    assert (Slot.A.other, Slot.B.other) == (Slot.B, Slot.A)


def test_what_is_previous_is_proved_and_does_not_run():
    slots = running(idle=content(2))
    assert (slots.release, slots.previous, slots.previous_slot) == ("demo@1", None, None)
    slots = committed(swapped(slots, Slot.B))
    assert (slots.release, slots.previous, slots.previous_slot) == ("demo@2", "demo@1", Slot.A)
    assert (cleared(slots).release, cleared(slots).previous) == (None, "demo@1")
    assert (slots.holds("demo@1"), slots.holds("demo@2"), slots.holds("demo@3")) == (Slot.A, Slot.B, None)
    assert Slots().is_proved
    assert Slots().active_content is None


def test_staging_over_what_is_not_proved_gives_nothing_up():
    assert Slots().may_stage
    assert swapped(staged(Slots(), content(1)), Slot.A).may_stage, "nothing else is proved either"
    slots = trying(running(idle=content(2)), Slot.B, "load")
    assert staging(slots) == running()
    assert staged(running(), content(2)).contents == {**running().contents, Slot.B: content(2)}


def test_a_proved_release_without_another_slot_stays():
    slots = running()
    for _ in range(9):
        slots = started(slots)
    assert not must_fall_back(slots, 3)


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(payload):
    with pytest.raises(DecodeError):
        Slots.from_fields(decode_json(payload, "p", limit_bytes=10_000))
