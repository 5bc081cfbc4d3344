"""An asynchronous run with a folder: FedBuff's versions of the weights take the place of rounds. Needs torch.

What devices at work will bring is saved with the weights, so a stopped run goes on, and ends with the same weights.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch

from hedgerow.checkpoint import Checkpoint
from hedgerow.server.errors import NoUpdateError, RoundFailedError, RunMismatchError
from hedgerow.server.outcome import check_end, check_round
from hedgerow.server.replies import Kind
from hedgerow.server.rounds import NAMED, few_failures
from hedgerow.server.run_folder import RunFolder
from hedgerow.server.run_records import RoundRecord, SavedRound
from hedgerow.server.simulation.arrivals import BufferedPlan
from hedgerow.server.simulation.buffered import BufferedRound, Standing, WaitingUpdate, run_buffered
from hedgerow.server.simulation.cadence import CheckpointCadence
from hedgerow.server.simulation.parts import RunEnd, RunParts
from hedgerow.server.simulation.population import Population
from hedgerow.server.simulation.timed_grid import sizes_of
from hedgerow.server.simulation.workload import work_of_task
from hedgerow.weights import Arrays

__all__ = ["run_versions"]


def run_versions(parts: RunParts) -> RunEnd:
    """Run the plan asynchronously, as many versions as it has rounds.

    Raises:
        RunMismatchError: The folder holds more versions.
        NoUpdateError: Three versions in a row, or the last one, used no update.
        RoundFailedError: The weights are not finite.
        NotEnoughDevicesError: Nobody is at work, and nobody will ever be available again.
        RunFolderError: The folder cannot be written.
        ValueError: There is no population.
    """
    if parts.population is None:
        raise ValueError("an asynchronous run needs a population")
    versions = _Versions(parts.folder, parts.weights)
    versions.resume(parts.plan.rounds, parts.device)
    versions.take(parts, parts.population)
    check_end(versions.history)
    versions.metrics = _finite(parts.evaluator.report(versions.weights))
    outcomes = {"done": len(versions.staleness), "lost": versions.lost}
    mean, most = sum(versions.staleness) / len(versions.staleness), max(versions.staleness)
    note = f"updates were {mean:.1f} versions old on average, the oldest {most}"
    return RunEnd(versions.checkpoint(), versions.history, outcomes, (note,))


@dataclass(slots=True)
class _Versions:
    """The state of an asynchronous run.

    Attributes:
        folder: The run's.
        weights: The newest version.
        metrics: What the newest version measured, if it was.
        history: One record a version.
        staleness: How old each update was that arrived.
        lost: Devices that were given up.
        waiting: Updates of devices that were at work at the newest version, by the number of their start.
    """

    folder: RunFolder
    weights: Arrays
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[RoundRecord] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    lost: int = 0
    waiting: Mapping[int, WaitingUpdate] = field(default_factory=dict)

    def resume(self, versions: int, device: str) -> None:
        """Take up the run where the folder's newest version stands, its updates on *device*.

        Raises:
            RunMismatchError: The folder holds more versions.
        """
        saved = self.folder.last_round()
        if saved is not None and saved.checkpoint.round > versions:
            raise RunMismatchError(self.folder.path, {"rounds": (saved.checkpoint.round, versions)})
        self.history = self.folder.history(0 if saved is None else saved.checkpoint.round)
        if saved is not None:
            self.weights, self.metrics = dict(saved.checkpoint.weights), dict(saved.checkpoint.metrics)
            kept = saved.grid or {}
            self.staleness, self.lost = list(kept.get("staleness", ())), int(kept.get("lost", 0))
            self.waiting = _taken_up(kept.get("waiting", ()), saved.state, device)

    def take(self, parts: RunParts, population: Population) -> None:
        """Train until there are as many versions as the plan's rounds.

        Raises:
            NoUpdateError: Three versions in a row, or the last one, used no update.
            RoundFailedError: The weights are not finite.
            NotEnoughDevicesError: Nobody is at work, and nobody will ever be available again.
        """
        plan, work = parts.plan, parts.work
        began = time.perf_counter()
        first = {name: torch.from_numpy(array.copy()).to(parts.device) for name, array in self.weights.items()}
        taken = len(self.history)
        rounds = run_buffered(
            parts.engine,
            first,
            population,
            work_of_task(parts.task, parts.data.train, epochs=work.epochs),
            work,
            plan=BufferedPlan(concurrency=plan.cohort, buffer=plan.buffered()),
            samples=sizes_of(parts.index),
            after=Standing(taken, first, self.waiting) if taken else None,
        )
        cadence = CheckpointCadence(plan.checkpoint_every)
        for new in islice(rounds, plan.rounds - taken):
            weights = {name: tensor.cpu().numpy() for name, tensor in new.weights.items()}
            if not all(np.isfinite(array).all() for array in weights.values()):
                raise RoundFailedError(new.version, {}, "NaN in the weights (is a learning rate too large?)")
            measured = parts.evaluator.measure(weights) if plan.evaluates(new.version) else {}
            metrics = _finite(measured)
            record = _record(new, metrics, time.perf_counter() - began, parts.task.answers.score_key)
            try:
                check_round(self.history, record, last=new.version == plan.rounds)
            except NoUpdateError:
                if self.history:  # what was finished since the last checkpoint is kept
                    self.save()
                raise
            self.weights, self.metrics = weights, metrics
            self.staleness.extend(new.staleness)
            self.lost += new.lost
            self.history.append(record)
            began = time.perf_counter()
            self.folder.add_record(self.history[-1])
            self.waiting = new.waiting
            if new.version == plan.rounds or cadence.is_due(new.version):
                with cadence.saving():
                    self.save()
            parts.tell(self.history)

    def save(self) -> None:
        """Make the newest version durable."""
        waiting = [
            [start, update.examples, update.loss if math.isfinite(update.loss) else None, update.refused]
            for start, update in self.waiting.items()
        ]
        kept = {"staleness": self.staleness, "lost": self.lost, "waiting": waiting}
        self.folder.save_state(SavedRound(self.checkpoint(), _stacked(self.waiting.values()), kept))

    def checkpoint(self) -> Checkpoint:
        """Return the newest version with the run's record."""
        return self.folder.settings.checkpoint(self.weights, len(self.history), self.metrics)


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


