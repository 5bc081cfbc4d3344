"""A task as torch modules: what is trained, and what is served. The only root module that needs torch."""

from collections.abc import Mapping
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
    "ServingModule",
    "load_weights",
    "loss_function",
    "model_weights",
    "predict",
]


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
    """Pre-processing and the model: input tensors -> logits ``(batch, classes)``."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._prepare = PrepareModule(task)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.model(*self._prepare(*inputs))
        return logits


class ServingModule(nn.Module):
    """What a device runs: input tensors -> ``probabilities``."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.logits = LogitsModule(task, model)
        self._softmax = task.postprocess == "softmax"

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the output of the schema."""
        logits: torch.Tensor = self.logits(*inputs)
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
    """Return the task's loss, ``(logits, int64 labels) -> mean loss``."""
    if callable(task.loss):
        return task.loss
    return {"cross_entropy": nn.functional.cross_entropy, "bce": _binary_cross_entropy, "mse": _squared_error}[
        task.loss
    ]


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
    """Return the float model's ``probabilities`` for a batch of inputs."""
    module = ServingModule(task, model).eval()
    # torch takes neither read-only nor reversed arrays as they are; others are not copied.
    arrays = [np.require(inputs[spec.name], requirements=["C", "W"]) for spec in task.inputs]
    with torch.no_grad():
        output: NDArray[np.float32] = module(*(torch.from_numpy(array) for array in arrays)).numpy()
    return output
