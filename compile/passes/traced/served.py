"""The module that exporters and quantizers are given: the served model, its masks in words that they hold."""

from collections.abc import Callable, Collection
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.examples import one_row
from hedgerow.compile.passes.traced.layers import rewrite_recurrent
from hedgerow.compile.passes.traced.masks import rewrite_masks
from hedgerow.compile.passes.traced.moved import OtherWords, Words
from hedgerow.compile.passes.traced.recurrent import RECURRENT, UnrolledLayers
from hedgerow.compile.passes.traced.steps import take_steps
from hedgerow.task_module import LogitsModule, ServingModule

__all__ = ["looked_at", "note", "served_module"]

_LOOKED_AT = 64
_BATCH = 32


class _Noted(TorchFunctionMode):
    """Notes what a model calls: whether anything attends (a softmax, or what has one inside), and recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.attends = False
        self.recurrent: set[str] = set()
        self.called: set[Any] = set()

    def __torch_function__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call *func*."""
        self.called.add(func)
        name = getattr(func, "__name__", "")
        self.attends |= any(part in name for part in ("softmax", "attention", "transformer_encoder"))
        if func in RECURRENT:
            self.recurrent.add(RECURRENT[func])
        return func(*args, **(kwargs or {}))


class _Within(nn.Module):
    """A module that is called within a mode of torch's functions, a new one for each call."""

    def __init__(self, module: nn.Module, mode: Callable[[], TorchFunctionMode]) -> None:
        super().__init__()
        self.module, self._mode = module, mode

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return what the module gives."""
        with self._mode():
            return self.module(*inputs)


class _Program(nn.Module):
    """A traced model that takes its inputs as the served one does."""

    def __init__(self, program: fx.GraphModule) -> None:
        super().__init__()
        self.program = program
        self.training = False

    def train(self, mode: bool = False) -> "_Program":
        """Do nothing: a traced model has one mode, and torch's own raises an error when it is asked for another."""
        del mode
        return self

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the output of the schema."""
        return self.program(*inputs)


def served_module(
    source: FloatModel,
    arguments: tuple[torch.Tensor, ...],
    dynamic_shapes: Any = None,
    *,
    keeps: Collection[str] = (),
    words: Words = MappingProxyType({}),
) -> nn.Module:
    """Return what is exported for *source*: inputs -> the output of the schema.

    A model that attends is traced and its masks are rewritten (:mod:`hedgerow.compile.passes.traced.masks`), and
    recurrent layers are unrolled but for those that the format has; every other is the module as it is.

    Args:
        source: The model, and calibration data to look at.
        arguments: Example inputs.
        dynamic_shapes: As :func:`torch.export.export` takes them; None: every size is the example's.
        words: Functions of torch that the format's converter translates wrongly or not at all, in other words.
        keeps: Kinds of recurrent layers that become one operator each (:mod:`hedgerow.compile.passes.traced.layers`)
            and are not unrolled: ``lstm``, ``gru``, ``rnn_tanh``, ``rnn_relu``.
    """
    module: nn.Module = ServingModule(source.task, source.model).eval()
    noted = note(source, arguments)
    if noted.called & words.keys():
        module = _Within(module, partial(OtherWords, words)).eval()
    if noted.recurrent:
        module = _Within(module, partial(UnrolledLayers, tuple(keeps))).eval()
    if not noted.attends and not noted.recurrent:
        return module
    exported = torch.export.export(module, arguments, dynamic_shapes=dynamic_shapes)
    program: Any = exported.module(check_guards=False)
    batch = len(arguments[0]) if dynamic_shapes is None else _BATCH
    masked = noted.attends and rewrite_masks(program, looked_at(source, arguments, batch))
    written = bool(noted.recurrent) and (rewrite_recurrent(program) | take_steps(program))
    return _Program(program) if masked or written else module


def note(source: FloatModel, arguments: tuple[torch.Tensor, ...]) -> _Noted:
    """Return what the model calls for *arguments*."""
    mode = _Noted()
    logits = LogitsModule(source.task, source.model).eval()
    given = len(source.task.inputs)
    with torch.no_grad(), mode:
        if source.task.state:
            logits.step(arguments[:given], arguments[given:])
        else:
            logits(*arguments)
    return mode


def looked_at(source: FloatModel, arguments: tuple[torch.Tensor, ...], size: int) -> list[tuple[torch.Tensor, ...]]:
    """Return the first calibration data in batches of *size*, in the types of *arguments*; the last begins anew."""
    data = source.calibration
    count = min(_LOOKED_AT, len(data))
    schema = source.task.schema
    if schema.state:
        rows = (one_row(schema, data.inputs, row) for row in range(count))
        return [tuple(t.to(e.dtype) for t, e in zip(row, arguments, strict=True)) for row in rows]
    tensors = [torch.from_numpy(data.inputs[spec.name][:count]) for spec in schema.inputs]
    typed = [tensor.to(example.dtype) for tensor, example in zip(tensors, arguments, strict=True)]
    return [
        tuple(tensor[torch.arange(start, start + size) % count] for tensor in typed) for start in range(0, count, size)
    ]
