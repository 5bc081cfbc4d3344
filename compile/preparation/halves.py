"""A task cut in two where its model begins: what prepares a sample, and the model that takes what was prepared.

Unlike features have one scale in a quantized tensor, and the small ones vanish in its steps. So quantizers never see
the raw input: they get the model's half as a task of its own, with prepared samples to calibrate with. The other half
stays float; it is put before the file again, or goes beside it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.model_schema import ModelSchema
from hedgerow.schema import DTYPES, TensorSpec
from hedgerow.task import Dataset, Task
from hedgerow.task_module import PrepareModule

__all__ = ["SECOND", "Halves", "cut"]

SECOND = "second"
"""Where the second half is in what :meth:`Halves.before` gives."""

_BATCH = 256
# Two numbers of samples tell which dimension is the batch.
_TRIED = (2, 3)


class _Both(nn.Module):
    """Both halves, each called as a module, so that a trace tells them apart."""

    def __init__(self, first: nn.Module, second: nn.Module, given: int) -> None:
        super().__init__()
        self.first, self._given = first, given
        self.add_module(SECOND, second)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the output of the schema; state goes past the first half."""
        return self.get_submodule(SECOND)(*self.first(*inputs[: self._given]), *inputs[self._given :])


class Halves:
    """The two halves of one task.

    Args:
        task: The task; its pre-processing maps batches to batches, see :func:`cut`.
        specs: What its model takes.
    """

    def __init__(self, task: Task, specs: tuple[TensorSpec, ...]) -> None:
        self.schema = ModelSchema(tuple(task.inputs), specs)
        """Of the first half: the task's inputs, and what the model takes of them."""
        self._state = tuple(task.state)
        self.module = PrepareModule(task).eval()
        """The first half in torch."""
        self._second = replace(task, inputs=specs, preprocess=None)
        self._calibration: tuple[Dataset, Dataset] | None = None
        self._files: dict[str, CompiledModel] = {}

    def second(self, source: FloatModel) -> FloatModel:
        """Return the second half of *source*: its model, a task without pre-processing, and prepared calibration data.

        Passes that train come before, on the whole task: it holds no training data.
        """
        data = source.calibration
        if self._calibration is None or self._calibration[0] is not data:
            self._calibration = data, replace(data, inputs=self.prepared(data.inputs))
        return replace(source, task=self._second, calibration=self._calibration[1], train=None)

    def prepared(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return what the model takes for a batch of the task's inputs, name -> ``(n, *shape)``; state as it is."""
        names = [spec.name for spec in self.schema.inputs]
        parts: list[list[NDArray[Any]]] = [[] for _ in self.schema.outputs]
        for start in range(0, len(inputs[names[0]]), _BATCH):
            # torch takes neither read-only nor reversed arrays as they are.
            rows = [np.require(inputs[name][start : start + _BATCH], requirements=["C", "W"]) for name in names]
            with torch.no_grad():
                found = self.module(*(torch.from_numpy(row) for row in rows))
            for part, values in zip(parts, found, strict=True):
                part.append(values.numpy())
        made = {spec.name: np.concatenate(part) for spec, part in zip(self.schema.outputs, parts, strict=True)}
        return made | {name: inputs[name] for name in self._state if name in inputs}

    def before(self, second: nn.Module) -> nn.Module:
        """Return the whole in torch: *second* on what the first half gives."""
        return _Both(self.module, second, len(self.schema.inputs)).eval()

    def first(self, kind: str) -> CompiledModel:
        """Return the first half as a float file, ``onnx`` or ``tflite``; made once."""
        if kind not in self._files:
            self._files[kind] = self._exported_onnx() if kind == "onnx" else self._exported_tflite()
        return self._files[kind]

    def _exported_onnx(self) -> CompiledModel:
        from hedgerow.compile.passes.onnx.exporter import onnx_bytes, onnx_tensors, open_batch

        inputs, outputs = onnx_tensors(self.schema)
        batch = open_batch(self.schema)
        if self._state:
            # One stream at a time, as the second half.
            batch = None
            inputs, outputs = (
                tuple(replace(tensor, shape=(1, *tensor.shape[1:])) for tensor in side) for side in (inputs, outputs)
            )
        content = onnx_bytes(
            self.module,
            example_inputs(self.schema, 2 if batch is not None else 1),
            input_names=[tensor.tensor for tensor in inputs],
            output_names=[tensor.tensor for tensor in outputs],
            dynamic_shapes=(batch,) if batch is not None else None,
        )
        return CompiledModel(format="onnx", content=content, inputs=inputs, outputs=outputs)

    def _exported_tflite(self) -> CompiledModel:
        from hedgerow.compile.passes.tflite.exporter import tflite_bytes
        from hedgerow.compile.runners.tflite import signature_tensors

        content = tflite_bytes(self.module, example_inputs(self.schema, 1))
        inputs, outputs = signature_tensors(content, self.schema)
        return CompiledModel(format="tflite", content=content, inputs=inputs, outputs=outputs)


def cut(task: Task) -> Halves | None:
    """Return the halves of a task, or None where there is no cut.

    There is none without pre-processing, and where what the model takes is no batch of tensors of a dtype that a file's
    border has: such a task stays one piece.
    """
    if task.preprocess is None:
        return None
    module = PrepareModule(task)
    with torch.no_grad():
        given = task.schema.given
        small, large = (module(*example_inputs(given, count)) for count in _TRIED)
    if not small or len(small) != len(large):
        return None
    taken = {spec.name for spec in task.schema.inputs}
    specs = []
    for place, (one, other) in enumerate(zip(small, large, strict=True)):
        if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
            return None
        sizes = tuple(one.shape[:1]), tuple(other.shape[:1])
        if sizes != ((_TRIED[0],), (_TRIED[1],)) or one.shape[1:] != other.shape[1:]:
            return None
        dtype = str(one.dtype).removeprefix("torch.")
        if dtype not in DTYPES or 0 in one.shape:
            return None
        name = f"prepared_{place}"
        while name in taken:
            name = f"{name}_"
        specs.append(TensorSpec(name, tuple(one.shape[1:]), dtype))
    return Halves(task, tuple(specs))
