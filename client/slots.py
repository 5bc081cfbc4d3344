"""Two slots and a pointer, as a value: which release lies where, which one runs, and whether it has proved itself.

Pure. The active slot is never written to; a new release goes into the idle one and becomes active by one change of
the pointer, so any prefix of an installation leaves the old release or the new one. A release that keeps the agent
from becoming healthy falls back by itself (Mender's install, commit and rollback; fleet reference, section 4.4).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from hedgerow.decode import SHA256, Fields
from hedgerow.errors import DecodeError
from hedgerow.manifest import RELEASE_ID

__all__ = [
    "Content",
    "Slot",
    "Slots",
    "Transition",
    "cleared",
    "committed",
    "dropped",
    "fallen_back",
    "must_fall_back",
    "staged",
    "staging",
    "started",
    "swapped",
]


class Slot(StrEnum):
    """Name of a slot and of its folder."""

    A = "A"
    B = "B"

    @property
    def other(self) -> "Slot":
        """The other slot."""
        return Slot.B if self is Slot.A else Slot.A


@dataclass(frozen=True, slots=True)
class Content:
    """What lies in a slot, whole and verified.

    Attributes:
        release: ``name@number``.
        manifest_sha256: Hash of its manifest, which names the hash of everything else.
    """

    release: str
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class Slots:
    """The state of both slots.

    Attributes:
        active: The slot that runs; None: none.
        contents: What lies in each slot; an absent slot is empty or half-written.
        is_committed: Whether the active release has been healthy since it became active.
        starts: Starts of the agent with the active release since it was last healthy.
    """

    active: Slot | None = None
    contents: Mapping[Slot, Content] = field(default_factory=dict)
    is_committed: bool = True
    starts: int = 0

    @property
    def idle(self) -> Slot:
        """The slot that may be written."""
        return Slot.A if self.active is None and Slot.A not in self.contents else (self.active or Slot.A).other

    @property
    def active_content(self) -> Content | None:
        """What runs, or None."""
        return self.contents.get(self.active) if self.active is not None else None

    @property
    def previous_slot(self) -> Slot | None:
        """The slot that can be gone back to without a download, or None."""
        if self.active is None:
            return next((slot for slot in Slot if slot in self.contents), None)
        return self.active.other if self.active.other in self.contents else None

    @property
    def release(self) -> str | None:
        """The release that runs, or None."""
        return self.active_content.release if self.active_content else None

    @property
    def previous(self) -> str | None:
        """The release in the slot that can be gone back to, or None."""
        return self.contents[self.previous_slot].release if self.previous_slot is not None else None

    def holds(self, release: str) -> Slot | None:
        """Return the slot that holds *release*, or None."""
        return next((slot for slot in Slot if slot in self.contents and self.contents[slot].release == release), None)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "active": self.active.value if self.active else None,
            "contents": {
                slot.value: {"release": content.release, "manifest_sha256": content.manifest_sha256}
                for slot, content in self.contents.items()
            },
            "is_committed": self.is_committed,
            "starts": self.starts,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Slots":
        """Decode the state.

        Raises:
            DecodeError: A field is wrong, or the active slot is empty.
        """
        names = {slot.value: slot for slot in Slot}
        active = fields.choice("active", names) if fields.optional_text("active") is not None else None
        contents = fields.mapping("contents", _content, maximum_items=len(names))
        slots = cls(
            active=active,
            contents={names[name]: content for name, content in sorted(contents.items()) if name in names},
            is_committed=fields.boolean("is_committed"),
            starts=fields.integer("starts"),
        )
        fields.finish()
        if len(slots.contents) != len(contents) or (active is not None and active not in slots.contents):
            raise DecodeError(
                f"{fields.where}.contents", "slots A and B with the active one filled", str(sorted(contents))
            )
        return slots


Transition = Callable[[Slots], Slots]


def _content(fields: Fields) -> Content:
    content = Content(fields.text("release", pattern=RELEASE_ID), fields.text("manifest_sha256", pattern=SHA256))
    fields.finish()
    return content


def _without(slots: Slots, slot: Slot) -> dict[Slot, Content]:
    return {name: content for name, content in slots.contents.items() if name is not slot}


def staging(slots: Slots) -> Slots:
    """Return the state in which the idle slot may be overwritten: nothing in it counts any more."""
    return replace(slots, contents=_without(slots, slots.idle))


def staged(slots: Slots, content: Content) -> Slots:
    """Return the state in which the idle slot holds *content*, whole and synced."""
    return replace(slots, contents={**slots.contents, slots.idle: content})


def swapped(slots: Slots, slot: Slot) -> Slots:
    """Return the state in which *slot* is active, yet to prove itself.

    Raises:
        ValueError: The slot is empty.
    """
    if slot not in slots.contents:
        raise ValueError(f"slot {slot} is empty and cannot become active")
    if slot is slots.active:
        return slots
    return replace(slots, active=slot, is_committed=False, starts=0)


def started(slots: Slots) -> Slots:
    """Count a start of the agent with the active release."""
    return replace(slots, starts=slots.starts + 1) if slots.active is not None else slots


def committed(slots: Slots) -> Slots:
    """Return the state in which the active release has proved itself."""
    return replace(slots, is_committed=True, starts=0)


def must_fall_back(slots: Slots, limit: int) -> bool:
    """Return whether the active release was started *limit* times without becoming healthy, and another is there."""
    return slots.active is not None and slots.starts >= limit and slots.previous_slot is not None


def fallen_back(slots: Slots) -> Slots:
    """Return the state in which the other slot is active and the one that failed is empty.

    With nothing to go back to, nothing is active.
    """
    if slots.active is None:
        return slots
    left = _without(slots, slots.active)
    return Slots(active=slots.active.other if slots.active.other in left else None, contents=left)


def dropped(slots: Slots, slot: Slot) -> Slots:
    """Return the state in which *slot*, found damaged, is empty; if it was active, the other one becomes active."""
    if slot is slots.active:
        return fallen_back(slots)
    return replace(slots, contents=_without(slots, slot))


def cleared(slots: Slots) -> Slots:
    """Return the state in which nothing runs; the contents stay for going back."""
    return replace(slots, active=None, is_committed=True, starts=0)
