"""Operators that work on one element at a time, as C statements."""

from collections.abc import Mapping, Sequence

from hedgerow.compile.preparation.c_call import Call, Emitter, UntranslatableCallError
from hedgerow.compile.preparation.c_formulas import BINARY, COMPARISONS, LOGICAL, UNARY
from hedgerow.compile.preparation.c_values import C_TYPES, View, literal

__all__ = ["POINTWISE"]

_FLOATS = {"float32", "float64"}


def _suffix(dtype: str) -> str:
    return "f" if dtype == "float32" else ""


def _pointwise(call: Call, places: Sequence[int], dtype: str, formula: str) -> View:
    """Emit a formula of operands that are taken in the element type *dtype* first."""
    if dtype not in _FLOATS and "{f}" in formula:
        raise UntranslatableCallError(f"{call.name} of {dtype}")
    elements = [call.element(place, dtype) for place in places]
    views = [view for view, _text in elements if view is not None]

    def written(*expressions: str) -> str:
        given = iter(zip(expressions, views, strict=True))
        texts = []
        for view, text in elements:
            texts.append(text if view is None else call.cast(*next(given), dtype))
        absolute = f"fabs{_suffix(dtype)}" if dtype in _FLOATS else "llabs" if dtype == "int64" else "abs"
        found = formula.format(*texts, f=_suffix(dtype), abs=absolute)
        return found if dtype == call.dtype else f"({C_TYPES[call.dtype]})({found})"

    return call.writer.pointwise(call.shape, call.dtype, views, written)


def _unary(call: Call) -> View:
    return _pointwise(call, (0,), call.dtype, UNARY[call.name])


def _binary(call: Call) -> View:
    if call.by_name.get("alpha", 1) != 1:
        factor = literal(call.by_name["alpha"], call.dtype)
        return _pointwise(call, (0, 1), call.dtype, BINARY[call.name].replace("{1}", f"{factor} * {{1}}"))
    rounding = call.by_name.get("rounding_mode")
    if rounding is not None:
        if call.dtype not in _FLOATS:
            raise UntranslatableCallError(f"{call.name} of {call.dtype}, rounded")
        return _pointwise(call, (0, 1), call.dtype, f"{rounding}{{f}}({{0}} / {{1}})")
    if call.name == "pow" and call.arguments[1] in (2, 2.0) and not isinstance(call.arguments[1], View):
        return _pointwise(call, (0,), call.dtype, "{0} * {0}")
    return _pointwise(call, (0, 1), call.dtype, BINARY[call.name])


def _comparison(call: Call) -> View:
    return _pointwise(call, (0, 1), call.types, f"{{0}} {COMPARISONS[call.name]} {{1}}")


def _logical(call: Call) -> View:
    kind = "bool" if call.name.startswith("logical") else call.dtype
    return _pointwise(call, (0, 1), kind, f"{{0}} {LOGICAL[call.name]} {{1}}")


def _not(call: Call) -> View:
    if call.name == "bitwise_not" and call.dtype != "bool":
        return _pointwise(call, (0,), call.dtype, "~{0}")
    return _pointwise(call, (0,), "bool", "!{0}")


def _is_special(call: Call) -> View:
    formulas = {"isnan": "isnan({0})", "isinf": "isinf({0})", "isfinite": "isfinite({0})"}
    return _pointwise(call, (0,), call.types, f"{formulas[call.name]} != 0")


def _where(call: Call) -> View:
    condition, views = call.operand(0), [call.operand(1), call.operand(2)]

    def written(test: str, one: str, other: str) -> str:
        taken = (call.cast(text, view, call.dtype) for text, view in zip((one, other), views, strict=True))
        return f"{test} ? {' : '.join(taken)}"

    return call.writer.pointwise(call.shape, call.dtype, [condition, *views], written)


def _clamp(call: Call) -> View:
    low, high = (call.arguments[place] is not None for place in (1, 2))
    if low and high:
        return _pointwise(call, (0, 1, 2), call.dtype, "({0} < {1} ? {1} : ({0} > {2} ? {2} : {0}))")
    return _pointwise(call, (0, 1 if low else 2), call.dtype, f"({{0}} {'<' if low else '>'} {{1}} ? {{1}} : {{0}})")


def _hardtanh(call: Call) -> View:
    return _pointwise(call, (0, 1, 2), call.dtype, "({0} < {1} ? {1} : ({0} > {2} ? {2} : {0}))")


def _copy(call: Call) -> View:
    value = call.operand(0)
    if value.array.dtype == call.dtype:
        return value
    return _pointwise(call, (0,), call.dtype, "{0}")


_BY_FAMILY: Mapping[Emitter, tuple[str, ...]] = {
    _unary: tuple(UNARY),
    _binary: tuple(BINARY),
    _comparison: tuple(COMPARISONS),
    _logical: tuple(LOGICAL),
    _not: ("bitwise_not", "logical_not"),
    _is_special: ("isfinite", "isinf", "isnan"),
    _where: ("where",),
    _clamp: ("clamp",),
    _hardtanh: ("hardtanh",),
    _copy: ("_to_copy", "alias", "clone", "contiguous", "detach", "lift_fresh_copy"),
}
POINTWISE: Mapping[str, Emitter] = {name: emitter for emitter, names in _BY_FAMILY.items() for name in names}
"""Operator -> what writes it."""
