"""Two slots and a pointer, as a value: which release lies where, which one runs, and which have proved themselves.

Pure. The active slot is never written to; a new release goes into the idle one and becomes active by one change of
the pointer, so any prefix of an installation leaves the old release or the new one. A slot is a place to fall back to
only after its release ran healthily on this device. What is being tried is written down before it is tried, so that a
start after a crash blames that, and nothing else (Mender's install, commit and rollback; fleet reference, section 4.4).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from hedgerow.decode import SHA256, Fields
from hedgerow.errors import DecodeError
from hedgerow.manifest.release import RELEASE_ID

__all__ = [
    "Content",
    "Slot",
    "Slots",
    "Transition",
    "Trial",
    "cleared",
    "committed",
    "dropped",
    "fallen_back",
    "given_up",
    "must_fall_back",
    "must_give_up",
    "rested",
    "staged",
    "staging",
    "started",
    "swapped",
    "tried",
    "trying",
]

_STEP_CHARS = 64


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
        was_healthy: Whether it has run on this device for a whole health period. Only then it can be fallen back to.
    """

    release: str
    manifest_sha256: str
    was_healthy: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """What is being tried: the next start blames it when this one does not get to its end.

    Attributes:
        slot: The slot that it lies in.
        release: ``name@number``.
        step: What the installation is doing with it.
        starts: Starts of the agent that found this trial unfinished.
    """

    slot: Slot
    release: str
    step: str
    starts: int = 0


@dataclass(frozen=True, slots=True)
class Slots:
    """The state of both slots.

    Attributes:
        active: The slot that runs; None: none.
        contents: What lies in each slot; an absent slot is empty or half-written.
        is_committed: Whether the active release has been healthy since it became active.
        starts: Starts of the agent with the active release since it was last healthy.
        trial: The installation that is trying a slot; None: none is.
    """

    active: Slot | None = None
    contents: Mapping[Slot, Content] = field(default_factory=dict)
    is_committed: bool = True
    starts: int = 0
    trial: Trial | None = None

    def __post_init__(self) -> None:
        # One fact, not two that could disagree: what is committed was healthy.
        content = self.active_content
        if self.active is not None and content is not None and self.is_committed and not content.was_healthy:
            healthy = {**self.contents, self.active: replace(content, was_healthy=True)}
            object.__setattr__(self, "contents", healthy)

    @property
    def idle(self) -> Slot:
        """The slot that may be written: the one that does not run; when none does, what was never healthy first."""
        if self.active is not None:
            return self.active.other
        return min(Slot, key=lambda slot: (slot in self.contents, slot in self.contents and self._is_healthy(slot)))

    @property
    def is_proved(self) -> bool:
        """Whether the active release has ever been healthy on this device; True when nothing is active."""
        return self.active is None or self._is_healthy(self.active)

    @property
    def may_stage(self) -> bool:
        """Whether the idle slot may be overwritten without giving up the only release that has proved itself."""
        return self.is_proved or not self._is_healthy(self.idle)

    @property
    def active_content(self) -> Content | None:
        """What runs, or None."""
        return self.contents.get(self.active) if self.active is not None else None

    @property
    def previous_slot(self) -> Slot | None:
        """The slot that can be fallen back to, because its release ran healthily; or None."""
        return next((slot for slot in Slot if slot is not self.active and self._is_healthy(slot)), None)

    @property
    def release(self) -> str | None:
        """The release that runs, or None."""
        return self.active_content.release if self.active_content else None

    @property
    def previous(self) -> str | None:
        """The release in the slot that can be fallen back to, or None."""
        return self.contents[self.previous_slot].release if self.previous_slot is not None else None

    def _is_healthy(self, slot: Slot) -> bool:
        return slot in self.contents and self.contents[slot].was_healthy

    def holds(self, release: str) -> Slot | None:
        """Return the slot that holds *release*, proved or not; or None."""
        return next((slot for slot in Slot if slot in self.contents and self.contents[slot].release == release), None)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "active": self.active.value if self.active else None,
            "contents": {
                slot.value: {
                    "release": content.release,
                    "manifest_sha256": content.manifest_sha256,
                    "was_healthy": content.was_healthy,
                }
                for slot, content in self.contents.items()
            },
            "is_committed": self.is_committed,
            "starts": self.starts,
            "trial": None
            if self.trial is None
            else {
                "slot": self.trial.slot.value,
                "release": self.trial.release,
                "step": self.trial.step,
                "starts": self.trial.starts,
            },
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Slots":
        """Decode the state.

        A record of an agent that kept no ``was_healthy`` says of the active release alone that it was healthy, by
        ``is_committed``; the other slot must prove itself before it counts.

        Raises:
            DecodeError: A field is wrong, or the slot that is active or tried is empty.
        """
        active = fields.choice("active", _NAMES) if fields.optional_text("active") is not None else None
        contents = fields.mapping("contents", _content, maximum_items=len(_NAMES))
        trial = fields.optional("trial")
        slots = cls(
            active=active,
            contents={_NAMES[name]: content for name, content in contents.items() if name in _NAMES},
            is_committed=fields.boolean("is_committed"),
            starts=fields.integer("starts"),
            trial=_trial(trial) if trial is not None else None,
        )
        fields.finish()
        if len(slots.contents) != len(contents) or (active is not None and active not in slots.contents):
            raise DecodeError(
                f"{fields.where}.contents", "slots A and B with the active one filled", str(sorted(contents))
            )
        held = slots.contents.get(slots.trial.slot) if slots.trial is not None else None
        if slots.trial is not None and (held is None or held.release != slots.trial.release):
            raise DecodeError(f"{fields.where}.trial", "a slot that holds what is tried", slots.trial.release)
        return slots


