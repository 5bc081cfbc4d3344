"""Train a model while its activations and weights are rounded as int8 rounds them."""

import copy
from typing import Any

import torch
from torch import fx, nn

from hedgerow.compile.errors import PassError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.passes.model.train_quantized import TrainQuantized
from hedgerow.compile.passes.model.training import batch_loss, fit, input_tensors, training_data
from hedgerow.compile.passes.runner import tool_errors
from hedgerow.compile.passes.traced.masks import rewrite_masks
from hedgerow.compile.preparation.tracing import nodes_from_model_on
from hedgerow.task_module import LogitsModule

__all__ = ["trained_with_rounding"]

_LOW, _HIGH = -128, 127
_MOMENTUM = 0.9
_aten = torch.ops.aten
# Operator -> positions of its activations.
_ACTIVATIONS: dict[Any, tuple[int, ...]] = {
    _aten.conv1d.default: (0,),
    _aten.conv1d.padding: (0,),
    _aten.conv2d.default: (0,),
    _aten.conv2d.padding: (0,),
    _aten.linear.default: (0,),
    _aten.matmul.default: (0, 1),
    _aten.bmm.default: (0, 1),
    _aten.add.Tensor: (0, 1),
    _aten.mul.Tensor: (0, 1),
    _aten.adaptive_avg_pool2d.default: (0,),
    _aten.avg_pool2d.default: (0,),
    _aten.mean.dim: (0,),
    _aten.scaled_dot_product_attention.default: (0, 1, 2),
}
_WEIGHT_AT_1 = {
    _aten.conv1d.default, _aten.conv1d.padding, _aten.conv2d.default, _aten.conv2d.padding, _aten.linear.default,
}  # fmt: skip


class _Rounded(fx.Interpreter):
    """Runs a traced model with the model's own parameters; measures ranges first, then rounds to them."""

    def __init__(self, program: fx.GraphModule, module: nn.Module) -> None:
        super().__init__(program, garbage_collect_values=False)
        self._parameters = dict(module.named_parameters(remove_duplicate=False))
        self._ranges: dict[str, tuple[float, float]] = {}
        self._measures = False
        # What prepares a sample runs in floats, so nothing is to be learned there.
        self._of_model = nodes_from_model_on(program.graph, "model")

    def measure(self, batches: list[tuple[torch.Tensor, ...]]) -> None:
        """Take the extremes of every activation over *batches* as the ranges to begin with."""
        self._ranges, self._measures = {}, True
        try:
            with torch.no_grad():
                for batch in batches:
                    self.run(*batch)
        finally:
            self._measures = False

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Return the parameter being trained, not the traced copy of it."""
        found = self._parameters.get(str(target))
        return found if found is not None else super().get_attr(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """Run one operator on rounded operands."""
        if n.op != "call_function" or n.target not in _ACTIVATIONS or n not in self._of_model:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        operands = list(args)
        for position in _ACTIVATIONS[n.target]:
            producer, value = n.args[position], operands[position]
            if isinstance(producer, fx.Node) and isinstance(value, torch.Tensor) and value.is_floating_point():
                operands[position] = self._round(producer.name, value)
        if n.target in _WEIGHT_AT_1:
            operands[1] = _round_weight(operands[1])
        return self.call_function(n.target, tuple(operands), kwargs)

    def _round(self, name: str, value: torch.Tensor) -> torch.Tensor:
        seen_low, seen_high = (float(extreme) for extreme in torch.aminmax(value.detach()))
        low, high = self._ranges.get(name, (0.0, 0.0))
        wide_low, wide_high = min(low, seen_low), max(high, seen_high)
        if self._measures:
            self._ranges[name] = (wide_low, wide_high)
            return value
        # The weights move, and the ranges follow them; nothing is cut off on the way.
        self._ranges[name] = (
            min(0.0, _MOMENTUM * low + (1 - _MOMENTUM) * seen_low),
            max(0.0, _MOMENTUM * high + (1 - _MOMENTUM) * seen_high),
        )
        low, high = wide_low, wide_high
        scale = max((high - low) / (_HIGH - _LOW), 1e-8)
        zero_point = max(_LOW, min(_HIGH, round(_LOW - low / scale)))
        return torch.fake_quantize_per_tensor_affine(value, scale, zero_point, _LOW, _HIGH)


def _round_weight(weight: torch.Tensor) -> torch.Tensor:
    """Round to 255 steps around zero for each output channel."""
    scales = (weight.detach().abs().flatten(1).amax(dim=1) / _HIGH).clamp_min(1e-12)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -_HIGH, _HIGH)


def trained_with_rounding(source: FloatModel, chosen: TrainQuantized) -> nn.Module:
    """Return a float model that is used to rounding.

    Raises:
        PassError: The model cannot be traced, there is no training data, or training diverges.
    """
    data = training_data(chosen.name, source)
    model = copy.deepcopy(source.model).eval()
    module = LogitsModule(source.task, model)
    size = min(chosen.batch_size, len(data))
    # torch.export raises whatever it finds in the user's model.
    with tool_errors(chosen.name):
        program = torch.export.export(module, example_inputs(source.task.schema, size)).module()
    if not isinstance(program, fx.GraphModule):
        raise PassError(chosen.name, "torch.export made no graph")
    batches = _batches(input_tensors(source, source.calibration), size)
    # Rounding between the extremes of a sum with -1e9 would leave no score.
    rewrite_masks(program, batches)
    rounded = _Rounded(program, module)
    rounded.measure(batches)
    fit(source, model, chosen, batch_loss(source), run=rounded.run, freeze_statistics=True)
    return model


def _batches(inputs: tuple[torch.Tensor, ...], size: int) -> list[tuple[torch.Tensor, ...]]:
    """Cut *inputs* into batches of one size: a traced model takes no other. The last begins again at the start."""
    count = len(inputs[0])
    return [
        tuple(values[torch.arange(start, start + size) % count] for values in inputs) for start in range(0, count, size)
    ]
