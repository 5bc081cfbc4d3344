"""The training loop that model passes share: seeded, on the CPU, the same weights for the same source and settings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from hedgerow.compile.errors import PassError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.model.training_pass import TrainingPass
from hedgerow.task import Dataset
from hedgerow.task_losses import loss_function
from hedgerow.task_module import LogitsModule, wanted_tensors

__all__ = ["batch_loss", "chosen_rows", "fit", "input_tensors", "training_data"]

StepLoss = Callable[[Any, Any, torch.Tensor], torch.Tensor]


def training_data(step: str, source: FloatModel) -> Dataset:
    """Return the data a pass trains on.

    Raises:
        PassError: The source has none.
    """
    if source.train is None or len(source.train) == 0:
        raise PassError(step, "it trains, and there is no training data")
    return source.train


def input_tensors(source: FloatModel, data: Dataset) -> tuple[torch.Tensor, ...]:
    """Return the inputs of *data* in the order of the schema."""
    arrays = [np.require(data.inputs[spec.name], requirements=["C", "W"]) for spec in source.task.schema.inputs]
    return tuple(torch.from_numpy(array) for array in arrays)


def batch_loss(source: FloatModel) -> StepLoss:
    """Return the task's own loss as a step loss."""
    loss = loss_function(source.task)
    return lambda given, wanted, _chosen: loss(given, wanted)


def chosen_rows(tensors: Any, rows: torch.Tensor) -> Any:
    """Return some rows of a tensor, or of each of a tuple of them."""
    return tuple(part[rows] for part in tensors) if isinstance(tensors, tuple) else tensors[rows]


def fit(
    source: FloatModel,
    model: nn.Module,
    settings: TrainingPass,
    loss: StepLoss,
    *,
    extra: tuple[nn.Parameter, ...] = (),
    after_step: Callable[[], None] | None = None,
    run: Callable[..., Any] | None = None,
    freeze_statistics: bool = False,
) -> None:
    """Train *model* in place on the source's training data and leave it in evaluation mode.

    Args:
        source: Says the task, the data and the seed.
        model: Is changed.
        settings: The pass that trains: its name, how long and how fast.
        loss: ``(given, target values, int64 positions of the batch in the data) -> scalar``; what is given and what is
            wanted are tensors, or with several outputs tuples.
        extra: Further parameters to train, which are not the model's.
        after_step: Called after every step, such as to set pruned weights to zero again.
        run: ``(*inputs) -> given``; None: pre-processing and *model*.
        freeze_statistics: Whether BatchNorm and dropout act as in evaluation.

    Raises:
        PassError: There is no training data, or the loss is no longer a number.
    """
    data = training_data(settings.name, source)
    inputs, wanted = input_tensors(source, data), wanted_tensors(source.task, data)
    forward = run if run is not None else LogitsModule(source.task, model)
    batch_size = min(settings.batch_size, len(data))
    # The last samples of an epoch that fill no batch wait for another epoch: BatchNorm cannot train on one sample.
    steps = len(data) // batch_size
    # GroupNorm, LayerNorm and biases included: what trained the checkpoint trained all of them.
    parameters = [*(value for value in model.parameters() if value.requires_grad), *extra]
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=settings.epochs * steps)
    rng = np.random.default_rng(source.seed)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(source.seed)
        model.train(not freeze_statistics)
        for _epoch in range(settings.epochs):
            order = rng.permutation(len(data))
            for index in range(steps):
                chosen = torch.from_numpy(order[index * batch_size : (index + 1) * batch_size])
                optimizer.zero_grad(set_to_none=True)
                given = forward(*(values[chosen] for values in inputs))
                found = loss(given, chosen_rows(wanted, chosen), chosen)
                if not torch.isfinite(found):
                    raise PassError(
                        settings.name, f"training diverged, the loss is {found.item()}; lower the learning rate"
                    )
                found.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(parameters, 5.0)
                optimizer.step()
                schedule.step()
                if after_step is not None:
                    after_step()
    model.eval()
