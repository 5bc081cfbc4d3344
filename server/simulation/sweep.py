"""Many runs of one task over varied settings, in one process: every combination of values, or a search over ranges.

::

    SWEEP/
      sweep.json                                    what was found
      sweep.png, sweep.svg
      study.sqlite                                  Optuna's, of a search
      trials/learning-rate=0.1,momentum=0/seed=3/   a run folder

A run's folder is named by its settings, so that a sweep that was stopped goes on from the last checkpoint of its last
run, and that more values or trials take up what is there. Needs torch and Flower.
"""

import hashlib
import logging
import math
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hedgerow.batches import client_seed
from hedgerow.decode import encode_json
from hedgerow.durable import write_durably
from hedgerow.errors import ExtraNotInstalledError
from hedgerow.progress import Progress, Report, silent
from hedgerow.server.errors import RoundFailedError
from hedgerow.server.replies import Kind
from hedgerow.server.run_records import RoundRecord
from hedgerow.server.simulation.plan import SimulationPlan
from hedgerow.server.simulation.plots import draw_sweep
from hedgerow.server.simulation.result import SimulationResult
from hedgerow.server.simulation.simulate import Simulator
from hedgerow.server.simulation.variations import Choice, Choices, Variation, grid_of, named, plan_with

if TYPE_CHECKING:
    import optuna

__all__ = ["Combination", "SweepResult", "run_sweep"]

_LOG = logging.getLogger(__name__)
_TRIALS = 20
_REPORTS = 10
"""A search is told of so many intermediate scores of a run."""
_DIVERGENCE = {Kind.NOT_FINITE, Kind.NORM}
_WARM_UP = 5
"""No run is given up in the first part in so many of its rounds, nor one of the first so many."""


class _GivenUp(Exception):  # noqa: N818  (no error: it unwinds a run that a search gives up)
    """The score so far is below the median of the trials before."""


