"""The same training steps by torch's own autograd and optimizers, to compare a train graph with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from hedgerow.compile.train_graph.options import StepOptions
from hedgerow.compile.train_graph.step import set_modes
from hedgerow.task import Task
from hedgerow.task_losses import loss_function
from hedgerow.task_module import LogitsModule, model_weights
from hedgerow.weights import Arrays

__all__ = ["TorchTraining", "reference_step"]

_PLAIN = StepOptions()


class _GivenMasks(TorchFunctionMode):
    """Dropout with masks that somebody else drew, in the order of the layers."""

    def __init__(self, masks: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._masks = iter(masks)
        functional = torch.nn.functional
        self._dropouts = {functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d}

    def __torch_function__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call *func*, or in place of a dropout multiply with the next mask."""
        if func not in self._dropouts:
            return func(*args, **(kwargs or {}))
        named = {**dict(zip(("input", "p", "training", "inplace"), args, strict=False)), **(kwargs or {})}
        share = named.get("p", 0.5)
        return named["input"] * next(self._masks) / (1 - share) if named.get("training", True) else named["input"]


class TorchTraining:
    """A model that trains step by step.

    Args:
        task: Says pre-processing and loss.
        model: Is changed by the steps.
        options: The train graph's.
        rate: The learning rate.
        proximal_mu: Weight of FedProx's term; the anchors are the model's weights now.
        control: Control variates by name of the parameter.
    """

    def __init__(
        self,
        task: Task,
        model: torch.nn.Module,
        options: StepOptions,
        rate: float,
        *,
        proximal_mu: float = 0.0,
        control: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self._model, self._loss = model, loss_function(task)
        self._module = LogitsModule(task, model)
        set_modes(self._module, options)
        named = dict(model.named_parameters())
        trained = set(options.trained(name for name, value in named.items() if value.requires_grad))
        for name, value in named.items():
            value.requires_grad = name in trained
        self._trained = {name: value for name, value in named.items() if name in trained}
        self._anchors = {name: value.detach().clone() for name, value in self._trained.items()}
        self._mu, self._control = proximal_mu, dict(control or {})
        parameters = list(self._trained.values())
        if options.optimizer == "adam":
            self._optimizer: torch.optim.Optimizer = torch.optim.Adam(
                parameters, lr=rate, betas=options.betas, eps=options.epsilon
            )
        else:
            momentum = options.momentum if options.optimizer == "momentum" else 0.0
            self._optimizer = torch.optim.SGD(parameters, lr=rate, momentum=momentum)

    def step(self, inputs: Sequence[torch.Tensor], wanted: Any, masks: Sequence[torch.Tensor] = ()) -> float:
        """Take one step and return the loss before it; *wanted* is a tensor, or with several outputs a tuple."""
        with _GivenMasks(masks):
            loss = self._loss(self._module(*inputs), wanted)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for name, value in self._trained.items():
            if value.grad is None:
                value.grad = torch.zeros_like(value)
            if self._mu:
                value.grad += self._mu * (value.detach() - self._anchors[name])
            if name in self._control:
                value.grad += torch.from_numpy(np.asarray(self._control[name]))
        self._optimizer.step()
        return float(loss.detach())

    def gradients(self) -> Arrays:
        """Return what the last step moved each trained parameter by, before the optimizer made a step of it."""
        return {name: value.grad.numpy().copy() for name, value in self._trained.items() if value.grad is not None}

    def weights(self) -> Arrays:
        """Return all parameters and buffers by name, as arrays of their own."""
        return model_weights(self._model)


def reference_step(
    task: Task,
    model: torch.nn.Module,
    inputs: Sequence[torch.Tensor],
    wanted: Any,
    rate: float,
    options: StepOptions = _PLAIN,
) -> tuple[float, Arrays]:
    """Return loss and weights after one step; *model* is changed by it."""
    training = TorchTraining(task, model, options, rate)
    loss = training.step(inputs, wanted)
    return loss, training.weights()
