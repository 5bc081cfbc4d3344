"""Find every mistake in a user's task before any work starts, and show what the task is. Needs torch, not Flower.

Nothing is written and nothing stays trained: one batch goes forward and back, and a few steps on it are taken back.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hedgerow.blame import line_of
from hedgerow.errors import HedgerowError, TaskError
from hedgerow.outputs import Output
from hedgerow.outputs.losses import loss_of
from hedgerow.server.activations import adds_up_to_one, ends_in_sigmoid
from hedgerow.server.evaluation import baseline_metrics
from hedgerow.server.first_steps import WORSE, losses_of_first_steps
from hedgerow.server.local_steps import torch_threads
from hedgerow.server.outcome import BASELINE
from hedgerow.server.surprises import surprises
from hedgerow.server.task_report import BestGuess, TaskReport, TensorRange
from hedgerow.task import Dataset, Task, TaskData
from hedgerow.task_losses import loss_function
from hedgerow.task_module import LogitsModule, ServingModule, parts_of, wanted_tensors

__all__ = ["check_task", "examine_task"]

T = TypeVar("T")
_MEASURED = 512
"""So many held-out samples are measured on, spread evenly: they show whether the model begins near its baseline."""


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
    # Zeros may be what a score of the user's own cannot bear.
    baseline = examination.attempt("the score of the baseline", lambda: examination.baseline(model, data))
    if examination.mistakes:
        raise TaskError(repr(task.name), examination.mistakes)
    counts = _class_counts(task, data)
    calibration = len(task.calibration(data))
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
        baseline=baseline,
        last_value=task.answers.last_value_score(task.wanted(_spread(data.held_out))) if task.state else None,
        warnings=(*examination.warnings, *surprises(task, model, data, partition)),
    )
    return report, data


def _spread(held_out: Dataset) -> Dataset:
    """Return what is measured on: not the first, which may be of one kind."""
    return held_out.take(np.linspace(0, len(held_out) - 1, min(_MEASURED, len(held_out))).astype(np.int64))


def _class_counts(task: Task, data: TaskData) -> dict[str, dict[str, tuple[int, ...]]]:
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for part, dataset in (("train", data.train), ("held_out", data.held_out)):
        wanted = task.rows(task.wanted(dataset))
        for name, output in task.answers.items():
            strata = output.strata(wanted[name])
            if strata is not None:
                counts = np.bincount(strata, minlength=len(output.strata_names))
                found.setdefault(name, {})[part] = tuple(counts.tolist())
    return found


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
        except TaskError as exc:
            self.mistakes.extend(exc.mistakes)
        except HedgerowError as exc:
            self.mistakes.append(f"{what}: {exc}")
        # The user's code may raise anything, and exit; the report must name it all the same.
        except (Exception, SystemExit) as exc:  # noqa: BLE001
            self.mistakes.append(f"{what} raised {type(exc).__name__}: {exc}{line_of(exc)}")
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
            "partition",
            lambda: self._task.partition.split(self._task.strata_or_count(train), clients, rng, train.columns),
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
        self._stays_in_torch(inputs)
        stages += [_stage("preprocessed", f"argument {i}", t) for i, t in enumerate(prepared)]
        if not self._takes_missing(inputs, data):
            return None
        module = LogitsModule(self._task, model).train()
        before = len(self.mistakes)
        given = self.attempt("the model's forward pass", lambda: module(*inputs))
        if given is None and any(" raised " in mistake for mistake in self.mistakes[before:]):
            # What torch says of it names neither the argument nor its values.
            self.mistakes[-1] += f"; it was given {', '.join(_described(argument) for argument in prepared)}"
        if given is None or not self._fits(parts_of(given), tuple(inputs[0].shape[: 2 if self._task.state else 1])):
            return None
        stages += [_stage("model", name, part) for name, part in zip(self._task.answers, parts_of(given), strict=True)]
        self._examine_student(inputs)
        wanted = wanted_tensors(self._task, batch)
        loss = self._backward(model, given, wanted)
        if loss is not None and not self.mistakes:
            self.attempt("training", lambda: self._try_steps(model, inputs, wanted, loss))
        measured = batch if data is None else _spread(data.held_out)
        answers = self.attempt("the model's evaluation", lambda: self._answers(model, batch))
        if answers is None or loss is None:
            return None
        stages += [_stage("answers", name, torch.from_numpy(answer)) for name, answer in answers.items()]
        return tuple(stages), loss, self._metrics(model, measured)

    def _answers(self, model: nn.Module, batch: Dataset) -> dict[str, NDArray[np.float32]]:
        """Return what artifacts would answer."""
        task = self._task
        module = ServingModule(task, model).eval()
        inputs = [torch.from_numpy(np.ascontiguousarray(batch.inputs[spec.name])) for spec in task.inputs]
        with torch.no_grad():
            found = module.answers(module.logits(*inputs), sequences=bool(task.state))
        return {name: answer.numpy() for name, answer in zip(task.answers, found, strict=True)}

    def baseline(self, model: nn.Module, data: TaskData) -> BestGuess | None:
        """Return what a model must beat on some held-out samples, or None where nothing can be scored."""
        task = self._task
        held_out = _spread(data.held_out)
        wanted = task.rows(task.wanted(held_out))
        outputs = task.answers.measured(task.rows(self._answers(model, held_out)), wanted)
        words, answer = task.answers.baseline(task.rows(task.wanted(data.train)))
        score = baseline_metrics(answer, wanted, outputs).get(f"{BASELINE}{outputs.score_key}")
        if score is None:
            unscored = [name for name, output in outputs.items() if not output.can_score]
            reason = (
                f"{', '.join(unscored)} has no score function"
                if unscored
                else "no held-out sample has all its target values"
            )
            self.warnings.append(f"training shows no score, for {reason}")
        return None if score is None else BestGuess(words, score)

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
        wanted = {
            name: np.zeros((*rows, *output.target_shape), output.target_dtype)
            for name, output in self._task.answers.items()
        }
        return Dataset(inputs, wanted)

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

    def _fits(self, parts: Sequence[torch.Tensor], rows: tuple[int, ...], who: str = "the model") -> bool:
        before = len(self.mistakes)
        for (name, output), given in zip(self._task.answers.items(), parts, strict=True):
            told = f" for {name}" if len(parts) > 1 else ""
            wanted = (*rows, *output.tensor(name).shape)
            if not given.is_floating_point():
                self.mistakes.append(f"{who} must return float32{told}, found {given.dtype}")
            elif not output.learns_alone and tuple(given.shape) != wanted:
                self.mistakes.append(
                    f"{who} must return a tensor of shape {wanted}{told} for {rows[0]} samples of {output.kind}, "
                    f"found {tuple(given.shape)}"
                )
            elif not bool(torch.isfinite(given).all()):
                self.mistakes.append(f"what {who} gives, untrained,{told} holds NaN or infinity")
            elif (activation := self._has_activation(name, output, given)) is not None:
                self.mistakes.append(
                    f"{who} must return logits{told}, found probabilities; leave its {activation} out, loss and "
                    "artifact add one"
                )
        return len(self.mistakes) == before

    def _examine_student(self, inputs: list[torch.Tensor]) -> None:
        """Note what keeps a student from standing in for the model."""
        if self._task.student is None:
            return
        student: object = self.attempt("student()", self._task.student)
        if student is None:
            return
        if not isinstance(student, nn.Module):
            self.mistakes.append(f"student() must return a torch.nn.Module, found {type(student).__name__}")
            return
        module = LogitsModule(self._task, student).train()
        given = self.attempt("the student's forward pass", lambda: module(*inputs))
        if given is not None:
            self._fits(parts_of(given), tuple(inputs[0].shape[: 2 if self._task.state else 1]), "the student")

    def _has_activation(self, name: str, output: Output, given: torch.Tensor) -> str | None:
        """Return which activation the model has that is added again, or None."""
        said = loss_of(self._task.answers, name, self._task.loss) if not callable(self._task.loss) else None
        if (output.activation == "softmax" or said == "cross_entropy") and adds_up_to_one(given):
            return "softmax"
        return "sigmoid" if output.activation == "sigmoid" and ends_in_sigmoid(given) else None

    def _backward(self, model: nn.Module, given: Any, wanted: Any) -> float | None:
        loss = self.attempt("the loss", lambda: loss_function(self._task)(given, wanted))
        if loss is None:
            return None
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            is_tensor = isinstance(loss, torch.Tensor)
            found = f"a tensor of shape {tuple(loss.shape)}; take its mean" if is_tensor else type(loss).__name__
            self.mistakes.append(f"the loss must return one number as a tensor, the mean over the batch, found {found}")
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

    def _try_steps(self, model: nn.Module, inputs: list[torch.Tensor], wanted: Any, first: float) -> None:
        """Note a learning rate that only makes the loss worse."""
        losses = losses_of_first_steps(self._task, model, inputs, wanted)
        worst = next((loss for loss in losses if not loss <= WORSE * first), None)
        if worst is not None:
            self.warnings.append(
                f"the first steps on one batch take the loss from {first:.3g} to {worst:.3g}: the learning rate of "
                f"{self._task.local.learning_rate:g} may be too high; try a lower one in LocalTraining"
            )

    def _stays_in_torch(self, inputs: list[torch.Tensor]) -> None:
        """Note a mistake where pre-processing takes numbers out of torch, as no artifact could."""
        # Of tensors with a gradient numpy gets none. They are not leaves, which may not be changed in place.
        tracked = [t.clone().requires_grad_() * 1 if t.is_floating_point() else t for t in inputs]
        try:
            self._prepared(tracked)
        # The user's code may raise anything; what it does without a gradient was looked at before.
        except Exception as exc:  # noqa: BLE001
            if "numpy()" in str(exc):
                self.mistakes.append(
                    "preprocess leaves torch for numpy, which no artifact does; write it in torch alone"
                )

    def _metrics(self, model: nn.Module, measured: Dataset) -> dict[str, float]:
        """Return the score and each metric of the user's; one that raises is a mistake of its own."""
        task = self._task
        answers, wanted = self._answers(model, measured), task.wanted(measured)
        outputs = task.answers.measured(task.rows(answers), task.rows(wanted))
        found: dict[str, float] = {}
        for name in (None, *task.metrics):
            chosen = {} if name is None else {name: task.metrics[name]}
            said = "the score" if name is None else f"the metric {name!r}"
            alone = replace(task, metrics=chosen)
            value = self.attempt(said, lambda alone=alone: alone.measure(answers, wanted, outputs))  # type: ignore[misc]
            found |= value or {}
        return found


def _described(argument: torch.Tensor) -> str:
    """Return what a model was given, in words: type, shape and range."""
    stage = _stage("preprocessed", "", argument)
    values = f" from {stage.minimum:g} to {stage.maximum:g}" if argument.numel() else ""
    return f"{stage.dtype}{list(stage.shape)}{values}"


def _stage(stage: str, name: str, tensor: torch.Tensor) -> TensorRange:
    values = tensor.detach().double()
    values = values[~values.isnan()]
    low, high = (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)
    return TensorRange(stage, name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), low, high)
