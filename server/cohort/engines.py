"""Which engine trains a cohort: a table of names, and a static rule that chooses one from the model's shapes.

Importing this module does not import torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hedgerow.plugins import Plugin, load_plugin
from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.task import Dataset, Task

if TYPE_CHECKING:
    from hedgerow.server.cohort.engine import CohortEngine

__all__ = ["AUTO", "ENGINES", "EngineChoice", "StepFacts", "build_engine", "choose_engine", "engine_and_reason"]

AUTO = "auto"

ENGINES: Mapping[str, Plugin] = {
    "sequential": Plugin("hedgerow.server.cohort.sequential:SequentialEngine", "train"),
    "workers": Plugin("hedgerow.server.cohort.workers:WorkersEngine", "train"),
    "vectorized": Plugin("hedgerow.server.cohort.vectorized:VectorizedEngine", "train"),
}

_SMALL_STEP_FLOPS = 4_000_000
"""Up to here, divided by the processes that could train instead, a client's forward step costs less than starting its
operations, which training many at once shares; beyond, arithmetic and memory decide, which a process a core uses
better. Measured on CPUs with batches of 10: one thread trains 50 clients of logistic regression on MNIST (0.16 million)
in 13 ms vectorized and in 53 with a worker, a network of 784-64-10 (1.0 million) in 34 and 75, one of 784-200-200-10
(4 million) in 145 and 154, and a convolution of CIFAR-10 images to 8 channels (4 million) in 323 and 208."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """What the choice depends on.

    Attributes:
        step_flops: What matrix products and convolutions take in the forward pass of one local step; 0: it has none.
        random: It draws random numbers while it trains, such as dropout.
    """

    step_flops: int
    random: bool = False

    @classmethod
    def of(cls, task: Task, dataset: Dataset) -> "StepFacts":
        """Look at the task's model, and run it once. Needs torch."""
        import torch
        from torch import nn
        from torch.utils.flop_counter import FlopCounterMode

        from hedgerow.server.local_steps import draws_random_numbers
        from hedgerow.task_module import LogitsModule

        model = task.model()
        batch = dataset.take(np.arange(task.local.batch_size) % len(dataset))
        inputs = [torch.from_numpy(np.ascontiguousarray(batch.inputs[spec.name])) for spec in task.inputs]
        counter, uncounted = FlopCounterMode(display=False), []

        def count(layer: nn.Module, given: tuple[torch.Tensor, ...], _output: object) -> None:
            positions = given[0].numel() // given[0].shape[-1]
            uncounted.append(2 * positions * sum(value.numel() for value in layer.parameters() if value.ndim == 2))

        for layer in model.modules():
            if isinstance(layer, nn.LSTM):  # torch runs it as one operation, of which it knows no number
                layer.register_forward_hook(count)
        with counter, torch.no_grad():
            LogitsModule(task, model).eval()(*inputs)
        return cls(
            step_flops=counter.get_total_flops() + sum(uncounted),
            random=draws_random_numbers(task, dataset),
        )


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine and why.

    Attributes:
        name: A key of :data:`ENGINES`.
        reason: Why it was chosen, for people and records.
    """

    name: str
    reason: str


def choose_engine(facts: StepFacts, *, device: str, workers: int) -> EngineChoice:
    """Choose an engine. Pure.

    Args:
        facts: What the model is.
        device: Torch's name of it, such as ``cpu`` or ``cuda:0``.
        workers: How many processes may train on a CPU.
    """
    plain = _one_after_the_other(device)
    if facts.random:
        return EngineChoice(plain, "the model draws random numbers in training, each client its own")
    if device != "cpu":
        return EngineChoice("vectorized", f"all clients in one step keep {device} busy")
    step = f"{facts.step_flops:,} floating-point operations in a client's step"
    if facts.step_flops * workers <= _SMALL_STEP_FLOPS:
        return EngineChoice("vectorized", f"{step} cost less than their start, which all clients share")
    return EngineChoice(plain, f"{step} are best done one client after the other, {workers} at a time")


def _one_after_the_other(device: str) -> str:
    return "workers" if device == "cpu" else "sequential"


def engine_and_reason(
    name: str, task: Task, dataset: Dataset, clients: ClientIndex, *, device: str = "cpu", workers: int = 1
) -> "tuple[CohortEngine, EngineChoice]":
    """Make an engine and say why this one. Needs torch.

    Args:
        name: A key of :data:`ENGINES`, or :data:`AUTO`.
        task: What to learn.
        dataset: The samples of all clients.
        clients: Who owns which.
        device: Torch's name of it.
        workers: Processes of the engine ``workers``, one thread each.

    Raises:
        UnknownNameError: No engine has this name.
        UntraceableError: ``vectorized`` was asked for and cannot train this model.
        ValueError: *workers* is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if name != AUTO:
        return _made(name, task, dataset, clients, device, workers), EngineChoice(name, "it was asked for")
    from hedgerow.server.cohort.errors import UntraceableError

    choice = choose_engine(StepFacts.of(task, dataset), device=device, workers=workers)
    try:
        return _made(choice.name, task, dataset, clients, device, workers), choice
    except UntraceableError as exc:
        name = _one_after_the_other(device)
        return _made(name, task, dataset, clients, device, workers), EngineChoice(name, exc.reason)


def build_engine(
    name: str, task: Task, dataset: Dataset, clients: ClientIndex, *, device: str = "cpu", workers: int = 1
) -> "CohortEngine":
    """Make an engine as :func:`engine_and_reason` does."""
    return engine_and_reason(name, task, dataset, clients, device=device, workers=workers)[0]


def _made(name: str, task: Task, dataset: Dataset, clients: ClientIndex, device: str, workers: int) -> "CohortEngine":
    engine = load_plugin("engine", {**ENGINES, AUTO: ENGINES["sequential"]}, name)
    if name == "workers":
        made: CohortEngine = engine(task, dataset, clients, workers=workers)
    else:
        made = engine(task, dataset, clients, device=device)
    return made
