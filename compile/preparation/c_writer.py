"""C statements of a program that works on arrays, in the order in which they run. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.preparation.c_values import Array, View, row_major

__all__ = ["CProgram", "CWriter", "Statement", "loops", "shared_memory"]

_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Statement:
    """Loops that compute one array.

    Attributes:
        lines: C, with the arrays' own names.
        reads: Arrays.
        writes: An array.
        shares: Scratch arrays among *reads* whose memory *writes* may have: each element is read before it is written,
            and never after.
    """

    lines: tuple[str, ...]
    reads: tuple[Array, ...]
    writes: Array
    shares: tuple[Array, ...] = ()


@dataclass(frozen=True, slots=True)
class CProgram:
    """Statements, with what they read and write.

    Attributes:
        statements: In order.
        constants: Arrays with values.
        inputs: The task's, one sample each.
        outputs: What the model takes.
    """

    statements: tuple[Statement, ...]
    constants: tuple[Array, ...]
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]


def loops(shape: Sequence[int], body: Callable[[list[str]], Sequence[str]], letter: str = "i") -> list[str]:
    """Return loops over *shape* around the lines that *body* gives for the index of one element."""
    index = [f"{letter}{place}" if size != 1 else "0" for place, size in enumerate(shape)]
    lines, depth = [], 0
    for place, size in zip(index, shape, strict=True):
        if place != "0":
            lines.append(f"{_INDENT * depth}for (int32_t {place} = 0; {place} < {size}; ++{place}) {{")
            depth += 1
    inner = body(index)
    if not depth and len(inner) > 1:
        # What is declared for one element stays its own.
        return ["{", *(_INDENT + line for line in inner), "}"]
    lines += [_INDENT * depth + line for line in inner]
    lines += [f"{_INDENT * level}}}" for level in reversed(range(depth))]
    return lines


class CWriter:
    """Collects statements and constants."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []
        self.constants: list[Array] = []
        self._arrays = 0

    def constant(self, values: NDArray[np.generic]) -> View:
        """Return a constant; the same numbers are kept once."""
        dtype = values.dtype.name
        for known in self.constants:
            held = known.values
            if held is not None and known.dtype == dtype and held.tobytes() == values.tobytes():
                return View(known, values.shape, row_major(values.shape))
        array = Array(f"constant_{len(self.constants)}", dtype, max(values.size, 1), values.reshape(-1))
        self.constants.append(array)
        return View(array, values.shape, row_major(values.shape))

    def scratch(self, shape: Sequence[int], dtype: str) -> View:
        """Return a new tensor that statements write."""
        self._arrays += 1
        size = int(np.prod(shape, dtype=np.int64))
        return View(Array(f"array_{self._arrays}", dtype, size, is_scratch=True), tuple(shape), row_major(shape))

    def add(self, lines: Sequence[str], reads: Sequence[View], writes: View, shares: Sequence[View] = ()) -> None:
        """Append a statement."""
        kept = tuple(view.array for view in shares if view.array.is_scratch)
        self.statements.append(Statement(tuple(lines), tuple(view.array for view in reads), writes.array, kept))

    def pointwise(
        self, shape: Sequence[int], dtype: str, operands: Sequence[View], formula: Callable[..., str]
    ) -> View:
        """Return a new tensor; *formula* gives one element from the expressions of the operands' elements."""
        result = self.scratch(shape, dtype)
        repeated = [operand.broadcast(shape) for operand in operands]
        same = [view for view, operand in zip(repeated, operands, strict=True) if tuple(operand.shape) == tuple(shape)]
        flat = [view for view in same if view.is_row_major]
        if all(view in flat or operand.count == 1 for view, operand in zip(repeated, operands, strict=True)):
            shape = (result.count,)
            strides = [(1,) if operand.count == result.count else (0,) for operand in operands]
            repeated = [View(v.array, shape, s, v.offset) for v, s in zip(repeated, strides, strict=True)]
        written = View(result.array, tuple(shape), row_major(shape))
        lines = loops(
            shape, lambda index: [f"{written.at(index)} = {formula(*(view.at(index) for view in repeated))};"]
        )
        # Only one that lies in its array exactly as the result does, and that no other operand reads elsewhere.
        whole = [view for view in flat if view.offset == 0 and view.array.count == result.count]
        others = {view.array.name for view in repeated} - {view.array.name for view in whole}
        twisted = {v.array.name for v, o in zip(repeated, operands, strict=True) if o.count == 1 != result.count}
        self.add(lines, operands, result, [v for v in whole if v.array.name not in others | twisted])
        return result


def shared_memory(statements: Sequence[Statement], outputs: Sequence[View]) -> Mapping[Array, tuple[str, int]]:
    """Give scratch memory out: each computed array gets a piece that no living one has.

    Returns:
        Array -> C type and number of its piece; a piece is as long as its longest array.
    """
    last = {array: place for place, statement in enumerate(statements) for array in statement.reads}
    last |= {view.array: len(statements) for view in outputs}
    given: dict[Array, tuple[str, int]] = {}
    owner: dict[tuple[str, int], Array] = {}
    for place, statement in enumerate(statements):
        array = statement.writes
        if array in given:
            continue
        free = [
            piece
            for piece, held in owner.items()
            if piece[0] == array.c_type
            and (last.get(held, -1) < place or (held in statement.shares and last.get(held, -1) == place))
        ]
        numbers = [number for kind, number in owner if kind == array.c_type]
        piece = min(free) if free else (array.c_type, len(numbers))
        given[array], owner[piece] = piece, array
    return given
