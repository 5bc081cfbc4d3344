"""Write the traced step as ONNX or TFLite, and check it against torch before anybody trains with it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.compile.errors import PassError, UntranslatableError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.train_graph.operators import onnx_translations
from hedgerow.compile.train_graph.options import StepOptions
from hedgerow.compile.train_graph.step import TracedStep, trace_step
from hedgerow.compile.train_graph.torch_training import TorchTraining
from hedgerow.manifest.content import Tensor
from hedgerow.manifest.train_graph import Extra
from hedgerow.outputs import Output
from hedgerow.task import Dataset
from hedgerow.task_module import load_weights, model_weights

__all__ = [
    "TrainFile", "as_loss_takes", "export_train_graph", "largest_difference", "open_step", "relative_difference",
    "start_values",
]  # fmt: skip

_PLAIN = StepOptions()
Step = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]
"""Input values by tensor -> output values by tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainFile:
    """A train graph as a file, with where its tensors are; ``TrainGraph`` without the blob's address."""

    format: str
    runtime: str
    content: bytes
    batch_size: int
    inputs: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    learning_rate: Tensor
    loss: Tensor
    parameters: tuple[Tensor, ...]
    updated: tuple[Tensor, ...]
    extras: tuple[Extra, ...] = ()


def export_train_graph(source: FloatModel, kind: str, options: StepOptions = _PLAIN) -> TrainFile:
    """Trace the training step and write it as *kind*: ``onnx`` or ``tflite``.

    Raises:
        PassError: The exporter cannot translate the step.
        UnknownNameError: A pattern of trainable parameters matches none.
        UntranslatableError: The model needs a gradient that has no translation.
        ValueError: There is no such kind.
    """
    if kind == "onnx":
        return _onnx(source, options)
    if kind == "tflite":
        return _tflite(source, options)
    raise ValueError(f"expected onnx or tflite, found {kind!r}")


def _names(source: FloatModel, traced: TracedStep) -> tuple[list[str], list[str]]:
    taken = [f"input.{spec.name}" for spec in source.task.inputs]
    taken += [f"target.{name}" for name in traced.targets]
    taken += ["learning_rate", *(f"weight.{name}" for name in traced.names)]
    given = ["loss", *(f"updated.{name}" for name in traced.updated)]
    given += [f"updated.{extra.name}" for extra in traced.extras if extra.kind == "state"]
    return taken + [extra.name for extra in traced.extras], given


@contextmanager
def _exporting(name: str) -> Iterator[None]:
    """Name the step *name* in what a library raises, or the operator that it said it does not have."""
    from hedgerow.compile.passes.diagnosis import missing_operator
    from hedgerow.compile.passes.runner import tool_errors

    try:
        with tool_errors(name):
            yield
    except PassError as exc:
        if operator := missing_operator(exc):
            raise UntranslatableError((operator,)) from exc
        raise


def _onnx(source: FloatModel, options: StepOptions) -> TrainFile:
    from hedgerow.compile.passes.onnx.export import ExportOnnx
    from hedgerow.compile.passes.onnx.exporter import onnx_bytes

    traced = trace_step(source, options)
    taken, given = _names(source, traced)
    with _exporting(ExportOnnx.name):
        content = onnx_bytes(
            traced.graph, traced.arguments, input_names=taken, output_names=given, translations=onnx_translations()
        )
    values = dict(zip(taken, traced.arguments, strict=True))

    def tensor(name: str, place: str) -> Tensor:
        return Tensor(name, place, tuple(values[name].shape), str(values[name].dtype).removeprefix("torch."))

    before = [tensor(name, name) for name in taken]
    after = [Tensor("loss", "loss", (), "float32")]
    after += [tensor(name.replace("updated.", "weight.", 1), name) for name in given[1 : 1 + len(traced.updated)]]
    after += [tensor(name.removeprefix("updated."), name) for name in given[1 + len(traced.updated) :]]
    return _train_file(source, "onnx", "onnxruntime", content, traced, before, after)


