"""One operator of a trace, on its way to C. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hedgerow.compile.preparation.c_formulas import COMPARISONS, LOGICAL
from hedgerow.compile.preparation.c_values import C_TYPES, View, literal
from hedgerow.compile.preparation.c_writer import CWriter

__all__ = ["Call", "Emitter", "UntranslatableCallError"]


class UntranslatableCallError(Exception):
    """An operator is called in a way that has no C here; its text says which."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operator of a trace, its operands as views.

    Attributes:
        writer: Takes the statements.
        name: Of the operator, without namespace and overload.
        arguments: In the order of the operator's schema, defaults filled in; tensors are views.
        by_name: The same by name.
        shape, dtype: Of the (first) result.
        types: Element type in which torch compares the operands.
    """

    writer: CWriter
    name: str
    arguments: tuple[Any, ...]
    by_name: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: str
    types: str

    def operand(self, place: int) -> View:
        """Return an argument as a view; a number becomes a constant."""
        value = self.arguments[place]
        if isinstance(value, View):
            return value
        if isinstance(value, bool | int | float):
            kind = self.types if self.name in COMPARISONS or self.name in LOGICAL else self.dtype
            return self.writer.constant(np.array(value, dtype=kind))
        raise UntranslatableCallError(f"{self.name} of {type(value).__name__}")

    def cast(self, expression: str, view: View, dtype: str) -> str:
        """Return *expression*, an element of *view*, in another element type."""
        if view.array.dtype == dtype:
            return expression
        if dtype == "bool":
            return f"({expression} != 0)"
        return f"({C_TYPES[dtype]}){expression}"

    def element(self, place: int, dtype: str) -> tuple[View | None, str]:
        """Return an operand's view, or None and the literal of a number."""
        value = self.arguments[place]
        if isinstance(value, View):
            return value, ""
        if isinstance(value, bool | int | float):
            return None, literal(value, dtype)
        raise UntranslatableCallError(f"{self.name} of {type(value).__name__}")


Emitter = Callable[[Call], "View | list[View]"]
"""Writes the statements of a call, and returns what it gives."""
