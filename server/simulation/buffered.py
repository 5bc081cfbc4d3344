"""FedBuff on the virtual clock: the event core says who arrives when, an engine trains whole groups at once.

Needs torch for the arrays only.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from hedgerow.local_work import LocalWork
from hedgerow.server.cohort.engine import CohortEngine, Weights
from hedgerow.server.replies import Kind, ReplyLimits, longest_update, model_length
from hedgerow.server.simulation.arrivals import Arrival, BufferedPlan, Start, buffered_steps
from hedgerow.server.simulation.deadlines import DeviceWork
from hedgerow.server.simulation.draws import Numbers
from hedgerow.server.simulation.population import Population

if TYPE_CHECKING:
    import torch

__all__ = ["BufferedRound", "Standing", "WaitingUpdate", "run_buffered"]


@dataclass(frozen=True, slots=True)
class WaitingUpdate:
    """What a device will bring.

    Attributes:
        delta: Its new weights minus those it got.
        examples: How many samples it has.
        loss: Mean over its steps.
        refused: Why it is left out of the mean (``hedgerow.server.replies.Kind``); empty: it is used.
    """

    delta: Mapping[str, "torch.Tensor"]
    examples: int
    loss: float
    refused: str


@dataclass(frozen=True, slots=True)
class Standing:
    """All that a run needs to go on.

    Attributes:
        version: Its number, from 1.
        weights: All parameters and buffers, on the engine's device.
        waiting: Updates that are computed and have not arrived, by the number of their start; on the same device.
    """

    version: int
    weights: Weights
    waiting: Mapping[int, WaitingUpdate]


@dataclass(frozen=True, slots=True)
class BufferedRound(Standing):
    """New weights, and what they were made of.

    Attributes:
        at_s: Virtual time.
        loss: Mean training loss over the buffer's usable updates, by examples; NaN if there are none.
        examples: Samples that their devices have, in all.
        devices: Whose updates arrived, in the order of arrival.
        staleness: How many versions old each update was.
        lost: Devices that were given up since the version before.
        refused: Those of the *devices* whose updates were not used -> why, in a word.
    """

    at_s: float
    loss: float
    examples: int
    devices: tuple[int, ...]
    staleness: tuple[int, ...]
    lost: int
    refused: Mapping[int, str]


def run_buffered(
    engine: CohortEngine,
    weights: Weights,
    population: Population,
    work: DeviceWork,
    local: LocalWork,
    *,
    plan: BufferedPlan | None = None,
    samples: Callable[[Numbers], Numbers],
    now_s: float = 0.0,
    after: Standing | None = None,
) -> Iterator[BufferedRound]:
    """Train asynchronously, without end: one item for each new version of the weights.

    All devices that started from one version are trained together when the next version is due, and their updates kept
    until they arrive: memory for as many models as devices are at work. The order of a device's samples depends on the
    run's seed, the version that it started from and its number (``local.round`` is not used).

    Args:
        engine: Trains; its clients are the population's devices.
        weights: Version 0, on the engine's device; not changed.
        population: When devices are there and how fast.
        work: What a device's work costs; its epochs are those of *local*.
        local: What a device does.
        plan: None: the default one.
        samples: Device numbers ``int64[n]`` -> samples of each.
        now_s: When it begins.
        after: Go on after this round of a run with the same arguments (*weights* is then not used). The events before
            it are played again, which costs about a millisecond for four devices; nothing is trained again.

    Raises:
        NotEnoughDevicesError: Nobody is at work, and nobody will ever be available again.
    """
    plan = plan or BufferedPlan()
    coming: dict[int, WaitingUpdate] = {}
    if after is not None:
        weights, coming = after.weights, dict(after.waiting)
    steps = buffered_steps(population, replace(work, epochs=local.epochs), plan, samples=samples, now_s=now_s)
    for step in islice(steps, 0 if after is None else after.version, None):
        coming.update(_train(engine, weights, step.starts, local))
        pairs = [(arrival, coming.pop(arrival.start.number)) for arrival in step.arrivals]
        usable = [(arrival, update) for arrival, update in pairs if not update.refused]
        weights = _apply(weights, usable, plan)
        examples = sum(update.examples for _arrival, update in usable)
        loss = sum(update.loss * update.examples for _arrival, update in usable)
        yield BufferedRound(
            version=step.version,
            at_s=step.at_s,
            weights=weights,
            loss=loss / examples if examples else math.nan,
            examples=examples,
            devices=tuple(arrival.start.device for arrival in step.arrivals),
            staleness=tuple(arrival.staleness for arrival in step.arrivals),
            lost=step.lost,
            refused={arrival.start.device: update.refused for arrival, update in pairs if update.refused},
            waiting=dict(coming),
        )


def _train(
    engine: CohortEngine, weights: Weights, starts: Sequence[Start], local: LocalWork
) -> Iterator[tuple[int, WaitingUpdate]]:
    """Train everybody who started from *weights*: all at once, but for those who did so twice."""
    for repeat in sorted({start.repeat for start in starts}):
        group = sorted((start for start in starts if start.repeat == repeat), key=lambda start: start.device)
        # A device that starts twice from one version goes on with another order of its samples.
        work = replace(local, round=group[0].version + 1, seed=local.seed + repeat)
        trained = list(_brought(engine, weights, group, work))
        norms = np.array([norm for _start, norm, _update in trained if math.isfinite(norm)])
        floats = {name: tensor.detach().cpu().numpy() for name, tensor in weights.items()}
        longest = longest_update(norms, model_length(floats), ReplyLimits())
        for start, norm, update in trained:
            if not (math.isfinite(norm) and math.isfinite(update.loss)):
                yield start, replace(update, refused=str(Kind.NOT_FINITE))
            else:
                yield start, replace(update, refused=str(Kind.NORM) if norm > longest else "")


def _brought(
    engine: CohortEngine, weights: Weights, group: Sequence[Start], work: LocalWork
) -> Iterator[tuple[int, float, WaitingUpdate]]:
    """Yield the number of each start, how long its update is, and the update, which nobody has judged."""
    numbers = iter(group)
    for update in engine.train(weights, [start.device for start in group], work, each=True):
        stacked = update.each or {}
        deltas = {name: rows.detach() - weights[name] for name, rows in stacked.items()}
        for row in range(len(update.clients)):
            # A copy, so that the slowest device of a group does not keep the others' rows in memory.
            own = {name: rows[row].clone() for name, rows in deltas.items()}
            found = WaitingUpdate(own, int(update.examples[row]), float(update.losses[row]), "")
            yield next(numbers).number, float(update.norms[row]), found


def _apply(
    weights: Weights, updates: Sequence[tuple[Arrival, WaitingUpdate]], plan: BufferedPlan
) -> dict[str, "torch.Tensor"]:
    """Return the weights after a step along the weighted mean of *updates*; whole numbers are rounded."""
    if not updates:
        return dict(weights)
    shares = np.array([update.examples if plan.weigh_examples else 1.0 for _arrival, update in updates])
    staleness = np.array([arrival.weight for arrival, _update in updates])
    factors = plan.server_learning_rate * shares / shares.sum() * staleness
    changed: dict[str, torch.Tensor] = {}
    for name, before in weights.items():
        total = before.clone() if before.is_floating_point() else before.double()
        for factor, (_arrival, update) in zip(factors.tolist(), updates, strict=True):
            total.add_(update.delta[name], alpha=factor)
        changed[name] = total if before.is_floating_point() else total.round().to(before.dtype)
    return changed
