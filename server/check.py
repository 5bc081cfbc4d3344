"""Find every mistake in a user's task before any work starts, and show what the task is. Needs torch, not Flower.

Nothing is written and nothing is trained: one batch goes forward and back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hedgerow.errors import HedgerowError, TaskError
from hedgerow.schema import ModelSchema
from hedgerow.server.local_steps import torch_threads
from hedgerow.task import Dataset, Task, TaskData
from hedgerow.task_module import LogitsModule, ServingModule, loss_function

__all__ = ["TaskReport", "TensorRange", "check_task", "examine_task"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TensorRange:
    """One tensor on the way through the model.

    Attributes:
        stage: ``inputs``, ``preprocessed``, ``logits`` or ``probabilities``.
        name: What the tensor is called.
        shape: Its shape, the batch dimension first.
        dtype: Such as ``float32``.
        minimum, maximum: The bounds of its values in this batch.
    """

    stage: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """Everything that ``hedgerow task check`` shows about a task without mistakes.

    Attributes:
        task: Its name.
        schema: Inputs, output and labels.
        samples: Part of the data (``train``, ``held_out``, ``calibration``) -> number of samples.
        class_counts: Part (``train``, ``held_out``) -> samples of each class, in the order of the labels.
        partition: Samples of each client.
        stages: One forward pass.
        loss: The loss of that batch.
        parameters: Number of trainable values.
        parameter_bytes: Their size, with buffers, as a checkpoint holds them.
        metrics: Every metric, of the untrained model on that batch.
        warnings: What is allowed but may surprise.
    """

    task: str
    schema: ModelSchema
    samples: Mapping[str, int]
    class_counts: Mapping[str, tuple[int, ...]]
    partition: tuple[int, ...]
    stages: tuple[TensorRange, ...]
    loss: float
    parameters: int
    parameter_bytes: int
    metrics: Mapping[str, float]
    warnings: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "task": self.task,
            "schema": self.schema.to_record(),
            "samples": dict(self.samples),
            "class_counts": {part: list(counts) for part, counts in self.class_counts.items()},
            "partition": list(self.partition),
            "stages": [
                {
                    "stage": stage.stage,
                    "name": stage.name,
                    "shape": list(stage.shape),
                    "dtype": stage.dtype,
                    "minimum": stage.minimum,
                    "maximum": stage.maximum,
                }
                for stage in self.stages
            ],
            "loss": self.loss,
            "parameters": self.parameters,
            "parameter_bytes": self.parameter_bytes,
            "metrics": dict(self.metrics),
            "warnings": list(self.warnings),
        }


def check_task(task: Task, *, clients: int = 8, seed: int = 0) -> TaskReport:
    """Check *task* and describe it.

    Args:
        task: A task; its construction has already checked what needs no code of the user's.
        clients: How many clients its training data shall be cut for.
        seed: Decides the partition and the model's first weights.

    Raises:
        TaskError: Anything is wrong; all mistakes are listed.
    """
    report, _data = examine_task(task, clients=clients, seed=seed)
    return report


def examine_task(task: Task, *, clients: int = 8, seed: int = 0) -> tuple[TaskReport, TaskData]:
    """Do what :func:`check_task` does, and return the data too, which may be slow to load.

    Raises:
        TaskError: Anything is wrong; all mistakes are listed.
    """
    examination = _Examination(task)
    with torch_threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        data = examination.data()
        partition = examination.partition(data, clients, seed) if data is not None else ()
        model = examination.attempt("model()", task.model)
        passed = examination.forward_and_back(model, data) if model is not None else None
    if examination.mistakes or data is None or passed is None or model is None:
        raise TaskError(repr(task.name), examination.mistakes)
    stages, loss, metrics = passed
    counts = {
        part: tuple(int(n) for n in np.bincount(dataset.labels.reshape(-1), minlength=len(task.labels)))
        for part, dataset in (("train", data.train), ("held_out", data.held_out))
    }
    calibration = len(data.calibration_or_default())
    report = TaskReport(
        task=task.name,
        schema=task.schema,
        samples={"train": len(data.train), "held_out": len(data.held_out), "calibration": calibration},
        class_counts=counts,
        partition=partition,
        stages=stages,
        loss=loss,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        parameter_bytes=sum(t.numel() * t.element_size() for t in model.state_dict().values()),
        metrics=metrics,
        warnings=(*examination.warnings, *_surprises(task, model, counts, partition)),
    )
    return report, data


class _Examination:
    """Collects mistakes, so that one wrong part does not hide another."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.mistakes: list[str] = []
        self.warnings: list[str] = []

    def attempt(self, what: str, call: Callable[[], T]) -> T | None:
        """Call the user's code; an exception becomes a mistake."""
        try:
            return call()
        except HedgerowError as exc:
            self.mistakes.append(f"{what}: {exc}")
        # The user's code may raise anything, and exit; the report must name it all the same.
        except (Exception, SystemExit) as exc:  # noqa: BLE001
            self.mistakes.append(f"{what} raised {type(exc).__name__}: {exc}")
        return None

    def data(self) -> TaskData | None:
        """Return the data, or None when it cannot be used."""
        before = len(self.mistakes)
        data = self.attempt("data()", self._task.data)
        if len(self.mistakes) == before:
            found = self.attempt("data()", lambda: self._task.data_mistakes(data))
            self.mistakes.extend(found or [])
        return data if len(self.mistakes) == before else None

    def partition(self, data: TaskData, clients: int, seed: int) -> tuple[int, ...]:
        """Return the sizes of the clients' shards."""
        rng, train = np.random.default_rng(seed), data.train
        shards = self.attempt(
            "partition", lambda: self._task.partition.split(train.last_labels, clients, rng, train.columns)
        )
        return tuple(len(shard) for shard in shards or ())

    def forward_and_back(
        self, model: object, data: TaskData | None
    ) -> tuple[tuple[TensorRange, ...], float, dict[str, float]] | None:
        """Send one batch through pre-processing, model, loss, gradient, post-processing and metrics."""
        if not isinstance(model, nn.Module):
            self.mistakes.append(f"model() must return a torch.nn.Module, found {type(model).__name__}")
            return None
        wide = sorted({str(t.dtype) for t in model.parameters() if t.dtype != torch.float32})
        if wide:
            self.mistakes.append(f"the model's parameters must be torch.float32, found {', '.join(wide)}; use .float()")
        batch = self._batch(data)
        inputs = [torch.from_numpy(np.ascontiguousarray(batch.inputs[spec.name])) for spec in self._task.inputs]
        stages = [_stage("inputs", spec.name, t) for spec, t in zip(self._task.inputs, inputs, strict=True)]
        prepared = self.attempt("preprocess", lambda: self._prepared(inputs))
        if prepared is None:
            return None
        stages += [_stage("preprocessed", f"argument {i}", t) for i, t in enumerate(prepared)]
        if not self._takes_missing(inputs, data):
            return None
        module = LogitsModule(self._task, model).train()
        logits = self.attempt("the model's forward pass", lambda: module(*inputs))
        if logits is None or not self._logits_fit(logits, batch.labels.shape):
            return None
        stages.append(_stage("logits", "logits", logits))
        loss = self._backward(model, logits, torch.from_numpy(batch.labels))
        serving = ServingModule(self._task, model).eval()
        with torch.no_grad():
            probabilities = self.attempt("postprocess", lambda: serving.probabilities(module.eval()(*inputs)))
        if probabilities is None or loss is None:
            return None
        stages.append(_stage("probabilities", "probabilities", probabilities))
        return tuple(stages), loss, self._metrics(probabilities.numpy(), batch)

    def _batch(self, data: TaskData | None) -> Dataset:
        """Return real samples, or zeros when the data is unusable, so that the model is examined all the same."""
        size = self._task.local.batch_size
        if data is not None:
            # A batch in which values are missing, where they are anywhere.
            first = next((rows[0] for rows in self._rows_missing(data.train).values() if len(rows)), 0)
            return data.train.take(np.arange(first, first + min(size, len(data.train))) % len(data.train))
        # Two samples, or two sequences of two steps.
        rows = (2, 2) if self._task.state else (2,)
        inputs = {spec.name: np.zeros((*rows, *spec.shape), dtype=spec.dtype) for spec in self._task.inputs}
        return Dataset(inputs, np.broadcast_to(np.array([0, 1], dtype=np.int64), rows).copy())

    def _rows_missing(self, dataset: Dataset) -> dict[str, NDArray[np.int64]]:
        """Return in which samples a value is missing, of each input whose values may be."""
        wanted = [spec.name for spec in self._task.inputs if spec.missing]
        columns = {name: np.asarray(dataset.inputs[name]) for name in wanted}
        return {
            name: np.flatnonzero(np.isnan(values).any(axis=tuple(range(1, values.ndim))))
            for name, values in columns.items()
        }

    def _takes_missing(self, inputs: list[torch.Tensor], data: TaskData | None) -> bool:
        """Return whether pre-processing gives numbers where any value that may be missing is."""
        before = len(self.mistakes)
        for place, spec in enumerate(self._task.inputs):
            if not spec.missing:
                continue
            without = [torch.full_like(t, torch.nan) if i == place else t for i, t in enumerate(inputs)]
            made = self.attempt(f"preprocess, where {spec.name} is missing,", lambda t=without: self._prepared(t))  # type: ignore[misc]
            if made is not None and not all(bool(torch.isfinite(t).all()) for t in made if t.is_floating_point()):
                self.mistakes.append(
                    f"preprocess gives NaN or infinity where {spec.name} is missing; say what the model gets instead, "
                    "such as torch.where(torch.isnan(x), 0.0, x), before anything is computed from it"
                )
            if data is not None and not len(self._rows_missing(data.train)[spec.name]):
                self.warnings.append(
                    f"{spec.name} may be missing, but is nowhere in train: the model learns nothing of it"
                )
        return len(self.mistakes) == before

    def _prepared(self, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        if self._task.state:
            inputs = [tensor[:, 0] for tensor in inputs]
        made = self._task.preprocess(*inputs) if self._task.preprocess is not None else tuple(inputs)
        arguments = made if isinstance(made, tuple) else (made,)
        for argument in arguments:
            if not isinstance(argument, torch.Tensor):
                raise TypeError(f"expected a tensor or a tuple of tensors, found {type(argument).__name__}")
        return arguments

    def _logits_fit(self, logits: object, samples: tuple[int, ...]) -> bool:
        wanted = (*samples, len(self._task.labels))
        if not isinstance(logits, torch.Tensor):
            self.mistakes.append(f"the model must return a tensor of logits, found {type(logits).__name__}")
        elif tuple(logits.shape) != wanted:
            self.mistakes.append(
                f"the model must return logits of shape {wanted} for {samples[0]} samples and {len(self._task.labels)} "
                f"labels, found {tuple(logits.shape)}"
            )
        elif not bool(torch.isfinite(logits).all()):
            self.mistakes.append("the untrained model's logits hold NaN or infinity")
        elif self._adds_softmax() and _are_probabilities(logits):
            self.mistakes.append(
                "the model must return logits, found probabilities; leave its softmax out, loss and postprocess add one"
            )
        else:
            return True
        return False

    def _adds_softmax(self) -> bool:
        return self._task.loss == "cross_entropy" or self._task.postprocess == "softmax"

    def _backward(self, model: nn.Module, logits: torch.Tensor, labels: torch.Tensor) -> float | None:
        loss = self.attempt("the loss", lambda: loss_function(self._task)(logits, labels))
        if loss is None:
            return None
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            self.mistakes.append("the loss must return one number, the mean over the batch")
            return None
        if not bool(torch.isfinite(loss)):
            self.mistakes.append(f"the loss of the untrained model is {float(loss.detach())}")
            return None
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        if not named:
            self.mistakes.append("the model has no parameter that can be trained")
            return None
        if not loss.requires_grad:
            self.mistakes.append("the loss does not depend on the model's parameters (is there a detach or no_grad?)")
            return None
        parameters = list(named.values())
        # torch's annotation forgets that unused parameters have None here.
        gradients: Any = self.attempt("the gradient", lambda: torch.autograd.grad(loss, parameters, allow_unused=True))
        for name, gradient in zip(named, gradients or (), strict=False):
            if gradient is None:
                self.mistakes.append(f"no gradient reaches the parameter {name}; use it in forward() or freeze it")
            elif not bool(torch.isfinite(gradient).all()):
                self.mistakes.append(f"the gradient of {name} holds NaN or infinity")
            elif not bool(gradient.any()):
                self.warnings.append(f"the gradient of {name} is zero in the first batch")
        return float(loss.detach())

    def _metrics(self, probabilities: NDArray[np.generic], batch: Dataset) -> dict[str, float]:
        found = {}
        rows, classes = probabilities.reshape(-1, probabilities.shape[-1]), batch.labels.reshape(-1)
        for name, metric in self._task.metrics.items():
            value = self.attempt(f"the metric {name!r}", lambda m=metric: float(m(rows, classes)))  # type: ignore[misc]
            if value is not None:
                found[name] = value
        return found


def _are_probabilities(logits: torch.Tensor) -> bool:
    """Return whether every row adds up to one without a negative value, which logits do not do by chance."""
    values = logits.detach()
    return bool((values >= 0).all()) and bool(((values.sum(dim=-1) - 1).abs() < 1e-4).all())


def _stage(stage: str, name: str, tensor: torch.Tensor) -> TensorRange:
    values = tensor.detach().double()
    values = values[~values.isnan()]
    low, high = (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)
    return TensorRange(stage, name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), low, high)


def _surprises(
    task: Task, model: nn.Module, counts: Mapping[str, tuple[int, ...]], partition: tuple[int, ...]
) -> list[str]:
    found = []
    for part, classes in counts.items():
        empty = [label for label, count in zip(task.labels, classes, strict=True) if count == 0]
        if empty:
            found.append(f"{part} holds no sample of {', '.join(empty)}")
    small = sum(size < task.local.batch_size for size in partition)
    if small:
        found.append(
            f"{small} of {len(partition)} clients have fewer samples than a batch ({task.local.batch_size}), so some "
            "repeat in it"
        )
    buffers = [name for name, _buffer in model.named_buffers()]
    if buffers:
        found.append(
            f"the model keeps {len(buffers)} running statistics, such as {buffers[0]}, which devices do not train; "
            "prefer GroupNorm to BatchNorm"
        )
    frozen = sum(not parameter.requires_grad for parameter in model.parameters())
    if frozen:
        found.append(f"{frozen} parameters of the model are frozen")
    return found