Transition = Callable[[Slots], Slots]


_NAMES = {slot.value: slot for slot in Slot}


def _content(fields: Fields) -> Content:
    content = Content(
        fields.text("release", pattern=RELEASE_ID),
        fields.text("manifest_sha256", pattern=SHA256),
        was_healthy="was_healthy" in fields.names() and fields.boolean("was_healthy"),
    )
    fields.finish()
    return content


def _trial(fields: Fields) -> Trial:
    trial = Trial(
        fields.choice("slot", _NAMES),
        fields.text("release", pattern=RELEASE_ID),
        fields.text("step", maximum_chars=_STEP_CHARS),
        fields.integer("starts"),
    )
    fields.finish()
    return trial


def _without(slots: Slots, slot: Slot) -> Slots:
    """Return the state in which *slot*, which does not run, is empty, and no longer tried."""
    left = {name: content for name, content in slots.contents.items() if name is not slot}
    trial = slots.trial if slots.trial is not None and slots.trial.slot is not slot else None
    return replace(slots, contents=left, trial=trial)


def _back(slots: Slots, bad: Slot) -> Slots:
    """Return the state without the active slot *bad*: a proved release in the other one is active, or nothing is."""
    place = slots.previous_slot
    return _without(replace(slots, active=place, is_committed=True, starts=0), bad)


def staging(slots: Slots) -> Slots:
    """Return the state in which the idle slot may be overwritten: nothing in it counts any more."""
    return _without(slots, slots.idle)


def staged(slots: Slots, content: Content) -> Slots:
    """Return the state in which the idle slot holds *content*, whole and synced."""
    return replace(slots, contents={**slots.contents, slots.idle: content})


def trying(slots: Slots, slot: Slot, step: str) -> Slots:
    """Return the state in which an installation is in *step* with *slot*, and takes the blame if the agent dies.

    Raises:
        ValueError: The slot is empty.
    """
    if slot not in slots.contents:
        raise ValueError(f"slot {slot} is empty and cannot be tried")
    release = slots.contents[slot].release
    before = slots.trial
    starts = before.starts if before is not None and (before.slot, before.release) == (slot, release) else 0
    return replace(slots, trial=Trial(slot, release, step[:_STEP_CHARS], starts))


def tried(slots: Slots) -> Slots:
    """Return the state in which no installation is trying anything: it ended, well or with an error that was caught."""
    return replace(slots, trial=None)


def swapped(slots: Slots, slot: Slot) -> Slots:
    """Return the state in which *slot* is active, yet to be healthy.

    Raises:
        ValueError: The slot is empty.
    """
    if slot not in slots.contents:
        raise ValueError(f"slot {slot} is empty and cannot become active")
    if slot is slots.active:
        return tried(slots)
    return replace(slots, active=slot, is_committed=False, starts=0, trial=None)


def started(slots: Slots) -> Slots:
    """Count a start of the agent, against what was being tried, else against the active release."""
    if slots.trial is not None:
        return replace(slots, trial=replace(slots.trial, starts=slots.trial.starts + 1))
    return replace(slots, starts=slots.starts + 1) if slots.active is not None else slots


def rested(slots: Slots) -> Slots:
    """Return the state after a stop in order: no start counts as a crash, and nobody has proved anything by it."""
    trial = replace(slots.trial, starts=0) if slots.trial is not None else None
    return replace(slots, starts=0, trial=trial)


def committed(slots: Slots) -> Slots:
    """Return the state in which the active release has been healthy for a whole health period."""
    return replace(slots, is_committed=True, starts=0)


def must_give_up(slots: Slots, limit: int) -> bool:
    """Return whether the agent ended *limit* times in the middle of the same trial."""
    return slots.trial is not None and slots.trial.starts >= limit


def given_up(slots: Slots) -> Slots:
    """Return the state after a trial that failed for good: what was tried is dropped, unless it was healthy before."""
    trial = slots.trial
    if trial is None:
        return slots
    was_healthy = trial.slot in slots.contents and slots.contents[trial.slot].was_healthy
    return tried(slots) if was_healthy or trial.slot is slots.active else _without(slots, trial.slot)


def must_fall_back(slots: Slots, limit: int) -> bool:
    """Return whether the active release was started *limit* times without becoming healthy and must go.

    One that never was healthy goes in any case; one that was stays where there is nothing better to go back to.
    """
    if slots.active is None or slots.starts < limit:
        return False
    return slots.previous_slot is not None or not slots.is_proved


def fallen_back(slots: Slots) -> Slots:
    """Return the state after the active release was started too often without becoming healthy.

    A release in the other slot that has proved itself takes over. Without one, a release that was healthy before stays,
    and whatever was being tried beside it goes; one that never was healthy is given up, and nothing is active.
    """
    if slots.active is None:
        return slots
    if slots.previous_slot is None and slots.is_proved:
        return replace(_without(slots, slots.active.other), starts=0)
    return _back(slots, slots.active)


def dropped(slots: Slots, slot: Slot) -> Slots:
    """Return the state in which *slot*, found damaged or unfit, is empty.

    If it was active, a proved release in the other one becomes active, else nothing is.
    """
    return _back(slots, slot) if slot is slots.active else _without(slots, slot)


def cleared(slots: Slots) -> Slots:
    """Return the state in which nothing runs; the contents stay for going back."""
    return replace(slots, active=None, is_committed=True, starts=0, trial=None)
