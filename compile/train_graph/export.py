"""Write the traced step as ONNX or TFLite, and check it against torch before anybody trains with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.compile.errors import PassError
from hedgerow.compile.stage import Source
from hedgerow.compile.train_graph.step import TracedStep, reference_step, trace_step
from hedgerow.manifest import Tensor
from hedgerow.task import Dataset
from hedgerow.task_module import load_weights, model_weights

__all__ = ["TrainFile", "export_train_graph", "largest_difference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainFile:
    """A train graph as a file, with where its tensors are; ``TrainGraph`` without the blob's address."""

    format: str
    runtime: str
    content: bytes
    batch_size: int
    inputs: tuple[Tensor, ...]
    labels: Tensor
    learning_rate: Tensor
    loss: Tensor
    parameters: tuple[Tensor, ...]
    updated: tuple[Tensor, ...]


def export_train_graph(source: Source, kind: str) -> TrainFile:
    """Trace the training step and write it as *kind*: ``onnx`` or ``tflite``.

    Raises:
        PassError: The exporter cannot translate the step.
        UntranslatableError: The model needs a gradient that has no translation.
        ValueError: There is no such kind.
    """
    if kind == "onnx":
        return _onnx(source)
    if kind == "tflite":
        return _tflite(source)
    raise ValueError(f"expected onnx or tflite, found {kind!r}")


def _names(source: Source, traced: TracedStep) -> tuple[list[str], list[str]]:
    taken = [f"input.{spec.name}" for spec in source.task.inputs]
    taken += ["labels", "learning_rate", *(f"weight.{name}" for name in traced.names)]
    return taken, ["loss", *(f"updated.{name}" for name in traced.names)]


def _onnx(source: Source) -> TrainFile:
    from hedgerow.compile.passes.export_onnx import onnx_bytes

    traced = trace_step(source)
    taken, given = _names(source, traced)
    content = onnx_bytes(traced.graph, traced.arguments, input_names=taken, output_names=given)
    shapes = [tuple(value.shape) for value in traced.arguments]
    kinds = [str(value.dtype).removeprefix("torch.") for value in traced.arguments]
    before = [Tensor(name, name, shape, kind) for name, shape, kind in zip(taken, shapes, kinds, strict=True)]
    weights = before[len(source.task.inputs) + 2 :]
    after = [Tensor("loss", "loss", (), "float32")]
    after += [Tensor(name, f"updated.{name}", w.shape, w.dtype) for name, w in zip(traced.names, weights, strict=True)]
    return _train_file(source, "onnx", "onnxruntime", content, traced, before, after)


def _tflite(source: Source) -> TrainFile:
    from ai_edge_litert.interpreter import Interpreter

    from hedgerow.compile.passes.export_tflite import tflite_bytes

    traced = trace_step(source, label_dtype=torch.int32)
    content = tflite_bytes(traced.graph, traced.arguments)
    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner()
    taken, given = runner.get_input_details(), runner.get_output_details()

    def tensor(name: str, place: str, details: Mapping[str, Any]) -> Tensor:
        if place not in details:
            raise PassError("export-tflite", f"the converter left out {place}, which is {name}")
        shape = tuple(int(size) for size in details[place]["shape"])
        return Tensor(name, place, shape, np.dtype(details[place]["dtype"]).name)

    before_names, after_names = _names(source, traced)
    before = [tensor(name, f"args_{index}", taken) for index, name in enumerate(before_names)]
    after = [tensor(name, f"output_{index}", given) for index, name in enumerate(after_names)]
    return _train_file(source, "tflite", "litert", content, traced, before, after)


def _train_file(
    source: Source,
    kind: str,
    runtime: str,
    content: bytes,
    traced: TracedStep,
    before: list[Tensor],
    after: list[Tensor],
) -> TrainFile:
    def called(tensor: Tensor, name: str) -> Tensor:
        return Tensor(name, tensor.tensor, tensor.shape, tensor.dtype)

    inputs = len(source.task.inputs)
    return TrainFile(
        format=kind,
        runtime=runtime,
        content=content,
        batch_size=source.task.local.batch_size,
        inputs=tuple(called(t, spec.name) for t, spec in zip(before, source.task.inputs, strict=False)),
        labels=called(before[inputs], "labels"),
        learning_rate=called(before[inputs + 1], "learning_rate"),
        loss=called(after[0], "loss"),
        parameters=tuple(called(t, name) for t, name in zip(before[inputs + 2 :], traced.names, strict=True)),
        updated=tuple(called(t, name) for t, name in zip(after[1:], traced.names, strict=True)),
    )


def largest_difference(source: Source, file: TrainFile, data: Dataset) -> float:
    """Run one step in the file's runtime and in torch, and return the largest difference of any number.

    A tensor's differences are divided by its largest number where that is above one: float32 has 24 bits, wherever the
    point is.

    Args:
        source: The model; it is not changed.
        file: The train graph.
        data: At least one batch of samples.
    """
    task, batch = source.task, file.batch_size
    chosen = data.take(np.arange(batch) % len(data))
    rate = task.local.learning_rate
    weights = model_weights(source.model)
    values = {t.tensor: chosen.inputs[t.name].astype(t.dtype) for t in file.inputs}
    values[file.labels.tensor] = chosen.labels.astype(file.labels.dtype)
    values[file.learning_rate.tensor] = np.full(file.learning_rate.shape, rate, dtype=np.float32)
    values |= {t.tensor: weights[t.name].astype(t.dtype) for t in file.parameters}
    if file.format == "onnx":
        from hedgerow.compile.runners.onnx import open_session

        wanted = [file.loss.tensor, *(t.tensor for t in file.updated)]
        found = dict(zip(wanted, open_session(file.content).run(wanted, values), strict=True))
    else:
        from hedgerow.compile.runners.tflite import run_signature

        found = run_signature(file.content, values)
    model = load_weights(task, weights)
    inputs = [torch.from_numpy(chosen.inputs[spec.name]) for spec in task.inputs]
    loss, updated = reference_step(task, model, inputs, torch.from_numpy(chosen.labels), rate)
    pairs = [(np.asarray(found[file.loss.tensor], dtype=np.float64).reshape(-1), np.array([loss]))]
    pairs += [(found[t.tensor].astype(np.float64), updated[t.name].astype(np.float64)) for t in file.updated]
    differences = [_relative_difference(one, other) for one, other in pairs]
    # A NaN must not pass as the smallest difference.
    return max(differences) if np.isfinite(differences).all() else float("inf")


def _relative_difference(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """Return the largest difference, in units of the largest wanted number where that is above one."""
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    return float(np.abs(found - wanted).max(initial=0.0)) / scale
