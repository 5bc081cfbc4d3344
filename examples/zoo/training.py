"""Train a task centrally for a short while, always to the same weights: for tables and benchmarks, not for fleets."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hedgerow.checkpoint import Checkpoint, save_checkpoint
from hedgerow.task import Task, TaskData
from hedgerow.task_losses import loss_function
from hedgerow.task_module import LogitsModule, model_weights, predict, wanted_tensors

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
    wanted, count = wanted_tensors(task, data.train), len(data.train)
    steps = count // _BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps + 1)
    for _ in range(epochs):
        order = torch.randperm(count, generator=draws)
        for chosen in torch.split(order[: steps * _BATCH], _BATCH):
            batch = [values[chosen] for values in inputs]
            if augment is not None:
                batch = [augment(batch[0], draws)]
            optimizer.zero_grad()
            told = tuple(part[chosen] for part in wanted) if isinstance(wanted, tuple) else wanted[chosen]
            loss(module(*batch), told).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


def save_trained(folder: Path, task: Task, model: nn.Module, data: TaskData, *, epochs: int, seed: int = 0) -> float:
    """Write a checkpoint of *model* and return its mean score on the held-out data."""
    answers, wanted = predict(task, model, data.held_out.inputs), task.wanted(data.held_out)
    measured = replace(task, outputs=task.answers.measured(answers, wanted))
    key = task.answers.score_key
    found = measured.measure(answers, wanted)[key]
    checkpoint = Checkpoint(
        weights=model_weights(model),
        task=task.name,
        run=f"central-{seed}",
        round=epochs,
        strategy="central",
        grid="in-process",
        seed=seed,
        metrics={key: found},
    )
    save_checkpoint(folder, checkpoint)
    return found
