"""One tensor that goes into a model or comes out: its name, shape, type, unit and valid range."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.errors import InputError

__all__ = ["DTYPES", "TENSOR_NAME", "TensorSpec"]

DTYPES = ("float32", "int16", "int32", "int64", "uint8", "int8", "bool")
TENSOR_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""What the name of a tensor is like."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor, without its batch dimension.

    Attributes:
        name: Lower-case identifier; the tensor's name in every artifact.
        shape: Sizes after the batch dimension, such as ``(1, 28, 28)`` (channels first).
        dtype: One of :data:`DTYPES`.
        unit: What one unit of the value is, such as ``"intensity 0-16"`` or ``"m/s^2"``; for people.
        minimum: Smallest valid value, inclusive; values below it count as out of range. None: no bound.
        maximum: Largest valid value, inclusive.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        # A user may write a list, or forget that one number is no shape: mistakes() tells them, not a traceback.
        if isinstance(self.shape, Iterable):
            object.__setattr__(self, "shape", tuple(self.shape))

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong with this specification."""
        found = []
        if not isinstance(self.name, str) or not TENSOR_NAME.fullmatch(self.name):
            found.append(f"the tensor name {self.name!r} is not like {TENSOR_NAME.pattern}")
        sizes = self.shape if isinstance(self.shape, tuple) else (None,)
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            found.append(f"{self.name}: the shape {self.shape} must hold positive whole numbers (leave the batch out)")
        if self.dtype not in DTYPES:
            found.append(f"{self.name}: the dtype {self.dtype!r} is none of {', '.join(DTYPES)}")
        if self.minimum is not None and self.maximum is not None and not self.minimum < self.maximum:
            found.append(f"{self.name}: the minimum {self.minimum} is not below the maximum {self.maximum}")
        return found

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
            "unit": self.unit,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "TensorSpec":
        """Decode one tensor.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        spec = cls(
            name=fields.text("name", pattern=TENSOR_NAME),
            shape=fields.integers("shape", minimum=1, maximum_items=8),
            dtype=fields.choice("dtype", {name: name for name in DTYPES}),
            unit=fields.text("unit"),
            minimum=fields.optional_number("minimum"),
            maximum=fields.optional_number("maximum"),
        )
        fields.finish()
        return spec
