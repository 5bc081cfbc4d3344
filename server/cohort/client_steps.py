"""The fastest single-threaded training of one client: a traced step where there is one, else the plain loop.

Needs torch. Which of them trains is decided once for a task and a batch size, before any worker is forked, by rules
that do not look at a clock: the same task is trained the same way in every run.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from hedgerow.batches import batch_indices
from hedgerow.local_work import LocalWork, Optimizer
from hedgerow.server.cohort.sequential import ResidentData
from hedgerow.server.cohort.shared_rows import ModelRow, RowLayout
from hedgerow.server.cohort.step_graph import count_operations, take_sgd_steps, trace_gradients
from hedgerow.server.local_steps import OPTIMIZER_STEPS, GradientTerms, LocalTrainer, StepsTaken, unshared
from hedgerow.task import Task
from hedgerow.task_module import as_given

__all__ = ["ClientSteps"]

_LOG = logging.getLogger(__name__)
_MOST_OPERATIONS = 400
"""Longer graphs (unrolled recurrences) start each operation from Python, which autograd's C++ does faster."""
_PROBE_SEED = 7
_PROBES = 3
"""Rounding may decide on which side of a kink (of ReLU, say) a number lies, so one try that differs says little."""
_PROBE_STEPS = 2
_PROBE_RATE = 0.01
_RELATIVE = 1e-3
"""Rounding differs by less after a few steps, and anything else that differs differs by more."""
_OF_ALL = 1e-4
"""The same as a share of the largest move: some tensors move by rounding alone, such as a bias before BatchNorm."""


class SgdStep(Protocol):
    """A traced step that changes the weights itself."""

    def __call__(self, *tensors_and_rate: torch.Tensor | float) -> torch.Tensor:
        """Take a step: weights, inputs, target values and the learning rate, negative -> the loss."""
        ...


