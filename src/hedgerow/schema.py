"""One tensor that goes into a model or comes out: its name, shape, type, unit and valid range."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError, InputError
from hedgerow.field_types import number_mistakes

__all__ = ["DTYPES", "KINDS", "SMALL", "TENSOR_NAME", "TensorSpec"]

DTYPES = ("float32", "int16", "int32", "int64", "uint8", "int8", "bool")
KINDS = ("sensor", "image", "audio", "category", "flag", "count", "tokens")
"""What an input can be: readings, a picture, a sound, one of several values, yes or no, how many, a text in numbers."""
SMALL = 16
"""So many values and fewer are readings, whatever their shape, where nobody says what they are."""
TENSOR_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""What the name of a tensor is like."""
_MOST_CHANNELS = 4096
_CHANNEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 _.+-]{0,31}")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor, without its batch dimension.

    Attributes:
        name: Lower-case identifier; the tensor's name in every artifact.
        shape: Sizes after the batch dimension, such as ``(1, 28, 28)`` (channels first).
        dtype: One of :data:`DTYPES`.
        unit: What one unit of the value is, such as ``"intensity 0-16"`` or ``"m/s^2"``; for people. One text for all
            values, or one for each channel.
        minimum: Smallest valid value, inclusive; values below it count as out of range. None: no bound.
        maximum: Largest valid value, inclusive.
        kind: One of :data:`KINDS`, by which its values are counted for drift; empty: as :attr:`counted_as` derives it.
        channels: Names of the values of a vector, or of the parts along one dimension, such as the sensors of a
            series; empty: they are numbered.
        missing: Whether a value may be NaN, which stands for one that did not come; the pre-processing decides what
            the model gets instead.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    unit: str | tuple[str, ...] = ""
    minimum: float | None = None
    maximum: float | None = None
    kind: str = ""
    channels: tuple[str, ...] = ()
    missing: bool = False

    def __post_init__(self) -> None:
        # A user may write a list, or forget that one number is no shape: mistakes() tells them, not a traceback.
        for name in ("shape", "channels", "unit"):
            value = getattr(self, name)
            if isinstance(value, Iterable) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        for name in ("minimum", "maximum"):
            value = getattr(self, name)
            if isinstance(value, np.number):  # such as the least of an array, which no record could hold
                object.__setattr__(self, name, value.item())

    @property
    def counted_as(self) -> str:
        """Its kind; where none is said, that which its form suggests.

        ``bool`` is a flag; ``(1 or 3, height, width)`` of more than :data:`SMALL` values a picture; a vector of more
        than that many ``int32`` or ``int64`` is a text in tokens; everything else is readings of sensors.
        """
        if self.kind:
            return self.kind
        if self.dtype == "bool":
            return "flag"
        if len(self.shape) == 3 and self.shape[0] in {1, 3} and math.prod(self.shape) > SMALL:
            return "image"
        if len(self.shape) == 1 and self.shape[0] > SMALL and self.dtype in {"int32", "int64"}:
            return "tokens"
        return "sensor"

    @property
    def channel_axis(self) -> int | None:
        """The dimension along which :attr:`channels` are, the first of their number; None: they have no names."""
        return self.shape.index(len(self.channels)) if self.channels else None

    @property
    def unit_text(self) -> str:
        """The unit as one text; units of channels are named by them."""
        if isinstance(self.unit, str):
            return self.unit
        names = self.channels or tuple(map(str, range(len(self.unit))))
        return ", ".join(f"{name}: {unit}" for name, unit in zip(names, self.unit, strict=False) if unit)

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong with this specification."""
        found = []
        if not isinstance(self.name, str) or not TENSOR_NAME.fullmatch(self.name):
            found.append(f"the tensor name {self.name!r} is not like {TENSOR_NAME.pattern}")
        sizes = self.shape if isinstance(self.shape, tuple) else (None,)
        if not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes):
            found.append(f"{self.name}: the shape {self.shape} must hold positive whole numbers (leave the batch out)")
        if self.dtype not in DTYPES:
            found.append(f"{self.name}: the dtype {self.dtype!r} is none of {', '.join(DTYPES)}")
        ends = [(name, end) for name in ("minimum", "maximum") if (end := getattr(self, name)) is not None]
        wrong = [mistake for name, end in ends for mistake in number_mistakes(f"{self.name}: the {name}", end)]
        found.extend(wrong)
        if not wrong and self.minimum is not None and self.maximum is not None and not self.minimum < self.maximum:
            found.append(f"{self.name}: the minimum {self.minimum} is not below the maximum {self.maximum}")
        missing: object = self.missing
        if not isinstance(missing, bool):
            found.append(f"{self.name}: missing must be True or False, found {self.missing!r}")
        return [*found, *self._kind_mistakes()]

    def _kind_mistakes(self) -> list[str]:
        found = []
        if self.kind not in ("", *KINDS):
            found.append(f"{self.name}: the kind {self.kind!r} is none of {', '.join(KINDS)}")
        if not isinstance(self.channels, tuple) or not all(isinstance(name, str) for name in self.channels):
            return [*found, f"{self.name}: channels must be a sequence of names, found {self.channels!r}"]
        wrong = [name for name in self.channels if not _CHANNEL.fullmatch(name)]
        if wrong:
            found.append(f"{self.name}: the channel name {wrong[0]!r} is not like {_CHANNEL.pattern}")
        if len(set(self.channels)) < len(self.channels):
            found.append(f"{self.name}: its channel names repeat")
        if misfit := self._channels_misfit():
            found.append(f"{self.name}: expected {misfit[0]}, found {misfit[1]}")
        if self.missing and self.dtype != "float32":
            found.append(f"{self.name}: only float32 can hold a missing value (NaN), found {self.dtype}")
        if self.kind == "tokens" and self.dtype == "float32":
            found.append(f"{self.name}: tokens are whole numbers such as int64, found {self.dtype}")
        return found

    def _channels_misfit(self) -> tuple[str, str] | None:
        """Return what was expected of the names and units of channels and what was found; None: they fit."""
        if self.channels and len(self.channels) not in (self.shape if isinstance(self.shape, tuple) else ()):
            return f"as many channel names as one dimension of the shape {self.shape}", str(len(self.channels))
        said: object = self.unit
        if isinstance(said, str):
            return None
        if not isinstance(said, tuple):
            return "a unit as text", repr(said)
        shape = self.shape if isinstance(self.shape, tuple) else ()
        wanted = {len(self.channels)} if self.channels else set(shape[:1])
        if len(said) not in wanted or not all(isinstance(unit, str) for unit in said):
            return "one unit as text, or a text for each channel", f"{len(said)} units"
        return None

    def check(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return *values* if they are a batch of this tensor.

        Args:
            values: Shape ``(batch, *shape)`` and this dtype.

        Raises:
            InputError: The shape or the dtype differs.
        """
        if values.shape[1:] != self.shape or values.ndim != len(self.shape) + 1:
            raise InputError(
                f"{self.name}: expected the shape (batch, {', '.join(map(str, self.shape))}), found {values.shape}"
            )
        if values.dtype != np.dtype(self.dtype):
            raise InputError(
                f"{self.name}: expected the dtype {self.dtype}, found {values.dtype}; convert it with .astype"
            )
        return values

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "unit": self.unit if isinstance(self.unit, str) else "",
            "minimum": self.minimum,
            "maximum": self.maximum,
            # What is not said is left out, so that agents of before read a release that says no more than theirs.
            **({} if isinstance(self.unit, str) else {"units": list(self.unit)}),
            **({"kind": self.kind} if self.kind else {}),
            **({"channels": list(self.channels)} if self.channels else {}),
            **({"missing": True} if self.missing else {}),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "TensorSpec":
        """Decode one tensor.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        said = fields.names()
        unit: str | tuple[str, ...] = fields.text("unit")
        if "units" in said:
            unit = fields.texts("units", maximum_items=_MOST_CHANNELS, maximum_chars=64)
        spec = cls(
            name=fields.text("name", pattern=TENSOR_NAME),
            shape=fields.integers("shape", minimum=1, maximum_items=8),
            dtype=fields.choice("dtype", {name: name for name in DTYPES}),
            unit=unit,
            minimum=fields.optional_number("minimum"),
            maximum=fields.optional_number("maximum"),
            kind=fields.choice("kind", {name: name for name in KINDS}) if "kind" in said else "",
            channels=fields.texts("channels", maximum_items=_MOST_CHANNELS, maximum_chars=32)
            if "channels" in said
            else (),
            missing=fields.boolean("missing") if "missing" in said else False,
        )
        fields.finish()
        if mistakes := spec._kind_mistakes():
            raise DecodeError(fields.where, "a tensor that agrees with itself", mistakes[0])
        return spec
