"""Operators that make one element of many, as C statements."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hedgerow.compile.preparation.c_call import Call, Emitter, UntranslatableCallError
from hedgerow.compile.preparation.c_values import C_TYPES, View, literal, row_major
from hedgerow.compile.preparation.c_writer import loops

__all__ = ["SUMS"]


def _reduced(call: Call) -> tuple[View, tuple[int, ...], View]:
    """Return the operand, the dimensions that go, and the result with the others in their places."""
    value = call.operand(0)
    dims = call.by_name.get("dim")
    if isinstance(dims, int):
        dims = [dims]
    places = tuple(sorted({dim % len(value.shape) for dim in dims})) if dims else tuple(range(len(value.shape)))
    result = call.writer.scratch(call.shape, call.dtype)
    kept = iter(row_major([size for place, size in enumerate(value.shape) if place not in places]))
    strides = tuple(0 if place in places else next(kept) for place in range(len(value.shape)))
    return value, places, View(result.array, value.shape, strides)


_FOLDS: Mapping[str, tuple[str, str]] = {
    "amax": ("{value}", "if ({value} > found || {value} != {value}) {{ found = {value}; }}"),
    "amin": ("{value}", "if ({value} < found || {value} != {value}) {{ found = {value}; }}"),
    "max": ("{value}", "if ({value} > found || {value} != {value}) {{ found = {value}; }}"),
    "min": ("{value}", "if ({value} < found || {value} != {value}) {{ found = {value}; }}"),
    "any": ("0", "found = found || {value};"),
    "all": ("1", "found = found && {value};"),
    "mean": ("0", "found += {value};"),
    "prod": ("1", "found *= {value};"),
    "sum": ("0", "found += {value};"),
    "var": ("0", "found += {value};"),
}


def _reduction(call: Call) -> "View | list[View]":
    value, places, result = _reduced(call)
    first, step = _FOLDS[call.name]
    kind = C_TYPES[call.dtype]
    outer = tuple(1 if place in places else size for place, size in enumerate(value.shape))
    inner = tuple(size if place in places else 1 for place, size in enumerate(value.shape))
    count = int(np.prod(inner, dtype=np.int64))

    def written(outside: list[str]) -> list[str]:
        def at(inside: list[str]) -> str:
            index = [i if place in places else o for place, (o, i) in enumerate(zip(outside, inside, strict=True))]
            return call.cast(value.at(index), value, call.dtype)

        start = first.format(value=at(["0"] * len(inner)))
        lines = [f"{kind} found = {start};", *loops(inner, lambda index: [step.format(value=at(index))], "k")]
        if call.name == "var":
            left = count - (1 if (given := call.by_name.get("correction")) is None else given)
            lines = [
                lines[0].replace(" found", " centre"),
                *(line.replace("found", "centre") for line in lines[1:]),
                f"centre /= {count};",
                f"{kind} found = 0;",
                *loops(inner, lambda index: [f"found += ({at(index)} - centre) * ({at(index)} - centre);"], "k"),
                f"found /= {literal(left, call.dtype)};",
            ]
        if call.name == "mean":
            lines.append(f"found /= {count};")
        return [*lines, f"{result.at(outside)} = found;"]

    call.writer.add(loops(outer, written), [value], result)
    found = View(result.array, call.shape, row_major(call.shape))
    return [found] if call.name in {"max", "min"} else found


def _variance_and_mean(call: Call) -> list[View]:
    parts = [_reduction(replace(call, name=name)) for name in ("var", "mean")]
    return [part for part in parts if isinstance(part, View)]


def _product(call: Call) -> View:
    """Multiply matrices, with what is added to them."""
    places = (1, 2) if call.name == "addmm" else (0, 1)
    left, right = call.operand(places[0]), call.operand(places[1])
    result = call.writer.scratch(call.shape, call.dtype)
    added = call.operand(0).broadcast(call.shape) if call.name == "addmm" else None
    if call.name == "addmm" and (call.by_name.get("alpha", 1), call.by_name.get("beta", 1)) != (1, 1):
        raise UntranslatableCallError("addmm with alpha or beta")
    length, kind = left.shape[-1], C_TYPES[call.dtype]

    def written(index: list[str]) -> list[str]:
        *batch, row, column = index
        one, other = left.at([*batch, row, "k0"]), right.at([*batch, "k0", column])
        return [
            f"{kind} found = {added.at(index) if added is not None else '0'};",
            *loops((length,), lambda inner: [f"found += {one} * {other};".replace("k0", inner[0])], "k"),
            f"{result.at(index)} = found;",
        ]

    call.writer.add(loops(call.shape, written), [left, right, *([added] if added is not None else [])], result)
    return result


def _cumulative(call: Call) -> View:
    value, dim = call.operand(0), call.arguments[1] % max(len(call.shape), 1)
    result = call.writer.scratch(call.shape, call.dtype)
    outer = tuple(1 if place == dim else size for place, size in enumerate(call.shape))

    def written(index: list[str]) -> list[str]:
        def step(inner: list[str]) -> list[str]:
            place = [*index[:dim], inner[0], *index[dim + 1 :]]
            taken = call.cast(value.at(place), value, call.dtype)
            return [f"found += {taken};", f"{result.at(place)} = found;"]

        return [f"{C_TYPES[call.dtype]} found = 0;", *loops((value.shape[dim],), step, "k")]

    call.writer.add(loops(outer, written), [value], result)
    return result


def _convolution(call: Call) -> View:
    """Slide a kernel over one or two dimensions."""
    value, kernel, bias = call.operand(0), call.operand(1), call.arguments[2]
    stride, padding, dilation, transposed, _extra, groups = call.arguments[3:9]
    deep = len(kernel.shape) - 2
    if transposed:
        raise UntranslatableCallError("convolution, transposed")
    stride, padding, dilation = (
        list(entry) * deep if len(entry) == 1 else list(entry) for entry in (stride, padding, dilation)
    )
    result = call.writer.scratch(call.shape, call.dtype)
    inputs, outputs = kernel.shape[1], kernel.shape[0] // groups

    def written(index: list[str]) -> list[str]:
        batch, channel, *places = index

        def step(inner: list[str]) -> list[str]:
            source, *taps = inner
            spots = [
                f"{p} * {s} + {t} * {d} - {w}"
                for p, s, t, d, w in zip(places, stride, taps, dilation, padding, strict=True)
            ]
            first = f"({channel} / {outputs}) * {inputs} + {source}"
            inside = [f"{spot} >= 0 && {spot} < {size}" for spot, size in zip(spots, value.shape[2:], strict=True)]
            element = value.at([batch, f"({first})", *(f"({spot})" for spot in spots)])
            line = f"found += {element} * {kernel.at([channel, source, *taps])};"
            return [f"if ({' && '.join(inside)}) {{ {line} }}"] if any(padding) else [line]

        start = bias.at([channel]) if isinstance(bias, View) else "0"
        return [
            f"{C_TYPES[call.dtype]} found = {start};",
            *loops((inputs, *kernel.shape[2:]), step, "k"),
            f"{result.at(index)} = found;",
        ]

    call.writer.add(loops(call.shape, written), [value, kernel, *([bias] if isinstance(bias, View) else [])], result)
    return result


def _average(call: Call) -> View:
    """Take the mean of windows without padding."""
    value, size, stride, padding = call.operand(0), call.arguments[1], call.arguments[2], call.arguments[3]
    deep = len(size)
    if any(padding) or call.by_name.get("ceil_mode") or call.by_name.get("divisor_override"):
        raise UntranslatableCallError(f"{call.name} with padding")
    steps = list(stride) or list(size)
    result, leading = call.writer.scratch(call.shape, call.dtype), len(call.shape) - deep

    def written(index: list[str]) -> list[str]:
        spots = [f"({p} * {s} + {{{place}}})" for place, (p, s) in enumerate(zip(index[leading:], steps, strict=True))]
        return [
            f"{C_TYPES[call.dtype]} found = 0;",
            *loops(
                tuple(size),
                lambda inner: [f"found += {value.at([*index[:leading], *(spot.format(*inner) for spot in spots)])};"],
                "k",
            ),
            f"{result.at(index)} = found / {int(np.prod(size))};",
        ]

    call.writer.add(loops(call.shape, written), [value], result)
    return result


_BY_FAMILY: Mapping[Emitter, tuple[str, ...]] = {
    _reduction: tuple(_FOLDS),
    _variance_and_mean: ("var_mean",),
    _product: ("addmm", "bmm", "mm"),
    _cumulative: ("cumsum",),
    _convolution: ("convolution",),
    _average: ("avg_pool1d", "avg_pool2d"),
}
SUMS: Mapping[str, Emitter] = {name: emitter for emitter, names in _BY_FAMILY.items() for name in names}
"""Operator -> what writes it."""
