"""Train a task centrally for a short while, always to the same weights: for tables and benchmarks, not for fleets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hedgerow.checkpoint import Checkpoint, save_checkpoint
from hedgerow.task import Task, TaskData
from hedgerow.task_module import LogitsModule, loss_function, model_weights, predict

__all__ = ["Augment", "save_trained", "train_centrally"]

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""``(batch of the one input, random numbers) -> changed batch``."""
_BATCH = 32


def train_centrally(
    task: Task, data: TaskData, *, epochs: int, learning_rate: float, seed: int = 0, augment: Augment | None = None
) -> nn.Module:
    """Return a model of *task*, trained by Adam with a one-cycle rate, in evaluation mode.

    Args:
        task: What to train.
        data: Its data; only *train* is looked at.
        epochs: Passes over it.
        learning_rate: The highest step size.
        seed: Of the first weights, the order of samples and *augment*.
        augment: Changes each batch of a task with one input.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.model()
    module, loss = LogitsModule(task, model).train(), loss_function(task)
    draws = torch.Generator().manual_seed(seed)
    inputs = [torch.from_numpy(np.ascontiguousarray(data.train.inputs[spec.name])) for spec in task.inputs]
    labels = torch.from_numpy(np.ascontiguousarray(data.train.labels))
    steps = len(labels) // _BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps + 1)
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=draws)
        for chosen in torch.split(order[: steps * _BATCH], _BATCH):
            batch = [values[chosen] for values in inputs]
            if augment is not None:
                batch = [augment(batch[0], draws)]
            optimizer.zero_grad()
            loss(module(*batch), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def save_trained(folder: Path, task: Task, model: nn.Module, data: TaskData, *, epochs: int, seed: int = 0) -> float:
    """Write a checkpoint of *model* and return its held-out accuracy."""
    found = task.measure(predict(task, model, data.held_out.inputs), data.held_out.labels)["accuracy"]
    checkpoint = Checkpoint(
        weights=model_weights(model),
        task=task.name,
        run=f"central-{seed}",
        round=epochs,
        strategy="central",
        grid="in-process",
        seed=seed,
        metrics={"accuracy": found},
    )
    save_checkpoint(folder, checkpoint)
    return found
