"""A synchronous run: one of Flower's strategies decides, round by round, over a cohort grid. Needs torch and Flower."""

import math
from collections import Counter

from flwr.serverapp.strategy import Strategy

from hedgerow.server.errors import NoUpdateError, RunMismatchError
from hedgerow.server.grids.cohort import CohortGrid
from hedgerow.server.outcome import check_end
from hedgerow.server.private_strategy import PrivateMean
from hedgerow.server.round_settings import settings_of
from hedgerow.server.rounds import Run
from hedgerow.server.simulation.cadence import CheckpointCadence
from hedgerow.server.simulation.parts import RunEnd, RunParts
from hedgerow.server.simulation.timed_grid import TimedGrid, sizes_of
from hedgerow.server.simulation.workload import work_of_task
from hedgerow.server.strategies import build_strategy, mean_suffices

__all__ = ["run_rounds"]

_LISTED = 8
"""So many of very many available devices are listed to the strategy for each place in the cohort."""
_MANY_DEVICES = 20_000
_NO_SHARE = 1e-12
"""Strategies sample a share of the nodes, or a minimum number if that is more: with so small a share, always that."""


def run_rounds(parts: RunParts) -> RunEnd:
    """Run the plan's rounds from where the folder stands.

    Raises:
        RunMismatchError: The folder holds more rounds.
        NoUpdateError: Three rounds in a row, or the last one, used no update.
        RoundFailedError: The updates of a round give no weights.
        NotEnoughDevicesError: The population has too few devices that are ever available.
        RunFolderError: The folder cannot be written.
    """
    plan, grid = parts.plan, _grid(parts)
    run = Run(parts.task, grid, _strategy(parts), parts.folder, parts.evaluator)
    run.resume(parts.weights)
    if run.round > plan.rounds:
        raise RunMismatchError(parts.folder.path, {"rounds": (run.round, plan.rounds)})
    config = {"run": parts.folder.settings.run, **settings_of(parts.work)}
    cadence = CheckpointCadence(plan.checkpoint_every)
    while run.round < plan.rounds:
        number = run.round + 1
        try:
            run.take_round(config, math.inf, evaluate=plan.evaluates(number), save=False, last=number == plan.rounds)
        except NoUpdateError:
            if run.round:  # what was finished since the last checkpoint is kept
                run.save()
            raise
        if number == plan.rounds or cadence.is_due(number):
            with cadence.saving():
                run.save()
        parts.tell(run.history)
    check_end(run.history)
    run.measure()
    privacy = run.privacy()
    return RunEnd(run.checkpoint(privacy), run.history, _outcomes(grid), privacy=privacy)


def _grid(parts: RunParts) -> CohortGrid | TimedGrid:
    plan, index = parts.plan, parts.index
    grid = CohortGrid(
        parts.task,
        parts.data,
        index,
        parts.engine,
        partial_sums=mean_suffices(plan.strategy),
        work=parts.work,
        device=parts.device,
    )
    if plan.devices is None or parts.population is None:
        return grid
    many = len(index) > _MANY_DEVICES
    return TimedGrid(
        grid,
        parts.population,
        work=work_of_task(parts.task, parts.data.train, epochs=parts.work.epochs),
        samples=sizes_of(index),
        policy=plan.devices.policy(),
        minimum_nodes=plan.cohort,
        listed=min(len(index), _LISTED * plan.cohort) if many else None,
    )


def _strategy(parts: RunParts) -> Strategy:
    cohort = parts.plan.cohort
    strategy = build_strategy(
        parts.plan.strategy, clients=cohort, learning_rate=parts.work.learning_rate, fraction=_NO_SHARE
    )
    sampling = strategy.strategy if isinstance(strategy, PrivateMean) else strategy
    # Every strategy of the table has it from FedAvg; one that has not samples in its own way.
    sampling.min_train_nodes = cohort  # type: ignore[attr-defined]
    return strategy


def _outcomes(grid: CohortGrid | TimedGrid) -> dict[str, int]:
    total: Counter[str] = Counter()
    for timed in grid.rounds if isinstance(grid, TimedGrid) else ():
        total.update(timed.counts)
    return dict(total)
