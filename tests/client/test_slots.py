"""The slot rules, as a state machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hedgerow.client.slots import (
    Content,
    Slot,
    Slots,
    cleared,
    committed,
    dropped,
    fallen_back,
    must_fall_back,
    staged,
    staging,
    started,
    swapped,
)
from hedgerow.decode import decode_json, encode_json
from hedgerow.errors import DecodeError


def content(number: int) -> Content:
    return Content(f"demo@{number}", f"{number:064x}")


class SlotMachine(RuleBasedStateMachine):
    """Any order of installations, starts, crashes and power cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots()
        self.number = 0

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
        if swaps:
            self.slots = swapped(self.slots, idle)
            assert self.slots.release == f"demo@{self.number}"
            assert self.slots.previous == before.release or before.release is None
            assert not self.slots.is_committed

    @precondition(lambda self: self.slots.previous_slot is not None)
    @rule()
    def go_back(self) -> None:
        wanted, before = self.slots.previous, self.slots.release
        self.slots = swapped(self.slots, self.slots.previous_slot)
        assert self.slots.release == wanted
        assert before is None or self.slots.previous == before

    @rule()
    def start(self) -> None:
        self.slots = started(self.slots)

    @rule()
    def become_healthy(self) -> None:
        self.slots = committed(self.slots)
        assert not must_fall_back(self.slots, 1)

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
    def the_state_survives_the_disk(self) -> None:
        document = encode_json({"slots": self.slots.to_record()})
        assert Slots.from_fields(decode_json(document, "p", limit_bytes=10_000).nested("slots")) == self.slots


TestSlotMachine = SlotMachine.TestCase


def test_an_empty_slot_cannot_become_active():
    with pytest.raises(ValueError, match="empty"):
        swapped(Slots(), Slot.A)


def test_without_another_slot_there_is_no_falling_back():
    slots = swapped(staged(Slots(), content(1)), Slot.A)
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
