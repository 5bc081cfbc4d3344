"""What a device counted: one window a message. Pure."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from hedgerow.decode import Fields
from hedgerow.window import WINDOW_SAMPLES_LIMIT, Window
from hedgerow.wire.message import SEQUENCE_LIMIT, WireMessage
from hedgerow.wire.topics import NAME

__all__ = ["Telemetry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry(WireMessage):
    """One window, with what identifies it."""

    KIND: ClassVar[str] = "telemetry"
    boot: str
    sequence: int
    window: Window

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {"boot": self.boot, "sequence": self.sequence, "window": self.window.to_record()}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""
        window = Window.from_fields(fields.nested("window"), limit_samples=WINDOW_SAMPLES_LIMIT)
        return cls(
            boot=fields.text("boot", pattern=NAME),
            sequence=fields.integer("sequence", maximum=SEQUENCE_LIMIT),
            window=window,
        )