_REASONS = {
    str(Kind.NOT_FINITE): "NaN or infinity in its update or loss (is a learning rate too large?)",
    str(Kind.NORM): "its update was far too long (is a learning rate too large?)",
}


def _record(new: BufferedRound, metrics: Mapping[str, float], seconds: float, score_key: str) -> RoundRecord:
    used = [device for device in new.devices if device not in new.refused]
    return RoundRecord(
        round=new.version,
        loss=metrics.get("loss"),
        score=metrics.get(score_key),
        score_key=score_key,
        train_loss=new.loss if math.isfinite(new.loss) else None,
        seconds=round(seconds, 4),
        examples=new.examples,
        participants=tuple(str(device) for device in sorted(used)) if len(used) <= NAMED else (),
        failures=few_failures({str(device): _REASONS.get(kind, kind) for device, kind in new.refused.items()}),
        refused=dict(Counter(new.refused.values()).most_common()),
        clients=len(used) if len(used) > NAMED else None,
        virtual_s=new.at_s,
    )


def _stacked(updates: Iterable[WaitingUpdate]) -> Arrays:
    """Return what *updates* bring, a row for each."""
    deltas = [update.delta for update in updates]
    return {name: torch.stack([d[name] for d in deltas]).cpu().numpy() for name in (deltas[0] if deltas else ())}


def _taken_up(rows: Sequence[Any], stacked: Arrays, device: str) -> dict[int, WaitingUpdate]:
    """Return what :meth:`_Versions.save` wrote."""
    return {
        start: WaitingUpdate(
            delta={name: torch.from_numpy(stack[row].copy()).to(device) for name, stack in stacked.items()},
            examples=examples,
            loss=math.nan if loss is None else loss,
            # Before kinds were kept, this said whether it was finite.
            refused=refused if isinstance(refused, str) else "" if refused else str(Kind.NOT_FINITE),
        )
        for row, (start, examples, loss, refused) in enumerate(rows)
    }
