"""What one element of a pointwise operator is in C, for each operator of torch's core set. Pure data."""

from collections.abc import Callable, Mapping

__all__ = ["BINARY", "COMPARISONS", "HELPERS", "LOGICAL", "UNARY"]

UNARY: Mapping[str, str] = {
    "abs": "{abs}({0})",
    "atan": "atan{f}({0})",
    "ceil": "ceil{f}({0})",
    "cos": "cos{f}({0})",
    "exp": "exp{f}({0})",
    "expm1": "expm1{f}({0})",
    "floor": "floor{f}({0})",
    "log": "log{f}({0})",
    "log10": "log10{f}({0})",
    "log1p": "log1p{f}({0})",
    "log2": "log2{f}({0})",
    "neg": "-({0})",
    "reciprocal": "1 / ({0})",
    "relu": "({0} < 0 ? 0 : {0})",
    "round": "rint{f}({0})",
    "rsqrt": "1 / sqrt{f}({0})",
    "sigmoid": "1 / (1 + exp{f}(-({0})))",
    "sign": "({0} > 0) - ({0} < 0)",
    "sin": "sin{f}({0})",
    "sqrt": "sqrt{f}({0})",
    "tan": "tan{f}({0})",
    "tanh": "tanh{f}({0})",
    "trunc": "trunc{f}({0})",
}
"""Operator -> formula of ``{0}``; ``{f}`` is the suffix of C's functions for the type, ``{abs}`` its magnitude."""

BINARY: Mapping[str, str] = {
    "add": "{0} + {1}",
    "atan2": "atan2{f}({0}, {1})",
    "div": "{0} / {1}",
    "fmod": "fmod{f}({0}, {1})",
    "hypot": "hypot{f}({0}, {1})",
    # What is no number stays none, as in torch.
    "maximum": "({0} > {1} || {0} != {0} ? {0} : {1})",
    "minimum": "({0} < {1} || {0} != {0} ? {0} : {1})",
    "mul": "{0} * {1}",
    "pow": "pow{f}({0}, {1})",
    "remainder": "remainder_{f}({0}, {1})",
    "sub": "{0} - {1}",
}
COMPARISONS: Mapping[str, str] = {"eq": "==", "ge": ">=", "gt": ">", "le": "<=", "lt": "<", "ne": "!="}
LOGICAL: Mapping[str, str] = {
    "bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^",
    "logical_and": "&&", "logical_or": "||", "logical_xor": "!=",
}  # fmt: skip

_REMAINDER = """\
static {type} {name}({type} value, {type} divisor) {{
    {type} rest = {fmod}(value, divisor);
    return rest != 0 && (rest < 0) != (divisor < 0) ? rest + divisor : rest;
}}
"""
HELPERS: Mapping[str, str] = {
    "remainder_f": _REMAINDER.format(type="float", name="remainder_f", fmod="fmodf"),
    "remainder_": _REMAINDER.format(type="double", name="remainder_", fmod="fmod"),
}
"""Name of a function that formulas call -> its source."""

Formula = Callable[..., str]
