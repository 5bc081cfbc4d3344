"""What the fleet wants of a device, what the device says it is, and whether it is there. Pure."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from hedgerow.decode import Fields
from hedgerow.manifest.release import RELEASE_ID
from hedgerow.wire.message import SEQUENCE_LIMIT, WireMessage, lines, one_line
from hedgerow.wire.topics import NAME

__all__ = ["VERSION_JUMP", "VERSION_LIMIT", "Desired", "Presence", "Reported"]

_PROBLEMS_LIMIT, _PROBLEM_CHARS = 16, 256
VERSION_JUMP = 1000
"""How far above the last version that a device accepted the next one may lie.

A number that may rise by anything is lost to the first liar. A service that is further ahead hears from the device's
report where it stands and goes on from there.
"""

VERSION_LIMIT = 2**40
"""No desired version lies above. A device reports at most half of it, so that there is always a next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired(WireMessage):
    """What the fleet wants of a device (retained).

    Attributes:
        version: Rises with every change, from 1. To a version that it has seen, a device answers with its report and
            the end of its last installation, for they may have been lost; 0 wants nothing and only asks for that.
        release: The release to run; None: none.
        rollout: The rollout that asks for it; None for a plain assignment.
        attempt: Which try of this device in that rollout, from 1.
        compare: Run the model before on the same inputs too, and count (see :class:`PairedCounts`).
    """

    KIND: ClassVar[str] = "desired"
    version: int
    release: str | None
    rollout: str | None = None
    attempt: int = 1
    compare: bool = False

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "version": self.version,
            "release": self.release,
            "rollout": self.rollout,
            "attempt": self.attempt,
            "compare": self.compare,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""
        return cls(
            version=fields.integer("version", maximum=VERSION_LIMIT),
            release=fields.optional_text("release", pattern=RELEASE_ID),
            rollout=fields.optional_text("rollout", pattern=NAME),
            attempt=fields.integer("attempt", minimum=1, maximum=100),
            compare=fields.boolean("compare"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported(WireMessage):
    """What a device says it is, on connecting and after every change.

    Attributes:
        boot: Random identity of this start of the agent.
        sequence: Rises with every report of this boot.
        desired_version: The last desired version it acted on.
        release: The active release; None: none.
        previous: The release in the other slot, ready to go back to.
        target: Its hardware target.
        agent_version: Version of Hedgerow on it.
        runtimes: The runtimes it can load.
        problems: What does not work on it now, as ``part: reason``; empty: all is well.
    """

    KIND: ClassVar[str] = "reported"
    boot: str
    sequence: int
    desired_version: int
    release: str | None
    previous: str | None
    target: str
    agent_version: str
    runtimes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        record: dict[str, Any] = {
            "boot": self.boot,
            "sequence": self.sequence,
            "desired_version": self.desired_version,
            "release": self.release,
            "previous": self.previous,
            "target": self.target,
            "agent_version": self.agent_version,
            "runtimes": list(self.runtimes),
        }
        if self.problems:
            # Absent when all is well: a receiver that does not know the field would refuse the message.
            record["problems"] = [text[:_PROBLEM_CHARS] for text in self.problems[:_PROBLEMS_LIMIT]]
        return record

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""
        return cls(
            boot=fields.text("boot", pattern=NAME),
            sequence=fields.integer("sequence", maximum=SEQUENCE_LIMIT),
            desired_version=fields.integer("desired_version", maximum=VERSION_LIMIT // 2),
            release=fields.optional_text("release", pattern=RELEASE_ID),
            previous=fields.optional_text("previous", pattern=RELEASE_ID),
            target=fields.text("target", pattern=NAME),
            agent_version=one_line(fields.text("agent_version", maximum_chars=64)),
            runtimes=lines(fields, "runtimes", 16, 64),
            problems=lines(fields, "problems", _PROBLEMS_LIMIT, _PROBLEM_CHARS) if "problems" in fields.names() else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence(WireMessage):
    """Whether a device is connected (retained; the offline form is its last will)."""

    KIND: ClassVar[str] = "presence"
    online: bool
    boot: str

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {"online": self.online, "boot": self.boot}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""
        return cls(online=fields.boolean("online"), boot=fields.text("boot", pattern=NAME))