class GradientsStep(Protocol):
    """A traced step that leaves the weights as they are."""

    def __call__(self, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return the loss and each parameter's gradient of weights, inputs and target values."""
        ...


@dataclass(frozen=True, slots=True)
class _Traced:
    """The step as a graph that changes the weights itself, and as one that returns gradients."""

    sgd: SgdStep
    gradients: GradientsStep


class ClientSteps:
    """Trains one client after the other, each in a row of its own.

    Args:
        task: What to learn.
        data: The samples.
        batch_size: Every step takes so many samples.
        draws: Whether the model draws random numbers while it trains.

    Attributes:
        layout: How a client's row is laid out.
        batch_size: Every step takes so many samples.
        reason: Why the plain loop trains; empty if a traced step does.
    """

    def __init__(self, task: Task, data: ResidentData, batch_size: int, *, draws: bool) -> None:
        self._data, self._draws, self.batch_size = data, draws, batch_size
        # Seeded, for its new model's weights are what the traced step is tried with.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_PROBE_SEED)
            self._trainer = LocalTrainer(task, reseeds=draws)
        self.layout = RowLayout(self._trainer.tensors)
        # Images go into convolutions channels-last; what pre-processing makes of others is its own affair.
        self._channels_last = [task.preprocess is None and tensor.dim() == 4 for tensor in data.inputs]
        self._traced: _Traced | None = None
        self.reason = ""
        self._traced = self._trace(task, batch_size)

    @property
    def traced(self) -> bool:
        """Whether a traced step trains, and not the plain loop."""
        return self._traced is not None

    def train(
        self,
        sent: ModelRow,
        target: ModelRow,
        positions: torch.Tensor,
        work: LocalWork,
        corrections: Mapping[str, torch.Tensor] | None = None,
    ) -> StepsTaken:
        """Train from *sent* and leave the new weights in *target*.

        Args:
            sent: Not changed.
            target: Overwritten.
            positions: Where the client's samples lie in the data, ``int64[n]``.
            work: What to do.
            corrections: Added to every gradient of the parameter of that name.
        """
        if self._traced is None or (work.optimizer == Optimizer.ADAM and self.layout.has_channels_last):
            # Adam makes full steps of gradients that are zero but for rounding, which layouts decide.
            return self._train_plainly(sent, target, positions, work, corrections)
        with torch.inference_mode():
            target.row.copy_(sent.row)
            if self._draws:
                torch.default_generator.manual_seed(work.order_seed)
            losses = self._take_steps(self._traced, target, positions, work, corrections)
            return StepsTaken(float(torch.stack(losses).mean()), self._clip(sent, target, work.clip_norm))

    def _train_plainly(
        self,
        sent: ModelRow,
        target: ModelRow,
        positions: torch.Tensor,
        work: LocalWork,
        corrections: Mapping[str, torch.Tensor] | None,
    ) -> StepsTaken:
        with torch.enable_grad():
            taken = self._trainer.take_steps(
                sent.tensors,
                self._data.inputs,
                as_given(self._data.wanted),
                work,
                corrections=corrections,
                positions=positions,
            )
        with torch.no_grad():
            for name, tensor in self._trainer.tensors.items():
                target.tensors[name].copy_(tensor)
        return taken

    def _take_steps(
        self,
        traced: _Traced,
        target: ModelRow,
        positions: torch.Tensor,
        work: LocalWork,
        corrections: Mapping[str, torch.Tensor] | None,
    ) -> list[torch.Tensor]:
        tensors = tuple(target.tensors[name] for name in self.layout.unique)
        if work.is_plain_sgd and not corrections:
            rate = -work.learning_rate
            return [traced.sgd(*tensors, *batch, rate) for batch in self._batches(positions, work)]
        parameters = [target.tensors[name] for name in self._trainer.parameters]
        terms = GradientTerms(parameters, self._trainer.parameters, corrections or {}, work)
        optimizer = OPTIMIZER_STEPS[work.optimizer](parameters, work)
        losses = []
        for batch in self._batches(positions, work):
            loss, *shared = traced.gradients(*tensors, *batch)
            gradients = unshared(shared)
            terms.add_to(gradients)
            optimizer.step(gradients)
            losses.append(loss)
        return losses

    def _batches(self, positions: torch.Tensor, work: LocalWork) -> Iterator[tuple[torch.Tensor, ...]]:
        rng = np.random.default_rng(work.order_seed)
        for _ in range(work.epochs):
            order = torch.from_numpy(batch_indices(len(positions), work.batch_size, rng).reshape(-1))
            chosen = positions[order]
            yield from zip(*self._gather(chosen, work.batch_size), strict=True)

    def _gather(self, chosen: torch.Tensor, batch_size: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield each input's batches, and each output's; gathered at once, which many small gathers cost more than."""
        for tensor, channels_last in zip(self._data.inputs, self._channels_last, strict=True):
            samples = tensor.index_select(0, chosen)
            if channels_last:
                samples = samples.contiguous(memory_format=torch.channels_last)
            yield samples.view(-1, batch_size, *samples.shape[1:]).unbind()
        for tensor in self._data.wanted:
            values = tensor.index_select(0, chosen)
            yield values.view(-1, batch_size, *values.shape[1:]).unbind()

    def _clip(self, sent: ModelRow, target: ModelRow, clip_norm: float | None) -> float:
        floats = [segment for segment in self.layout.segments if segment.dtype.is_floating_point]
        pairs = [(segment.view(target.row), segment.view(sent.row)) for segment in floats]
        norm = math.hypot(*(float(torch.linalg.vector_norm(new - old)) for new, old in pairs))
        if clip_norm is not None and norm > clip_norm:
            for new, old in pairs:
                new.sub_(old).mul_(clip_norm / norm).add_(old)
        return norm

    def _trace(self, task: Task, batch_size: int) -> _Traced | None:
        """Return the traced step if it can be had, is short enough and does what the plain loop does."""
        sent = ModelRow.of(self.layout, torch.zeros(self.layout.row_bytes, dtype=torch.uint8))
        for name, tensor in self._trainer.tensors.items():
            sent.tensors[name].copy_(tensor)
        rate = min(_PROBE_RATE, task.local.learning_rate)
        work = LocalWork(epochs=_PROBE_STEPS, learning_rate=rate, batch_size=batch_size, seed=_PROBE_SEED)
        positions = [
            torch.arange(start, start + batch_size) % len(self._data)
            for start in range(0, _PROBES * batch_size, batch_size)
        ]
        batch = next(self._batches(positions[0], work))
        try:
            tensors = {name: sent.tensors[name] for name in self.layout.unique}
            inputs, wanted = batch[: len(task.inputs)], batch[len(task.inputs) :]
            gradients = trace_gradients(task, self._trainer.model, tensors, self._trainer.parameters, inputs, wanted)
            operations = count_operations(gradients)
            if operations > _MOST_OPERATIONS:
                self.reason = f"its step takes {operations} operations"
                return None
            sgd = deepcopy(gradients)
            take_sgd_steps(sgd, [self.layout.unique.index(name) for name in self._trainer.parameters])
            traced = _Traced(sgd.forward, gradients.forward)
            for chosen in positions:
                self.reason = self._difference(traced, sent, chosen, work)
                if not self.reason:
                    return traced
        # A model may do anything, and a trace of it may fail in any way; the plain loop trains it all the same.
        except Exception as exc:  # noqa: BLE001 - see above
            self.reason = f"its step cannot be traced: {type(exc).__name__}: {exc}"
            _LOG.debug("%s", self.reason, exc_info=True)
        return None

    def _difference(self, traced: _Traced, sent: ModelRow, positions: torch.Tensor, work: LocalWork) -> str:
        """Return what differs from the plain loop after a few steps, or nothing."""
        plain, fast = (
            ModelRow.of(self.layout, torch.zeros(self.layout.row_bytes, dtype=torch.uint8)) for _ in range(2)
        )
        for chosen in (work, replace(work, momentum=0.5)):
            with torch.random.fork_rng(devices=[]):
                self._traced = None
                expected = self.train(sent, plain, positions, chosen)
                self._traced = traced
                found = self.train(sent, fast, positions, chosen)
            if not np.isclose(expected.loss, found.loss, rtol=_RELATIVE, atol=0):
                return f"its traced step has the loss {found.loss:g} instead of {expected.loss:g}"
            moves = {name: _largest(tensor - sent.tensors[name]) for name, tensor in plain.tensors.items()}
            most = max(moves.values())
            for name, tensor in plain.tensors.items():
                if not _largest(tensor - fast.tensors[name]) <= _RELATIVE * moves[name] + _OF_ALL * most:
                    return f"its traced step changes {name} otherwise"
        return ""


def _largest(tensor: torch.Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0