def _tflite(source: FloatModel, options: StepOptions) -> TrainFile:
    from ai_edge_litert.interpreter import Interpreter

    from hedgerow.compile.passes.tflite.export import ExportTflite
    from hedgerow.compile.passes.tflite.exporter import tflite_bytes

    traced = trace_step(source, options, for_tflite=True)
    with _exporting(ExportTflite.name):
        content = tflite_bytes(traced.graph, traced.arguments)
        interpreter = Interpreter(model_content=content, num_threads=1)
        # The converter writes operators, too, that the runtime refuses once their memory is asked for.
        interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    taken, given = runner.get_input_details(), runner.get_output_details()

    def tensor(name: str, place: str, details: Mapping[str, Any]) -> Tensor:
        if place not in details:
            raise PassError(ExportTflite.name, f"the converter left out {place}, which is {name}")
        shape = tuple(int(size) for size in details[place]["shape"])
        return Tensor(name, place, shape, np.dtype(details[place]["dtype"]).name)

    before_names, after_names = _names(source, traced)
    before = [tensor(name, f"args_{index}", taken) for index, name in enumerate(before_names)]
    after = [tensor(name, f"output_{index}", given) for index, name in enumerate(after_names)]
    return _train_file(source, "tflite", "litert", content, traced, before, after)


def _train_file(
    source: FloatModel,
    kind: str,
    runtime: str,
    content: bytes,
    traced: TracedStep,
    before: list[Tensor],
    after: list[Tensor],
) -> TrainFile:
    def called(tensor: Tensor, name: str) -> Tensor:
        return Tensor(name, tensor.tensor, tensor.shape, tensor.dtype)

    inputs, rate = len(source.task.inputs), len(source.task.inputs) + len(traced.targets)
    weights = before[rate + 1 : rate + 1 + len(traced.names)]
    states = iter(after[1 + len(traced.updated) :])
    extras = []
    for extra, tensor in zip(traced.extras, before[rate + 1 + len(traced.names) :], strict=True):
        updated = next(states).tensor if extra.kind == "state" else None
        extras.append(
            Extra(
                kind=extra.kind,
                tensor=called(tensor, extra.name),
                parameter=extra.parameter,
                updated=updated,
                keep=extra.keep,
            )
        )
    parameters = {name: called(t, name) for t, name in zip(weights, traced.names, strict=True)}
    after_step = {name: called(t, name) for t, name in zip(after[1:], traced.updated, strict=False)}
    for name, shared in traced.aliases.items():
        # Under each of its names a shared weight is the same tensor of the file.
        parameters |= {name: called(parameters[shared], name)} if shared in parameters else {}
        after_step |= {name: called(after_step[shared], name)} if shared in after_step else {}
    return TrainFile(
        format=kind,
        runtime=runtime,
        content=content,
        batch_size=source.task.local.batch_size,
        inputs=tuple(called(t, spec.name) for t, spec in zip(before, source.task.inputs, strict=False)),
        targets=tuple(called(t, name) for t, name in zip(before[inputs:], traced.targets, strict=False)),
        learning_rate=called(before[rate], "learning_rate"),
        loss=called(after[0], "loss"),
        parameters=tuple(parameters.values()),
        updated=tuple(after_step.values()),
        extras=tuple(extras),
    )


def open_step(file: TrainFile, threads: int = 1) -> Step:
    """Open a train graph in its runtime and return what takes a step."""
    given = (*(t.tensor for t in file.updated), *(e.updated for e in file.extras if e.updated))
    wanted = list(dict.fromkeys((file.loss.tensor, *given)))
    if file.format == "onnx":
        from hedgerow.compile.runners.onnx import open_session

        session = open_session(file.content, threads)
        return lambda values: dict(zip(wanted, session.run(wanted, dict(values)), strict=True))
    from hedgerow.compile.runners.tflite import open_signature

    return open_signature(file.content, threads)


