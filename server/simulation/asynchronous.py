"""An asynchronous run with a folder: FedBuff's versions of the weights take the place of rounds. Needs torch.

Devices at work are no part of what is saved: a run that was stopped begins anew, and ends with the same weights.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from hedgerow.checkpoint import Checkpoint
from hedgerow.server.cohort.work import CohortWork
from hedgerow.server.errors import RoundFailedError, RunMismatchError
from hedgerow.server.run_folder import RoundRecord, RunFolder, SavedRound
from hedgerow.server.simulation.arrivals import BufferedPlan
from hedgerow.server.simulation.buffered import BufferedRound, run_buffered
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
        RoundFailedError: The weights are not finite.
        NotEnoughDevicesError: Nobody is at work, and nobody will ever be available again.
        RunFolderError: The folder cannot be written.
        ValueError: There is no population.
    """
    if parts.population is None:
        raise ValueError("an asynchronous run needs a population")
    versions = _Versions(parts.folder, parts.weights)
    if not versions.resume(parts.plan.rounds):
        versions.take(parts, parts.population)
    outcomes = {"done": len(versions.staleness), "lost": versions.lost}
    mean, most = sum(versions.staleness) / len(versions.staleness), max(versions.staleness)
    note = f"updates were {mean:.1f} versions old on average, the oldest {most}"
    return RunEnd(versions.checkpoint(), versions.history, outcomes, (note,))


@dataclass(slots=True)
class _Versions:
    """The state of an asynchronous run.

    Attributes:
        folder: Of the run.
        weights: Of the newest version.
        metrics: Of the newest version, if it was measured.
        history: One record a version.
        staleness: Of each update that was used.
        lost: Devices that were given up.
    """

    folder: RunFolder
    weights: Arrays
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[RoundRecord] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    lost: int = 0

    def resume(self, versions: int) -> bool:
        """Take up the run if it is finished, else begin anew; tell whether it is finished.

        Raises:
            RunMismatchError: The folder holds more versions.
        """
        saved = self.folder.last_round()
        if saved is not None and saved.checkpoint.round > versions:
            raise RunMismatchError(self.folder.path, {"rounds": (saved.checkpoint.round, versions)})
        finished = saved is not None and saved.checkpoint.round == versions
        self.history = self.folder.history(versions if finished else 0)
        if saved is not None and finished:
            self.weights, self.metrics = dict(saved.checkpoint.weights), dict(saved.checkpoint.metrics)
            kept = saved.grid or {}
            self.staleness, self.lost = list(kept.get("staleness", ())), int(kept.get("lost", 0))
        return finished

    def take(self, parts: RunParts, population: Population) -> None:
        """Train until there are as many versions as the plan's rounds.

        Raises:
            RoundFailedError: The weights are not finite.
            NotEnoughDevicesError: Nobody is at work, and nobody will ever be available again.
        """
        plan, local = parts.plan, parts.local
        first = {name: torch.from_numpy(array.copy()).to(parts.device) for name, array in self.weights.items()}
        began = time.perf_counter()
        rounds = run_buffered(
            parts.engine,
            first,
            population,
            work_of_task(parts.task, parts.data.train, epochs=local.epochs),
            CohortWork(
                round=1,
                seed=plan.seed,
                epochs=local.epochs,
                learning_rate=local.learning_rate,
                batch_size=local.batch_size,
                optimizer=plan.optimizer,
                momentum=plan.momentum,
                weight_decay=plan.weight_decay,
            ),
            plan=BufferedPlan(concurrency=plan.cohort, buffer=plan.buffered()),
            samples=sizes_of(parts.index),
        )
        for new in islice(rounds, plan.rounds):
            self.weights = {name: tensor.cpu().numpy() for name, tensor in new.weights.items()}
            if not all(np.isfinite(array).all() for array in self.weights.values()):
                raise RoundFailedError(new.version, {}, "NaN in the weights (is a learning rate too large?)")
            measured = parts.evaluator.measure(self.weights) if plan.evaluates(new.version) else {}
            self.metrics = {name: value for name, value in measured.items() if math.isfinite(value)}
            self.staleness.extend(new.staleness)
            self.lost += new.lost
            self.history.append(_record(new, self.metrics, time.perf_counter() - began))
            began = time.perf_counter()
            self.folder.add_record(self.history[-1])
            if new.version == plan.rounds:
                kept = {"staleness": self.staleness, "lost": self.lost}
                self.folder.save_state(SavedRound(self.checkpoint(), {}, kept))
            parts.tell(self.history)

    def checkpoint(self) -> Checkpoint:
        """Return the newest version with the run's record."""
        return self.folder.settings.checkpoint(self.weights, len(self.history), self.metrics)


def _record(new: BufferedRound, metrics: Mapping[str, float], seconds: float) -> RoundRecord:
    return RoundRecord(
        round=new.version,
        loss=metrics.get("loss"),
        accuracy=metrics.get("accuracy"),
        train_loss=new.loss if math.isfinite(new.loss) else None,
        seconds=round(seconds, 4),
        examples=new.examples,
        participants=tuple(str(device) for device in sorted(new.devices)),
        virtual_s=new.at_s,
    )
