"""A task as torch modules: what is trained, and what is served. Needs torch, as losses and front ends do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hedgerow.errors import CheckpointMismatchError, TaskError
from hedgerow.outputs import Output
from hedgerow.task import Dataset, Task
from hedgerow.weights import Arrays

__all__ = [
    "LogitsModule",
    "PrepareModule",
    "Sequences",
    "ServingModule",
    "as_given",
    "load_weights",
    "model_weights",
    "parts_of",
    "predict",
    "predict_sequences",
    "wanted_tensors",
]

_SEQUENCES = 256


class PrepareModule(nn.Module):
    """Pre-processing alone: input tensors -> what the task's model takes, always a tuple."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._preprocess = task.preprocess

    def forward(self, *inputs: torch.Tensor) -> tuple[Any, ...]:
        """Return the model's arguments."""
        arguments = self._preprocess(*inputs) if self._preprocess is not None else inputs
        return arguments if isinstance(arguments, tuple) else (arguments,)


class LogitsModule(nn.Module):
    """Pre-processing and the model: input tensors -> what each output is, before its activation.

    That is a tensor ``(batch, *shape)``, such as logits ``(batch, classes)``; with several outputs a tuple of them. An
    output that rebuilds the input is the difference of what the model gives and what it took. With state: sequences
    ``(batch, steps, *shape)`` -> ``(batch, steps, *shape)``, the state zero at first.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._prepare = PrepareModule(task)
        self._task = task

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return what the outputs are: a tensor, or with several outputs a tuple."""
        if self._task.state:
            return self._over_sequences(inputs)
        arguments = self._prepare(*inputs)
        return self._compared(self.model(*arguments), arguments)

    def _compared(self, given: Any, arguments: Sequence[Any]) -> Any:
        """Return what the outputs are, of what the model gave.

        Raises:
            TaskError: That is not a tensor for each output, or what rebuilds the input has another shape.
        """
        outputs = self._task.answers
        parts = parts_of(given)
        if len(parts) != len(outputs) or not all(isinstance(part, torch.Tensor) for part in parts):
            said = f"a tuple of {len(parts)}" if isinstance(given, tuple) else type(given).__name__
            wanted = f"({', '.join(outputs)})" if len(outputs) > 1 else f"one tensor for {next(iter(outputs))}"
            raise TaskError(repr(self._task.name), [f"model() must return {wanted}, found {said}"])
        return as_given(
            [
                self._error(name, part, arguments[0]) if output.learns_alone else part
                for part, (name, output) in zip(parts, outputs.items(), strict=True)
            ]
        )

    def _error(self, name: str, rebuilt: torch.Tensor, prepared: torch.Tensor) -> torch.Tensor:
        if rebuilt.shape != prepared.shape:
            wanted = f"its pre-processed input again for {name}, of the shape {list(prepared.shape)}"
            raise TaskError(repr(self._task.name), [f"model() must return {wanted}, found {list(rebuilt.shape)}"])
        return rebuilt - prepared

    def step(self, inputs: Sequence[torch.Tensor], state: Sequence[torch.Tensor]) -> tuple[Any, tuple[Any, ...]]:
        """Return what the outputs are in one step of each stream, and the new state.

        Raises:
            TaskError: The model returns something else.
        """
        arguments, outputs = self._prepare(*inputs), len(self._task.answers)
        found = self.model(*arguments, *state)
        shapes = [tuple(tensor.shape) for tensor in state]
        told = ", ".join([*self._task.answers, *(f"new {name}" for name in self._task.state)])
        wanted = f"model() must return ({told})"
        if not isinstance(found, tuple) or len(found) != outputs + len(state):
            said = f"a tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
            raise TaskError(repr(self._task.name), [f"{wanted}, found {said}"])
        given, new = found[:outputs], found[outputs:]
        for name, shape, tensor in zip(self._task.state, shapes, new, strict=True):
            if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                said = f"{tensor.dtype}{list(tensor.shape)}" if isinstance(tensor, torch.Tensor) else str(type(tensor))
                raise TaskError(
                    repr(self._task.name), [f"{wanted}, each as it was: float32{list(shape)} for {name}, found {said}"]
                )
        return self._compared(given if outputs > 1 else given[0], arguments), new

    def zero_state(self, streams: int, device: torch.device | None = None) -> tuple[torch.Tensor, ...]:
        """Return the state before the first step of so many streams."""
        return tuple(torch.zeros(state.of_streams(streams), device=device) for state in self._task.state.values())

    def _over_sequences(self, inputs: Sequence[torch.Tensor]) -> Any:
        state = self.zero_state(len(inputs[0]), inputs[0].device)
        rows = []
        for place in range(inputs[0].shape[1]):
            given, state = self.step([tensor[:, place] for tensor in inputs], state)
            rows.append(given)
        if isinstance(rows[0], tuple):
            return tuple(torch.stack(column, dim=1) for column in zip(*rows, strict=True))
        return torch.stack(rows, dim=1)


