"""A task as torch modules: what is trained, and what is served. Of the root it and ``front_ends`` alone need torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hedgerow.errors import CheckpointMismatchError, TaskError
from hedgerow.task import Task
from hedgerow.weights import Arrays

__all__ = [
    "LogitsModule",
    "PrepareModule",
    "Sequences",
    "ServingModule",
    "load_weights",
    "loss_function",
    "model_weights",
    "predict",
    "predict_sequences",
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
    """Pre-processing and the model: input tensors -> logits ``(batch, classes)``.

    With state: sequences ``(batch, steps, *shape)`` -> logits ``(batch, steps, classes)``, the state zero at first.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._prepare = PrepareModule(task)
        self._task = task

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        if self._task.state:
            return self._over_sequences(inputs)
        logits: torch.Tensor = self.model(*self._prepare(*inputs))
        return logits

    def step(
        self, inputs: Sequence[torch.Tensor], state: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the logits ``(batch, classes)`` of one step of each stream, and the new state.

        Raises:
            TaskError: The model returns something else.
        """
        found = self.model(*self._prepare(*inputs), *state)
        shapes = [tuple(tensor.shape) for tensor in state]
        wanted = f"model() must return (logits, {', '.join(f'new {name}' for name in self._task.state)})"
        if not isinstance(found, tuple) or len(found) != 1 + len(state):
            said = f"a tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
            raise TaskError(repr(self._task.name), [f"{wanted}, found {said}"])
        logits, *new = found
        for name, shape, tensor in zip(self._task.state, shapes, new, strict=True):
            if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                said = f"{tensor.dtype}{list(tensor.shape)}" if isinstance(tensor, torch.Tensor) else str(type(tensor))
                raise TaskError(
                    repr(self._task.name), [f"{wanted}, each as it was: float32{list(shape)} for {name}, found {said}"]
                )
        return logits, tuple(new)

    def zero_state(self, streams: int, device: torch.device | None = None) -> tuple[torch.Tensor, ...]:
        """Return the state before the first step of so many streams."""
        return tuple(torch.zeros(state.of_streams(streams), device=device) for state in self._task.state.values())

    def _over_sequences(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        state = self.zero_state(len(inputs[0]), inputs[0].device)
        rows = []
        for place in range(inputs[0].shape[1]):
            logits, state = self.step([tensor[:, place] for tensor in inputs], state)
            rows.append(logits)
        return torch.stack(rows, dim=1)


class ServingModule(nn.Module):
    """What a device runs: input tensors -> ``probabilities``; with state one step of one stream, and the new state."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.logits = LogitsModule(task, model)
        self._softmax = task.postprocess == "softmax"
        self._given, self._has_state = len(task.inputs), bool(task.state)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the output of the schema; with state all outputs of it, as a tuple."""
        if self._has_state:
            logits, state = self.logits.step(inputs[: self._given], inputs[self._given :])
            return (self.probabilities(logits), *state)
        return self.probabilities(self.logits(*inputs))

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the output of logits."""
        return torch.softmax(logits, dim=-1) if self._softmax else logits


def _targets(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return what each logit should be: floats as they are, class indices as ones among zeros."""
    if labels.is_floating_point():
        return labels
    classes = torch.arange(logits.shape[-1], dtype=labels.dtype, device=labels.device)
    return (labels[:, None] == classes).to(logits.dtype)


def _binary_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, _targets(logits, labels))


def _squared_error(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(logits, _targets(logits, labels))


def loss_function(task: Task) -> Any:
    """Return the task's loss, ``(logits, int64 labels) -> mean loss``; with state each step counts as a sample."""
    named = {"cross_entropy": nn.functional.cross_entropy, "bce": _binary_cross_entropy, "mse": _squared_error}
    loss: Any = task.loss if callable(task.loss) else named[task.loss]
    if not task.state:
        return loss
    return lambda logits, labels: loss(logits.flatten(0, 1), labels.flatten())


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


def predict(task: Task, model: nn.Module, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the float model's ``probabilities`` for a batch of inputs; with state ``(n, steps, classes)``."""
    if task.state:
        return predict_sequences(task, model, inputs).probabilities
    module = ServingModule(task, model).eval()
    with torch.no_grad():
        output: NDArray[np.float32] = module(*_tensors(task, inputs)).numpy()
    return output


@dataclass(frozen=True, slots=True)
class Sequences:
    """What a float model with state gave for sequences.

    Attributes:
        probabilities: ``(n, steps, classes)``.
        state: Name -> what the model took at each step, ``(n, steps, *shape)``: zero at the first.
    """

    probabilities: NDArray[np.float32]
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
                logits, state = serving.logits.step([tensor[:, place] for tensor in batch], state)
                taken.append([serving.probabilities(logits), *before])
            parts.append([torch.stack(column, dim=1) for column in zip(*taken, strict=True)])
    probabilities, *states = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return Sequences(probabilities, dict(zip(task.state, states, strict=True)))


def _tensors(task: Task, inputs: Mapping[str, NDArray[Any]]) -> list[torch.Tensor]:
    # torch takes neither read-only nor reversed arrays as they are; others are not copied.
    return [torch.from_numpy(np.require(inputs[spec.name], requirements=["C", "W"])) for spec in task.inputs]
