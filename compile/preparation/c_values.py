"""Values of a traced program as C has them: arrays, and views of them. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["C_TYPES", "Array", "View", "literal", "row_major"]

C_TYPES = {
    "float32": "float", "float64": "double", "int64": "int64_t", "int32": "int32_t", "int16": "int16_t",
    "int8": "int8_t", "uint8": "uint8_t", "bool": "uint8_t",
}  # fmt: skip
"""Element type of a tensor -> C's."""


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """One piece of memory.

    Attributes:
        name: In the C source, before scratch memory is given out.
        dtype: Element type, a key of :data:`C_TYPES`.
        count: Elements.
        values: What it holds, for a constant; else None.
        is_scratch: Whether it is computed on the way, so that others can have its memory before and after.
    """

    name: str
    dtype: str
    count: int
    values: NDArray[Any] | None = field(default=None, repr=False)
    is_scratch: bool = False

    @property
    def c_type(self) -> str:
        """C's element type."""
        return C_TYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: some elements of an array, in an order.

    Attributes:
        array: Where it is.
        shape: Its sizes.
        strides: Elements from one to the next along each dimension.
        offset: Where the first element is.
    """

    array: Array
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def is_row_major(self) -> bool:
        """Whether the elements follow each other in the array as they do in the tensor."""
        wanted = row_major(self.shape)
        return all(
            size == 1 or mine == other for size, mine, other in zip(self.shape, self.strides, wanted, strict=True)
        )

    def at(self, index: Sequence[str]) -> str:
        """Return the C expression of one element; *index* gives one expression for each dimension."""
        terms = [str(self.offset)] if self.offset else []
        for place, size, stride in zip(index, self.shape, self.strides, strict=True):
            if place == "0" or size == 1 or stride == 0:
                continue
            terms.append(place if stride == 1 else f"{stride} * {place}")
        return f"{self.array.name}[{' + '.join(terms) or '0'}]"

    def broadcast(self, shape: Sequence[int]) -> "View":
        """Return this as a tensor of *shape*, which it is repeated to."""
        missing = len(shape) - len(self.shape)
        sizes, strides = (1,) * missing + self.shape, (0,) * missing + self.strides
        repeated = tuple(0 if size == 1 else stride for size, stride in zip(sizes, strides, strict=True))
        return View(self.array, tuple(shape), repeated, self.offset)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a tensor whose elements follow each other, the last dimension first."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def literal(value: float | bool, dtype: str) -> str:
    """Return a number as C writes it in an element type."""
    if dtype in {"float32", "float64"}:
        suffix, digits = ("f", 9) if dtype == "float32" else ("", 17)
        number = float(np.float32(value)) if dtype == "float32" else float(value)
        if math.isnan(number):
            return "NAN"
        if math.isinf(number):
            return "INFINITY" if number > 0 else "(-INFINITY)"
        text = f"{number:.{digits}g}"
        text = text if any(sign in text for sign in ".e") else f"{text}.0"
        return f"({text}{suffix})" if number < 0 else f"{text}{suffix}"
    whole = int(value)
    if dtype == "int64":
        # The smallest has no literal of its own.
        return "INT64_MIN" if whole == -(2**63) else f"INT64_C({whole})" if whole >= 0 else f"(-INT64_C({-whole}))"
    return f"({whole})" if whole < 0 else str(whole)
