"""What a run is put together from, and what it comes to. Needs torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hedgerow.checkpoint import Checkpoint
from hedgerow.local_work import LocalWork
from hedgerow.server.accounting import PrivacyStatement
from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.cohort.engine import CohortEngine
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.run_folder import RunFolder
from hedgerow.server.run_records import RoundRecord
from hedgerow.server.simulation.plan import SimulationPlan
from hedgerow.server.simulation.population import Population
from hedgerow.task import Task, TaskData
from hedgerow.weights import Arrays

__all__ = ["RunEnd", "RunParts", "Tell"]

Tell = Callable[[Sequence[RoundRecord]], None]
"""Called with all records after each round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """What a run is put together from.

    Attributes:
        task, data: What is learned.
        plan: What to run, with nothing left open.
        work: What clients do, as the plan says it.
        index: Who owns which samples.
        engine: Trains.
        device: Torch's name of what trains.
        population: The plan's devices; None without a device model.
        evaluator: Measures weights on held-out data.
        weights: The run starts from them.
        folder: The run's, held.
        tell: Told after each round.
    """

    task: Task
    data: TaskData
    plan: SimulationPlan
    work: LocalWork
    index: ClientIndex
    engine: CohortEngine
    device: str
    population: Population | None
    evaluator: Evaluator
    weights: Arrays
    folder: RunFolder
    tell: Tell


@dataclass(frozen=True, slots=True)
class RunEnd:
    """What a run has when it has come to its end.

    Attributes:
        checkpoint: The last weights, measured.
        history: One record a round.
        outcomes: What became of devices -> how many; empty without a device model.
        notes: What may surprise, one sentence each.
        privacy: What the run can promise; None: it promised nothing.
    """

    checkpoint: Checkpoint
    history: Sequence[RoundRecord]
    outcomes: Mapping[str, int]
    notes: tuple[str, ...] = ()
    privacy: PrivacyStatement | None = None
