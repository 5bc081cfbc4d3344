"""Element-wise operators, activations and reductions, by the formulas of Core ML's operator documentation."""

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from hedgerow.compile.coreml_evaluation.operation import Operation, Operator, Values

__all__ = ["ARITHMETIC"]


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    return lambda call, values: function(call.tensor(values, "x"))


def _binary(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    return lambda call, values: function(call.tensor(values, "x"), call.tensor(values, "y"))


def _shaped(function: Callable[[torch.Tensor, float, float], torch.Tensor]) -> Operator:
    """Return an activation with the parameters alpha and beta."""
    return lambda call, values: function(
        call.tensor(values, "x"), float(call.constant("alpha", 0.0)), float(call.constant("beta", 0.0))
    )


def _shifted(function: Callable[[torch.Tensor], torch.Tensor], epsilon: float) -> Operator:
    """Return a function that is singular at zero, of ``x + epsilon``."""
    return lambda call, values: function(call.tensor(values, "x") + float(call.constant("epsilon", epsilon)))


def _clip(call: Operation, values: Values) -> torch.Tensor:
    return call.tensor(values, "x").clamp(float(call.constant("alpha")), float(call.constant("beta")))


def _fill_like(call: Operation, values: Values) -> torch.Tensor:
    value = call.tensor(values, "value") if "value" in call.arguments else torch.zeros(())
    return value.expand(call.tensor(values, "ref_tensor").shape)


def _gelu(call: Operation, values: Values) -> torch.Tensor:
    x, mode = call.tensor(values, "x"), str(call.constant("mode", "EXACT"))
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return functional.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


def _prelu(call: Operation, values: Values) -> torch.Tensor:
    x, alpha = call.tensor(values, "x"), call.tensor(values, "alpha")
    return torch.where(x >= 0, x, x * alpha.reshape(-1, *(1 for _ in range(x.ndim - 2))))


def _integer_division(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.div(one, other, rounding_mode="floor")


def _real_division(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    # Core ML divides integers toward zero.
    return one / other if one.is_floating_point() else torch.div(one, other, rounding_mode="trunc")


def _reduction(function: Callable[..., torch.Tensor]) -> Operator:
    def reduce(call: Operation, values: Values) -> torch.Tensor:
        x = call.tensor(values, "x")
        axes = call.constant("axes")
        return function(
            x, list(range(x.ndim)) if axes is None else axes, keepdim=bool(call.constant("keep_dims", False))
        )

    return reduce


def _position(function: Callable[..., torch.Tensor]) -> Operator:
    return lambda call, values: function(
        call.tensor(values, "x"), int(call.constant("axis", -1)), keepdim=bool(call.constant("keep_dims", False))
    )


def _select(call: Operation, values: Values) -> torch.Tensor:
    return torch.where(call.tensor(values, "cond").bool(), call.tensor(values, "a"), call.tensor(values, "b"))


def _quantize(call: Operation, values: Values) -> torch.Tensor:
    x, scale, zero = _scaled(call, values)
    low, high = (-128, 127) if call.constant("output_dtype") == "int8" else (0, 255)
    return (torch.round(x / scale) + zero).clamp(low, high)


def _dequantize(call: Operation, values: Values) -> torch.Tensor:
    x, scale, zero = _scaled(call, values)
    return (x - zero) * scale


def _scaled(call: Operation, values: Values) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, scale, zero = call.tensor(values, "input"), call.tensor(values, "scale"), call.optional(values, "zero_point")
    zero = torch.zeros_like(scale) if zero is None else zero
    if scale.ndim:
        sizes = [1] * x.ndim
        sizes[int(call.constant("axis"))] = -1
        scale, zero = scale.reshape(sizes), zero.reshape(sizes)
    return x.to(torch.float32), scale, zero.to(torch.float32)


ARITHMETIC: Mapping[str, Operator] = {
    "abs": _unary(torch.abs),
    "add": _binary(torch.add),
    "cast": _unary(lambda x: x),
    "ceil": _unary(torch.ceil),
    "clamped_relu": _shaped(lambda x, alpha, beta: torch.where(x >= 0, x, alpha * x).clamp(max=beta)),
    "clip": _clip,
    "cos": _unary(torch.cos),
    "dequantize": _dequantize,
    "elu": _shaped(lambda x, alpha, _beta: functional.elu(x, alpha)),
    "equal": _binary(torch.eq),
    "erf": _unary(torch.erf),
    "exp": _unary(torch.exp),
    "exp2": _unary(torch.exp2),
    "fill_like": _fill_like,
    "floor": _unary(torch.floor),
    "floor_div": _binary(_integer_division),
    "gelu": _gelu,
    "greater": _binary(torch.gt),
    "greater_equal": _binary(torch.ge),
    "identity": _unary(lambda x: x),
    "inverse": _shifted(torch.reciprocal, 1e-4),
    "leaky_relu": _shaped(lambda x, alpha, _beta: functional.leaky_relu(x, alpha)),
    "less": _binary(torch.lt),
    "less_equal": _binary(torch.le),
    "linear_activation": _shaped(lambda x, alpha, beta: alpha * x + beta),
    "log": _shifted(torch.log, 1e-45),
    "logical_and": _binary(torch.logical_and),
    "logical_not": _unary(torch.logical_not),
    "logical_or": _binary(torch.logical_or),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "mul": _binary(torch.mul),
    "not_equal": _binary(torch.ne),
    "pow": _binary(torch.pow),
    "prelu": _prelu,
    "quantize": _quantize,
    "real_div": _binary(_real_division),
    "reduce_argmax": _position(torch.argmax),
    "reduce_argmin": _position(torch.argmin),
    "reduce_l2_norm": _reduction(lambda x, axes, keepdim: x.square().sum(axes, keepdim=keepdim).sqrt()),
    "reduce_max": _reduction(torch.amax),
    "reduce_mean": _reduction(torch.mean),
    "reduce_min": _reduction(torch.amin),
    "reduce_sum": _reduction(torch.sum),
    "reduce_sum_square": _reduction(lambda x, axes, keepdim: x.square().sum(axes, keepdim=keepdim)),
    "relu": _unary(torch.relu),
    "relu6": _unary(functional.relu6),
    "round": _unary(torch.round),
    "rsqrt": _shifted(torch.rsqrt, 1e-12),
    "scaled_tanh": _shaped(lambda x, alpha, beta: alpha * torch.tanh(beta * x)),
    "select": _select,
    "sigmoid": _unary(torch.sigmoid),
    "sigmoid_hard": _shaped(lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1)),
    "sign": _unary(torch.sign),
    "silu": _unary(functional.silu),
    "sin": _unary(torch.sin),
    "softplus": _unary(functional.softplus),
    "softsign": _unary(functional.softsign),
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square),
    "sub": _binary(torch.sub),
    "tanh": _unary(torch.tanh),
    "threshold": _shaped(lambda x, alpha, _beta: x.clamp(min=alpha)),
    "thresholded_relu": _shaped(lambda x, alpha, _beta: torch.where(x >= alpha, x, torch.zeros_like(x))),
}