@dataclass(slots=True)
class Combination:
    """One combination of settings, with a run for each seed.

    Attributes:
        choices: Setting -> value, without the seed.
        score_key: What the mean score is called in metrics.
        runs: Seed -> what the run brought.
        state: ``done``, ``given up``, ``diverged``, or ``failed`` (a run in which nobody trained to the end).
    """

    choices: Choices
    score_key: str = "score"
    runs: dict[int, SimulationResult] = field(default_factory=dict)
    state: str = "done"

    @property
    def scores(self) -> list[float]:
        """The mean score of the last weights of each run that has one; there is none without target values."""
        metrics = [run.checkpoint.metrics for run in self.runs.values()]
        return [found[self.score_key] for found in metrics if self.score_key in found]

    @property
    def is_done(self) -> bool:
        """Whether all runs came to their end."""
        return bool(self.runs) and self.state == "done"

    @property
    def score(self) -> float | None:
        """The mean of :attr:`scores`; None unless all runs came to their end."""
        return statistics.fmean(self.scores) if self.is_done and self.scores else None

    @property
    def loss(self) -> float:
        """The mean loss of the last weights."""
        # A loss that is no number is in no checkpoint; nothing is worse.
        return statistics.fmean(run.checkpoint.metrics.get("loss", math.inf) for run in self.runs.values())

    @property
    def worth(self) -> float | None:
        """What a search makes great: the score, or where there is none the loss below zero; None unless it is done."""
        return (self.score if self.score is not None else -self.loss) if self.is_done else None

    def merit(self) -> tuple[float, float]:
        """Return what trials are ranked by: the score, and among equals the loss."""
        if not self.is_done:
            return -1.0, 0.0
        return self.score or 0.0, -self.loss

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "settings": dict(self.choices),
            "state": self.state,
            self.score_key: self.score,
            f"{self.score_key}_sd": statistics.stdev(self.scores) if len(self.scores) > 1 else None,
            "seconds": round(sum(run.seconds for run in self.runs.values()), 3),
            "runs": [
                {"seed": seed, "folder": str(run.folder), "metrics": dict(run.checkpoint.metrics)}
                for seed, run in sorted(self.runs.items())
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        folder: The sweep's.
        varied: Names of the settings, without the seed.
        trials: The best first.
        seconds: Wall-clock time of this call.
        plots: The drawn files.
    """

    folder: Path
    varied: tuple[str, ...]
    trials: tuple[Combination, ...]
    seconds: float
    plots: tuple[Path, ...] = ()

    @property
    def best(self) -> Combination | None:
        """The trial with the highest score."""
        return next((trial for trial in self.trials if trial.is_done), None)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "sweep": str(self.folder),
            "varied": list(self.varied),
            "trials": [trial.to_record() for trial in self.trials],
            "best": None if self.best is None else self.best.to_record(),
            "seconds": round(self.seconds, 3),
            "plots": [str(path) for path in self.plots],
        }


def run_sweep(
    simulator: Simulator,
    plan: SimulationPlan,
    variations: Sequence[Variation],
    folder: Path,
    *,
    trials: int | None = None,
    prune: bool = True,
    fresh: bool = False,
    report: Report = silent,
) -> SweepResult:
    """Run *plan* once for each trial and seed, and rank the trials by the score of the last weights.

    Lists alone are tried in every combination. With a range, or with *trials* given, Optuna's tree-structured Parzen
    estimator (Bergstra et al. 2011) chooses, and runs that fall below the median of those before are given up.

    Args:
        simulator: Keeps data and engine from run to run.
        plan: What the runs have in common.
        variations: What differs. Seeds are no setting to choose: each trial is run with all of them.
        folder: The sweep's; what is there is taken up.
        trials: So many a search tries; None: 20.
        prune: Give up runs of a search.
        fresh: Forget the sweep that is in the folder, with its runs.
        report: Told after each round, and after each trial.

    Raises:
        ExtraNotInstalledError: A search needs Optuna.
        HedgerowError: As :meth:`Simulator.run` says; a run that diverges is a result and no error.
    """
    began = time.perf_counter()
    seeds = next((v.values for v in variations if v.name == "seed"), (plan.seed,))
    chosen = [variation for variation in variations if variation.name != "seed"]
    if fresh:
        _forget(folder)
    sweep = _Sweep(simulator, plan, folder, [int(seed) for seed in seeds], report=report)
    if trials is None and all(variation.span is None for variation in chosen):
        found = sweep.try_all(list(grid_of(chosen)))
    else:
        found = sweep.search(chosen, trials or _TRIALS, prune=prune)
    ranked = sorted(found, key=Combination.merit, reverse=True)
    names = tuple(variation.name for variation in chosen)
    curves = [curve for trial in ranked for curve in _curves(trial)]
    images = draw_sweep(curves, _scores(ranked, names), simulator.outputs.score_name)
    paths = []
    for kind, content in images.items():
        paths.append(folder / f"sweep.{kind}")
        write_durably(paths[-1], content)
    result = SweepResult(
        folder=folder,
        varied=names,
        trials=tuple(ranked),
        seconds=time.perf_counter() - began,
        plots=tuple(paths),
    )
    write_durably(folder / "sweep.json", encode_json(result.to_record()))
    return result


class _Sweep:
    """Runs trials, one run after the other."""

    def __init__(
        self, simulator: Simulator, plan: SimulationPlan, folder: Path, seeds: list[int], *, report: Report
    ) -> None:
        self._simulator, self._plan, self._folder = simulator, plan, folder
        self._seeds, self._report = seeds, report
        self._score_key = simulator.outputs.score_key
        self._best: Combination | None = None

    def try_all(self, grid: Sequence[Choices]) -> list[Combination]:
        """Try every combination; seed by seed, because clients of another seed have other samples."""
        trials = [Combination(choices, self._score_key) for choices in grid]
        for place, seed in enumerate(self._seeds):
            for number, trial in enumerate(trials):
                self._run(trial, seed)
                self._tell(place * len(trials) + number + 1, len(self._seeds) * len(trials), trial)
        return trials

    def search(self, variations: Sequence[Variation], count: int, *, prune: bool) -> list[Combination]:
        """Let Optuna choose *count* trials, those that are finished included."""
        study = _opened_study(self._folder, self._plan, variations, self._seeds, prune=prune)
        found: dict[str, Combination] = {}
        done = [old for old in study.get_trials(deepcopy=False) if "state" in old.user_attrs]
        for old in done[:count]:
            trial = Combination(dict(old.user_attrs["choices"]), self._score_key, state=old.user_attrs["state"])
            found[named(trial.choices)] = trial
        for seed in self._seeds:
            for trial in found.values():
                if trial.state == "done":  # its runs are there, and are read rather than run again
                    self._run(trial, seed)
        for number in range(len(done), count):
            asked = _asked(study, self._plan.seed, number)
            trial = Combination(_suggested(asked, variations), self._score_key)
            self._run_seeds(trial, asked if prune else None)
            _answer(study, asked, trial)
            found[named(trial.choices)] = trial
            self._tell(number + 1, count, trial)
        return list(found.values())

    def _run_seeds(self, trial: Combination, asked: "optuna.Trial | None") -> None:
        for place, seed in enumerate(self._seeds):
            watch = None if asked is None else _watcher(asked, self._plan.rounds, place, trial)
            self._run(trial, seed, watch)
            if trial.state != "done":
                return

    def _run(self, trial: Combination, seed: int, watch: Callable[[RoundRecord], None] | None = None) -> None:
        plan = plan_with(self._plan, {**trial.choices, "seed": seed})
        folder = self._folder / "trials" / named(trial.choices) / f"seed={seed}"
        try:
            trial.runs[seed] = self._simulator.run(plan, folder, report=self._report, watch=watch, plots=False)
        except _GivenUp:
            trial.state = "given up"
        except RoundFailedError as exc:
            _LOG.info("%s with seed %d: %s", named(trial.choices), seed, exc)
            # What diverges is refused for it; any other reason is none of the settings' merit.
            trial.state = "diverged" if set(exc.kinds) <= _DIVERGENCE else "failed"

    def _tell(self, done: int, total: int, trial: Combination) -> None:
        if len(trial.runs) == len(self._seeds) and (self._best is None or trial.merit() > self._best.merit()):
            self._best = trial
        note = "" if self._best is None else f"best {_shown(self._best)}: {named(self._best.choices)}"
        self._report(Progress("sweep", done, total, note))


def _forget(folder: Path) -> None:
    shutil.rmtree(folder / "trials", ignore_errors=True)
    for path in (*folder.glob("study.sqlite*"), *folder.glob("sweep.*")):
        path.unlink(missing_ok=True)


def _shown(trial: Combination) -> str:
    return f"loss {trial.loss:.4g}" if trial.score is None else f"{trial.score:.3f}"


def _watcher(asked: "optuna.Trial", rounds: int, place: int, trial: Combination) -> Callable[[RoundRecord], None]:
    """Return what tells the search how a run is going, and ends it when it says so."""
    every = max(1, rounds // _REPORTS)
    before = trial.scores or [-run.checkpoint.metrics.get("loss", math.inf) for run in trial.runs.values()]
    reported = 0

    def watch(record: RoundRecord) -> None:
        nonlocal reported
        worth = record.score if record.score is not None else None if record.loss is None else -record.loss
        if worth is None or record.round // every <= reported or record.round >= rounds:
            return
        reported = record.round // every
        asked.report(statistics.fmean([*before, worth]), place * rounds + reported * every)
        if asked.should_prune():
            raise _GivenUp

    return watch


def _opened_study(
    folder: Path, plan: SimulationPlan, variations: Sequence[Variation], seeds: list[int], *, prune: bool
) -> "optuna.Study":
    """Return the folder's study of this very search; another search in the same folder has a study of its own."""
    try:
        import optuna
    except ModuleNotFoundError as exc:
        raise ExtraNotInstalledError("a search over ranges of settings", "simulate", exc.name) from exc
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.sqlite"
    identity = hashlib.sha256(repr((plan, variations, seeds)).encode()).hexdigest()[:16]
    warm_up = plan.rounds // _WARM_UP
    pruner = optuna.pruners.MedianPruner(_WARM_UP, warm_up) if prune else optuna.pruners.NopPruner()
    study = optuna.create_study(
        storage=_storage(path), study_name=identity, direction="maximize", pruner=pruner, load_if_exists=True
    )
    for old in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        # The process was stopped in it. The same settings are tried next, and their runs go on where they were.
        study.tell(old.number, state=optuna.trial.TrialState.FAIL)
        if old.params:
            study.enqueue_trial(old.params)
    return study


def _storage(path: Path) -> "optuna.storages.RDBStorage":
    import optuna
    import sqlalchemy

    storage = optuna.storages.RDBStorage(sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string())

    def relax(connection: Any, _record: Any) -> None:
        # No sync for each of very many small commits: a power cut costs the last ones, and the runs have their folders.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    sqlalchemy.event.listen(storage.engine, "connect", relax)
    storage.engine.dispose()  # a connection from before the line above
    return storage


def _asked(study: "optuna.Study", seed: int, number: int) -> "optuna.Trial":
    import optuna

    # A sampler for each trial: what it draws depends on the trials before and not on when the process was started.
    study.sampler = optuna.samplers.TPESampler(seed=client_seed(seed, number, "sweep") % 2**32)
    return study.ask()


def _suggested(asked: "optuna.Trial", variations: Sequence[Variation]) -> dict[str, Choice]:
    choices: dict[str, Choice] = {}
    for variation in variations:
        name, span = variation.name, variation.span
        if span is None:
            listed: Any = asked.suggest_categorical(name, variation.values)
            choices[name] = listed
        elif isinstance(span.low, int):
            choices[name] = asked.suggest_int(name, span.low, int(span.high), log=span.logarithmic)
        else:
            # As it is shown: six digits, so that a folder's name says it all.
            choices[name] = float(f"{asked.suggest_float(name, span.low, span.high, log=span.logarithmic):.6g}")
    return choices


def _answer(study: "optuna.Study", asked: "optuna.Trial", trial: Combination) -> None:
    import optuna

    asked.set_user_attr("choices", dict(trial.choices))
    asked.set_user_attr("state", trial.state)
    if trial.worth is None or not math.isfinite(trial.worth):
        # Also when it diverged: the search then keeps away from there, which it would not for a failure.
        study.tell(asked, state=optuna.trial.TrialState.PRUNED)
    else:
        study.tell(asked, trial.worth)


def _curves(trial: Combination) -> list[tuple[str, Sequence[RoundRecord]]]:
    return [(named(trial.choices), run.history) for run in trial.runs.values()]


def _scores(trials: Sequence[Combination], names: Sequence[str]) -> list[tuple[str, list[float], list[float]]]:
    """Return the scores of the trials against each setting whose values are numbers."""
    finished = [trial for trial in trials if trial.score is not None]
    scores = []
    for name in names:
        values = [trial.choices[name] for trial in finished]
        if values and all(isinstance(value, int | float) for value in values):
            scores.append((name, [float(value) for value in values], [trial.score or 0.0 for trial in finished]))
    return scores
