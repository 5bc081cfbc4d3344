"""Operators that move elements and compute nothing: views where that is enough, else C statements."""

from collections.abc import Mapping

from hedgerow.compile.preparation.c_call import Call, Emitter, UntranslatableCallError
from hedgerow.compile.preparation.c_values import View, literal, row_major
from hedgerow.compile.preparation.c_writer import loops

__all__ = ["SHAPES"]


def _reshape(call: Call) -> View:
    value = call.operand(0)
    if not value.is_row_major:
        value = call.writer.pointwise(value.shape, value.array.dtype, [value], lambda element: element)
    return View(value.array, call.shape, row_major(call.shape), value.offset)


def _permute(call: Call) -> View:
    value, order = call.operand(0), call.by_name.get("dims")
    if order is None:
        one, other = call.by_name.get("dim0", 0), call.by_name.get("dim1", 1)
        order = list(range(len(value.shape)))
        order[one], order[other] = order[other], order[one]
    places = [place % len(value.shape) for place in order]
    shape, strides = (tuple(entry[place] for place in places) for entry in (value.shape, value.strides))
    return View(value.array, shape, strides, value.offset)


def _resize(call: Call) -> View:
    """Add or take away dimensions of size 1: the others keep their order."""
    value = call.operand(0)
    kept = iter([stride for size, stride in zip(value.shape, value.strides, strict=True) if size != 1])
    strides = tuple(next(kept) if size != 1 else 0 for size in call.shape)
    return View(value.array, call.shape, strides, value.offset)


def _expand(call: Call) -> View:
    return call.operand(0).broadcast(call.shape)


def _select(call: Call) -> View:
    value, dim, place = call.operand(0), call.arguments[1], call.arguments[2]
    dim %= len(value.shape)
    offset = value.offset + value.strides[dim] * (place % value.shape[dim])
    shape, strides = (entry[:dim] + entry[dim + 1 :] for entry in (value.shape, value.strides))
    return View(value.array, shape, strides, offset)


def _slice(call: Call) -> View:
    value, dim = call.operand(0), call.by_name.get("dim", 0)
    dim %= len(value.shape)
    start, stop, step = slice(*(call.by_name.get(key) for key in ("start", "end", "step"))).indices(value.shape[dim])
    del stop
    strides = (*value.strides[:dim], value.strides[dim] * step, *value.strides[dim + 1 :])
    return View(value.array, call.shape, strides, value.offset + start * value.strides[dim])


def _flip(call: Call) -> View:
    value, strides, offset = call.operand(0), list(call.operand(0).strides), call.operand(0).offset
    for dim in call.arguments[1]:
        offset += strides[dim] * (value.shape[dim] - 1)
        strides[dim] = -strides[dim]
    return View(value.array, value.shape, tuple(strides), offset)


def _unfold(call: Call) -> View:
    value, (dim, _size, step) = call.operand(0), call.arguments[1:4]
    dim %= len(value.shape)
    strides = (*value.strides[:dim], value.strides[dim] * step, *value.strides[dim + 1 :], value.strides[dim])
    return View(value.array, call.shape, strides, value.offset)


def _split(call: Call) -> list[View]:
    value, sizes, dim = call.operand(0), call.arguments[1], call.by_name.get("dim", 0)
    dim %= len(value.shape)
    if isinstance(sizes, int):
        whole = value.shape[dim]
        sizes = [min(sizes, whole - start) for start in range(0, whole, sizes)]
    parts, start = [], 0
    for size in sizes:
        shape = (*value.shape[:dim], size, *value.shape[dim + 1 :])
        parts.append(View(value.array, shape, value.strides, value.offset + start * value.strides[dim]))
        start += size
    return parts


def _moved(call: Call, part: View, place: View) -> list[str]:
    return loops(part.shape, lambda index: [f"{place.at(index)} = {call.cast(part.at(index), part, call.dtype)};"])


def _cat(call: Call) -> View:
    parts, dim = call.arguments[0], call.by_name.get("dim", 0)
    dim %= len(call.shape)
    result, lines, start = call.writer.scratch(call.shape, call.dtype), list[str](), 0
    for part in parts:
        if part.count == 0:
            continue
        lines += _moved(call, part, View(result.array, part.shape, result.strides, start * result.strides[dim]))
        start += part.shape[dim]
    call.writer.add(lines, parts, result)
    return result


def _repeat(call: Call) -> View:
    value, result = call.operand(0), call.writer.scratch(call.shape, call.dtype)
    missing = len(call.shape) - len(value.shape)

    def written(index: list[str]) -> list[str]:
        places = [f"({place} % {size})" for place, size in zip(index[missing:], value.shape, strict=True)]
        return [f"{result.at(index)} = {value.at(places)};"]

    call.writer.add(loops(call.shape, written), [value], result)
    return result


def _pad(call: Call) -> View:
    value, widths, fill = call.operand(0), call.arguments[1], call.arguments[2]
    before = [0] * len(value.shape)
    for place in range(len(widths) // 2):
        before[-1 - place] = widths[2 * place]
    if min(widths) < 0:
        raise UntranslatableCallError("constant_pad_nd that cuts")
    result = call.writer.scratch(call.shape, call.dtype)
    offset = sum(count * stride for count, stride in zip(before, result.strides, strict=True))
    inner = View(result.array, value.shape, result.strides, offset)
    lines = loops(call.shape, lambda index: [f"{result.at(index)} = {literal(fill, call.dtype)};"])
    lines += loops(value.shape, lambda index: [f"{inner.at(index)} = {value.at(index)};"])
    call.writer.add(lines, [value], result)
    return result


def _index(call: Call) -> View:
    """Pick along one dimension, by whole numbers."""
    value = call.operand(0)
    if call.name == "index_select":
        dim, chosen = call.arguments[1] % len(value.shape), call.arguments[2]
    else:
        given = [(place, entry) for place, entry in enumerate(call.arguments[1]) if entry is not None]
        if len(given) != 1 or given[0][1].array.dtype == "bool":
            raise UntranslatableCallError("index by several tensors or by a mask")
        dim, chosen = given[0]
    result, size, deep = call.writer.scratch(call.shape, call.dtype), value.shape[dim], len(chosen.shape)

    def written(index: list[str]) -> list[str]:
        place = chosen.at(index[dim : dim + deep])
        # Of one element the index is written out too, so that no expression is left out of bounds.
        picked = f"({place} < 0 ? {place} + {size} : {place})"
        return [f"{result.at(index)} = {value.at([*index[:dim], picked, *index[dim + deep :]])};"]

    call.writer.add(loops(call.shape, written), [value, chosen], result)
    return result


_BY_FAMILY: Mapping[Emitter, tuple[str, ...]] = {
    _reshape: ("_unsafe_view", "reshape", "view"),
    _permute: ("permute", "t", "transpose"),
    _resize: ("squeeze", "unsqueeze"),
    _expand: ("expand",),
    _select: ("select",),
    _slice: ("slice",),
    _flip: ("flip",),
    _unfold: ("unfold",),
    _split: ("split", "split_with_sizes"),
    _cat: ("cat",),
    _repeat: ("repeat",),
    _pad: ("constant_pad_nd",),
    _index: ("index", "index_select"),
}
SHAPES: Mapping[str, Emitter] = {name: emitter for emitter, names in _BY_FAMILY.items() for name in names}
"""Operator -> what writes it."""
