"""What the first steps of training would do to the loss, on one batch. Needs torch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hedgerow.task import Task
from hedgerow.task_losses import loss_function
from hedgerow.task_module import LogitsModule

__all__ = ["STEPS", "WORSE", "losses_of_first_steps"]

STEPS = 3
"""So many steps are tried."""
WORSE = 1.5
"""After each of them the loss may be so many times what it was at first."""


def losses_of_first_steps(task: Task, model: nn.Module, inputs: Sequence[torch.Tensor], wanted: Any) -> list[float]:
    """Return the loss after each of a few steps of SGD on one batch; the model is then as it was.

    Args:
        task: Says the loss and the learning rate.
        model: Every parameter of it that can be trained has a gradient.
        inputs: Of the batch, in the order of the task's.
        wanted: Its target values, as :func:`hedgerow.task_module.wanted_tensors` makes them.
    """
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    module, loss_of_batch = LogitsModule(task, model).train(), loss_function(task)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate, losses = float(task.local.learning_rate), []
    for _step in range(STEPS):
        gradients = torch.autograd.grad(loss_of_batch(module(*inputs), wanted), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(rate * gradient)
            losses.append(float(loss_of_batch(module(*inputs), wanted)))
    model.load_state_dict(before)
    return losses