def start_values(
    file: TrainFile,
    weights: Mapping[str, NDArray[Any]],
    rate: float,
    *,
    proximal_mu: float = 0.0,
    control: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Return what a first step takes beside the batch, by tensor: masks of ones, anchors at *weights*, zeros else."""
    values = {file.learning_rate.tensor: np.full(file.learning_rate.shape, rate, dtype=np.float32)}
    values |= {t.tensor: weights[t.name].reshape(t.shape).astype(t.dtype) for t in file.parameters}
    for extra in file.extras:
        found: Any = 0.0
        if extra.kind == "mask":
            found = 1.0
        elif extra.kind == "proximal_mu":
            found = proximal_mu
        elif extra.parameter is not None:
            found = (weights if extra.kind == "anchor" else control or {}).get(extra.parameter, 0.0)
        array = np.broadcast_to(np.asarray(found, dtype=np.float32), extra.tensor.shape)
        values[extra.tensor.tensor] = np.array(array, dtype=extra.tensor.dtype)
    return values


def largest_difference(source: FloatModel, file: TrainFile, data: Dataset, options: StepOptions = _PLAIN) -> float:
    """Run one step in the file's runtime and in torch, and return the largest difference of any number.

    A tensor's differences are divided by its largest number where that is above one: float32 has 24 bits, wherever the
    point is. Adam makes whole steps of gradients that are zero but for rounding, in which any two engines part: its
    moments are compared, and its rule is checked on the file's own moments in double precision.

    Args:
        source: The model; it is not changed.
        file: The train graph.
        data: At least one batch of samples.
        options: What it was exported with; nothing is dropped here, and control variates are zero.
    """
    task, batch = source.task, file.batch_size
    chosen = data.take(np.arange(batch) % len(data))
    rate = task.local.learning_rate
    weights = model_weights(source.model)
    values = start_values(file, weights, rate)
    values |= {t.tensor: chosen.inputs[t.name].astype(t.dtype) for t in file.inputs}
    wanted = task.wanted(chosen)
    if options.targets == "values":
        wanted = {name: _as_values(task.answers[name], part) for name, part in wanted.items()}
    values |= {t.tensor: wanted[t.name].astype(t.dtype) for t in file.targets}
    found = open_step(file)(values)
    training = TorchTraining(task, load_weights(task, weights), options, rate)
    inputs = [torch.from_numpy(chosen.inputs[spec.name]) for spec in task.inputs]
    masks = [torch.ones(extra.tensor.shape) for extra in file.extras if extra.kind == "mask"]
    loss = training.step(inputs, as_loss_takes(wanted), masks)
    updated = training.weights()
    pairs = [(np.asarray(found[file.loss.tensor], dtype=np.float64).reshape(-1), np.array([loss]))]
    if options.optimizer == "adam":
        pairs += _adam_pairs(file, found, weights, training.gradients(), options, rate)
    others = [t for t in file.updated if options.optimizer != "adam" or t.name not in training.gradients()]
    pairs += [(found[t.tensor].astype(np.float64), updated[t.name].astype(np.float64)) for t in others]
    differences = [relative_difference(one, other) for one, other in pairs]
    # A NaN must not pass as the smallest difference.
    return max(differences) if np.isfinite(differences).all() else float("inf")


def as_loss_takes(wanted: Mapping[str, NDArray[Any]]) -> Any:
    """Return target values as a loss takes them: a tensor, or with several outputs a tuple."""
    tensors = tuple(torch.from_numpy(np.require(part, requirements=["C", "W"])) for part in wanted.values())
    return tensors if len(tensors) > 1 else tensors[0]


def _as_values(output: Output, wanted: NDArray[Any]) -> NDArray[np.float32]:
    """Return a float for each number that the model gives: one for the class, and zero for every other."""
    shape = output.tensor("any").shape
    if wanted.shape[1:] == shape or output.target_dtype == "float32":
        return wanted.astype(np.float32)
    ones: NDArray[np.float32] = np.eye(shape[-1], dtype=np.float32)[np.maximum(wanted, 0)]
    return ones


def _adam_pairs(
    file: TrainFile,
    found: Mapping[str, NDArray[Any]],
    weights: Mapping[str, NDArray[Any]],
    gradients: Mapping[str, NDArray[Any]],
    options: StepOptions,
    rate: float,
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return what a first step found and what it should: the gradient by each moment, and the weights by the rule."""
    state = {extra.tensor.name: found[extra.updated] for extra in file.extras if extra.updated is not None}
    pairs = []
    for tensor in file.updated:
        if tensor.name not in gradients:
            continue
        gradient = gradients[tensor.name].astype(np.float64)
        first, second = (
            state[f"{moment}:{tensor.name}"].astype(np.float64).reshape(gradient.shape) / (1 - beta)
            for moment, beta in zip(("first", "second"), options.betas, strict=True)
        )
        moved = weights[tensor.name] - rate * first / (np.sqrt(second) + options.epsilon)
        pairs += [(first, gradient), (second, gradient**2), (found[tensor.tensor].astype(np.float64), moved)]
    return pairs


def relative_difference(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """Return the largest difference, in units of the largest wanted number where that is above one."""
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    return float(np.abs(found.reshape(wanted.shape) - wanted).max(initial=0.0)) / scale