class ServingModule(nn.Module):
    """What a device runs: input tensors -> the outputs; with state one step of one stream, and the new state."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.logits = LogitsModule(task, model)
        self._outputs = tuple(task.answers.values())
        self._given, self._has_state = len(task.inputs), bool(task.state)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the output of the schema; all outputs of it as a tuple, where there are several or state."""
        if self._has_state:
            given, state = self.logits.step(inputs[: self._given], inputs[self._given :])
            return (*self.answers(given), *state)
        return as_given(self.answers(self.logits(*inputs)))

    def answers(self, given: Any, *, sequences: bool = False) -> tuple[torch.Tensor, ...]:
        """Return each output as artifacts give it, from what :class:`LogitsModule` gives.

        Args:
            given: What it gives.
            sequences: Whether that are sequences ``(batch, steps, ...)``.
        """
        leading = 2 if sequences else 1
        return tuple(
            _activated(output, part, leading) for output, part in zip(self._outputs, parts_of(given), strict=True)
        )


def _activated(output: Output, given: torch.Tensor, leading: int) -> torch.Tensor:
    if output.activation == "softmax":
        return torch.softmax(given, dim=-1)
    if output.activation == "sigmoid":
        return torch.sigmoid(given)
    if output.activation == "mean_square":
        return given.flatten(leading).square().mean(dim=leading, keepdim=True)
    return given


def wanted_tensors(task: Task, dataset: Dataset, device: str | torch.device = "cpu") -> Any:
    """Return the target values of a data set as the loss takes them: a tensor, or with several outputs a tuple."""
    arrays = task.wanted(dataset).values()
    return as_given([torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device) for array in arrays])


def as_given(tensors: Sequence[torch.Tensor]) -> Any:
    """Return one tensor for each output as a model gives and a loss takes them: the only one, or a tuple of several."""
    return tuple(tensors) if len(tensors) > 1 else tensors[0]


def parts_of(given: Any) -> tuple[torch.Tensor, ...]:
    """Return one tensor for each output, of what :func:`as_given` returns."""
    return given if isinstance(given, tuple) else (given,)


def model_weights(model: nn.Module) -> Arrays:
    """Return all parameters and buffers by name, as arrays of their own."""
    return {name: value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()}


def load_weights(task: Task, weights: Mapping[str, NDArray[Any]]) -> nn.Module:
    """Return a new model of *task* with *weights*, in evaluation mode.

    Raises:
        CheckpointMismatchError: The names or shapes are another model's.
        TaskError: The model cannot be made.
    """
    try:
        model = task.model()
    # The user's code may raise anything; the report must name it all the same.
    except Exception as exc:
        raise TaskError(repr(task.name), [f"model() raised {type(exc).__name__}: {exc}"]) from exc
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if wanted != found:
        differing = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        first = differing[0]
        raise CheckpointMismatchError(
            f"expected the weights of the model of task {task.name!r}, found others: {len(differing)} of "
            f"{len(wanted)} tensors differ, such as {first} (model {wanted.get(first)}, checkpoint "
            f"{found.get(first)}); give the checkpoint that this task was trained to"
        )
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    return model.eval()


def predict(task: Task, model: nn.Module, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Return the float model's answers to a batch of inputs by output; with state ``(n, steps, *shape)`` each."""
    if task.state:
        return dict(predict_sequences(task, model, inputs).answers)
    module = ServingModule(task, model).eval()
    with torch.no_grad():
        found = module.answers(module.logits(*_tensors(task, inputs)))
    return {name: answer.numpy() for name, answer in zip(task.answers, found, strict=True)}


@dataclass(frozen=True, slots=True)
class Sequences:
    """What a float model with state gave for sequences.

    Attributes:
        answers: Output -> ``(n, steps, *shape)``.
        state: Name -> what the model took at each step, ``(n, steps, *shape)``: zero at the first.
    """

    answers: Mapping[str, NDArray[np.float32]]
    state: Mapping[str, NDArray[np.float32]]


def predict_sequences(task: Task, model: nn.Module, inputs: Mapping[str, NDArray[Any]]) -> Sequences:
    """Run the float model step by step, its state carried through each sequence.

    Args:
        task: Has state.
        model: Its model.
        inputs: Name -> ``(n, steps, *shape)``.
    """
    serving = ServingModule(task, model).eval()
    tensors = _tensors(task, inputs)
    parts: list[list[torch.Tensor]] = []
    with torch.no_grad():
        for start in range(0, len(tensors[0]), _SEQUENCES):
            batch = [tensor[start : start + _SEQUENCES] for tensor in tensors]
            state = serving.logits.zero_state(len(batch[0]))
            taken: list[list[torch.Tensor]] = []
            for place in range(batch[0].shape[1]):
                before = [
                    tensor.movedim(kind.axis, 0).unsqueeze(1 + kind.axis)
                    for tensor, kind in zip(state, task.state.values(), strict=True)
                ]
                given, state = serving.logits.step([tensor[:, place] for tensor in batch], state)
                taken.append([*serving.answers(given), *before])
            parts.append([torch.stack(column, dim=1) for column in zip(*taken, strict=True)])
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    outputs = len(task.answers)
    answers = dict(zip(task.answers, columns[:outputs], strict=True))
    return Sequences(answers, dict(zip(task.state, columns[outputs:], strict=True)))


def _tensors(task: Task, inputs: Mapping[str, NDArray[Any]]) -> list[torch.Tensor]:
    # torch takes neither read-only nor reversed arrays as they are; others are not copied.
    return [torch.from_numpy(np.require(inputs[spec.name], requirements=["C", "W"])) for spec in task.inputs]
