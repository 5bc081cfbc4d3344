"""The C99 source that prepares a sample for a model of integers. No heap, no state but scratch memory. Pure."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from hedgerow.compile.c_text import c_comment, c_name
from hedgerow.compile.preparation.c_formulas import HELPERS
from hedgerow.compile.preparation.c_interface import PREPARE_HEADER, Interface
from hedgerow.compile.preparation.c_values import C_TYPES, Array, View, literal, row_major
from hedgerow.compile.preparation.c_writer import CProgram, loops, shared_memory

__all__ = ["prepare_source"]

_PER_LINE = 8
_NAME = re.compile(r"\b(?:array|constant)_\d+\b")
_MATH = re.compile(
    r"\b(?:INFINITY|NAN)\b|\b(?:isnan|isinf|isfinite)\(|\b(?:atan|atan2|ceil|cos|exp|expm1|fabs|floor|fmod|hypot|log|log10|"
    r"log1p|log2|pow|rint|sin|sqrt|tan|tanh|trunc)f?\("
)
_ROUND = """\
/* The nearest whole number, half steps to the even one, cut to the type; what is no number becomes zero. */
static int32_t stored(float value, float scale, int32_t zero_point, int32_t low, int32_t high) {
    const float steps = value / scale;
    int32_t whole;
    float rest;
    if (steps != steps) {
        return zero_point;
    }
    if (steps >= (float)(high - zero_point)) {
        return high;
    }
    if (steps <= (float)(low - zero_point)) {
        return low;
    }
    whole = (int32_t)steps;
    rest = steps - (float)whole;
    if (rest > 0.5f || (rest == 0.5f && whole % 2 != 0)) {
        ++whole;
    } else if (rest < -0.5f || (rest == -0.5f && whole % 2 != 0)) {
        --whole;
    }
    return whole + zero_point;
}
"""


def prepare_source(interface: Interface, program: CProgram) -> str:
    """Return the source; the same trace gives the same text.

    Args:
        interface: What it is called, takes and gives.
        program: The first half, translated.
    """
    pieces = shared_memory(program.statements, program.outputs)
    used = {array for statement in program.statements for array in statement.reads}
    used |= {view.array for view in program.outputs}
    body = [line for statement in program.statements for line in statement.lines]
    for view, spec in zip(program.outputs, interface.schema.outputs, strict=True):
        body += _given(view, spec.name, C_TYPES[spec.dtype])
    body = _renamed(body, pieces)
    names = {array.name for array in used}
    body = [*(f"(void){spec.name};" for spec in interface.schema.inputs if spec.name not in names), *body]
    text = "\n".join(body)
    helpers = [source for helper, source in HELPERS.items() if f"{helper}(" in text]
    constants = [line for array in program.constants if array in used for line in _constant_lines(array)]
    converted, scratch = _converted(interface), _scratch_lines(pieces)
    lines = [
        *c_comment(
            f"Prepares samples for the model {c_name(interface.name)}: from the trace that the task's pre-processing "
            "is exported by. C99, no heap. Compile it without -ffast-math: what is no number is told by comparing."
        ),
        f'#include "{PREPARE_HEADER}"',
        "",
        *(["#include <math.h>", ""] if _MATH.search("\n".join([text, *helpers, *constants])) else []),
        *(["#include <stdlib.h>", ""] if re.search(r"\b(?:ll)?abs\(", text) else []),
        *constants,
        *scratch,
        "",
        *helpers,
        *([_ROUND] if any("stored(" in line for line in converted) else []),
        f"{interface.real_prototype} {{",
        *(f"    {line}" for line in body),
        "}",
        "",
        f"{interface.stored_prototype} {{",
        *(f"    {line}" for line in converted),
        "}",
        "",
    ]
    return "\n".join(lines)


def _given(view: View, name: str, c_type: str) -> list[str]:
    """Return the lines that write one output."""
    target = View(Array(name, "float32", view.count), view.shape, row_major(view.shape))
    cast = "" if view.array.c_type == c_type else f"({c_type})"
    return loops(view.shape, lambda index: [f"{target.at(index)} = {cast}{view.at(index)};"])


def _converted(interface: Interface) -> list[str]:
    """Return the body of the function that gives what the file stores."""
    declared, passed, lines = list[str](), [spec.name for spec in interface.schema.inputs], list[str]()
    for spec in interface.schema.outputs:
        tensor, count = interface.tensor(spec), int(np.prod(spec.shape, dtype=np.int64))
        if tensor.dtype == spec.dtype:
            passed.append(spec.name)
            continue
        real = f"real_{spec.name}"
        declared.append(f"static {C_TYPES[spec.dtype]} {real}[{count}];")
        passed.append(real)
        value = f"{real}[i0]"
        if tensor.scale is not None:
            limits = np.iinfo(np.dtype(tensor.dtype))
            scale = literal(tensor.scale, "float32")
            value = f"stored({value}, {scale}, {tensor.zero_point}, {limits.min}, {limits.max})"
        lines += [
            f"for (int32_t i0 = 0; i0 < {count}; ++i0) {{",
            f"    {spec.name}[i0] = ({C_TYPES[tensor.dtype]}){value};",
            "}",
        ]
    return [*declared, f"{interface.symbol}_real({', '.join(passed)});", *lines]


def _renamed(lines: Sequence[str], pieces: Mapping[Array, tuple[str, int]]) -> list[str]:
    """Write the piece of scratch memory for each computed array."""
    names = {array.name: _piece_name(piece) for array, piece in pieces.items()}
    return [_NAME.sub(lambda match: names.get(match.group(), match.group()), line) for line in lines]


def _piece_name(piece: tuple[str, int]) -> str:
    return f"scratch_{piece[0].removesuffix('_t')}_{piece[1]}"


def _scratch_lines(pieces: Mapping[Array, tuple[str, int]]) -> list[str]:
    lengths: dict[tuple[str, int], int] = {}
    widths: dict[tuple[str, int], int] = {}
    for array, piece in pieces.items():
        lengths[piece] = max(lengths.get(piece, 0), array.count)
        widths[piece] = np.dtype(array.dtype).itemsize
    total = sum(length * widths[piece] for piece, length in lengths.items())
    return [
        *c_comment(f"{total} bytes of scratch memory."),
        *(f"static {piece[0]} {_piece_name(piece)}[{length}];" for piece, length in sorted(lengths.items())),
    ]


def _constant_lines(array: Array) -> list[str]:
    values = array.values if array.values is not None else np.zeros(array.count)
    texts = [literal(value, array.dtype) for value in values.tolist()]
    rows = [", ".join(texts[start : start + _PER_LINE]) for start in range(0, len(texts), _PER_LINE)]
    return [
        f"static const {array.c_type} {array.name}[{array.count}] = {{",
        *(f"    {row}," for row in rows),
        "};",
        "",
    ]
