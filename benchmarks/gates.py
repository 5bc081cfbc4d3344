"""Simulated rollouts, decided by the rollout's own rules and the gate: how often each ends how, and after how much.

    python -m benchmarks.gates --runs 1000

One stage, windows of 50 labelled samples, patience for 100 of them. The model before is right on 95 % of the samples;
the new one wins 2 % of them and loses 2 % more than it is worse. Alone it is held against the floor that follows from
950 of 1,000 held-out samples; paired, against the model before as well. Then the same for scores between 0 and 1, and
for 0 and 1 once more, against the score of the model before less the margin as if that were known: a new model that is
worse by the margin lies exactly at each limit. Paired it lies at both; "low floor" leaves the comparison alone.

The gate is asked after every window. The bounds in its sentences are left out: they decide nothing where there are
scores, and take six sevenths of the time. ``tests/benchmarks/test_gates.py`` holds rollouts with and without together.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from hedgerow.fleet.rollout.confidence import Interval
from hedgerow.fleet.rollout.events import DeviceReported, GateJudged, Started, Tick
from hedgerow.fleet.rollout.floors import Floor, measured_floor
from hedgerow.fleet.rollout.gates import GatePlan, judge, measurement_alpha
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.rules import advance, create_rollout
from hedgerow.fleet.rollout.stages import DeviceFacts, StagePlan
from hedgerow.fleet.rollout.state import Rollout, RolloutState
from hedgerow.outputs import Classes, Outputs
from hedgerow.score_counts import (
    CHANGE_STEPS,
    NO_PAIRED_SCORES,
    NO_SCORES,
    SCORE_STEPS,
    SCORE_UNIT,
    PairedScores,
    ScoreCounts,
    fixed_point,
    spread,
)
from hedgerow.window import Window
from hedgerow.wire.execution import Execution, ExecutionState

__all__ = ["DROPS", "RIGHT_OR_WRONG", "SCORES", "Outcome", "ScoreSource", "simulate"]

MARGIN = 0.02
DROPS = (0.0, MARGIN, 0.05, 0.12)
"""How much worse the new model is, as a share; the second is the margin itself, where both errors are largest."""
ACCURACY, HELD_OUT, WON = 0.95, 1000, 0.02
WINDOW, WINDOWS = 50, 100


OUTPUTS = Outputs.of(Classes(("no", "yes")))
RIGHT_OR_WRONG = "right or wrong"


@dataclass(frozen=True, slots=True)
class ScoreSource:
    """Where scores of the model before come from.

    Attributes:
        mean: Their exact mean.
        draw: Draws as many as asked, ``float64[n]``.
        all_or_nothing: Whether a worse model loses whole samples; else each of its scores shrinks.
    """

    mean: float
    draw: Callable[[np.random.Generator, int], NDArray[np.float64]]
    all_or_nothing: bool = False

    def lowered(self, rng: np.random.Generator, scores: NDArray[np.float64], drop: float) -> NDArray[np.float64]:
        """Return scores that are worth *drop* less in the mean."""
        if self.all_or_nothing:
            return scores * (rng.random(len(scores)) >= drop / self.mean)
        return scores * (1 - drop / self.mean)


SCORES: Mapping[str, ScoreSource] = {
    "spread": ScoreSource(0.8, lambda rng, n: rng.beta(4, 1, n)),
    "spiky": ScoreSource(0.85, lambda rng, n: 0.85 + 0.002 * rng.uniform(-1, 1, n)),
    "both sides of a point": ScoreSource(0.8325, lambda rng, n: 0.8325 + 0.01 * rng.choice([-1.0, 1.0], n)),
    "mostly perfect": ScoreSource(0.93, lambda rng, n: np.where(rng.random(n) < 0.1, 0.3, 1.0)),
    "0 or 1": ScoreSource(ACCURACY, lambda rng, n: (rng.random(n) < ACCURACY) * 1.0, all_or_nothing=True),
}
"""Scores against a floor that is known. Two points below 0.8325 lies 13/16, a point of the grid that counts them."""
LOW_FLOOR = 0.1
"""How far below the score of the model before a floor lies that decides nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the rollouts of one setting ended.

    Attributes:
        finished, stopped, undecided: Shares of the rollouts; together 1.
        median_samples: Labelled samples until the end of a rollout.
    """

    finished: float
    stopped: float
    undecided: float
    median_samples: float


def simulate(
    drop: float,
    *,
    paired: bool,
    runs: int,
    seed: int,
    margin: float = MARGIN,
    scores: str = RIGHT_OR_WRONG,
    floor_drop: float | None = None,
    with_bounds: bool = False,
) -> Outcome:
    """Roll *runs* releases out that are *drop* worse.

    Args:
        drop: How much worse, as a share.
        paired: Whether the model before runs on the same samples.
        runs: How many.
        seed: Of the samples; the same seed gives the same samples paired and alone.
        margin: Accepted loss of the score.
        scores: One of :data:`SCORES`. Those that are not right or wrong are held against the score of the model before,
            less *floor_drop*, as if that were known.
        floor_drop: None: the margin.
        with_bounds: Whether the gate's sentences have their bounds, as in a fleet.
    """
    plan = RolloutPlan(
        stages=(StagePlan("fleet", 1.0),), gate=GatePlan(maximum_accuracy_drop=margin), gate_timeout_s=float(WINDOWS)
    )
    if scores == RIGHT_OR_WRONG:
        floor = measured_floor(ACCURACY, HELD_OUT, margin, measurement_alpha(GatePlan()))
    else:
        below = margin if floor_drop is None else floor_drop
        floor = Floor(SCORES[scores].mean - below, "below the model before")
    rng, ends, samples = np.random.default_rng(seed), Counter[str](), []
    left_out = patch("hedgerow.fleet.rollout.gates.confidence_sequence", lambda *_: Interval(0.0, 1.0))
    with nullcontext() if with_bounds else left_out:
        for _ in range(runs):
            windows = (
                _windows(rng, drop, paired=paired)
                if scores == RIGHT_OR_WRONG
                else _score_windows(rng, SCORES[scores], drop, paired=paired)
            )
            end, taken = _roll_out(plan, floor, windows)
            ends[end] += 1
            samples.append(taken)
    return Outcome(ends["finished"] / runs, ends["stopped"] / runs, ends["undecided"] / runs, float(np.median(samples)))


def _windows(rng: np.random.Generator, drop: float, *, paired: bool) -> Iterator[Window]:
    shares = (ACCURACY - drop - WON, WON, drop + WON, 1 - ACCURACY - WON)
    counts = rng.multinomial(WINDOW, shares, size=WINDOWS).cumsum(axis=0).tolist()
    for both, new, old, neither in counts:
        comparison = PairedScores(
            ScoreCounts.at({0.0: new + old, 1.0: both + neither}),
            ScoreCounts.at({0.0: old, 0.5: both + neither, 1.0: new}, CHANGE_STEPS),
        )
        yield _window(ScoreCounts.at({0.0: old + neither, 1.0: both + new}), comparison if paired else NO_PAIRED_SCORES)


def _score_windows(rng: np.random.Generator, source: ScoreSource, drop: float, *, paired: bool) -> Iterator[Window]:
    old = source.draw(rng, WINDOW * WINDOWS)
    # Half of the samples are as hard for the new model as for the old one.
    drawn = np.where(rng.random(len(old)) < 0.5, old, source.draw(rng, len(old)))
    new = source.lowered(rng, drawn, drop)
    scores, comparison = NO_SCORES, NO_PAIRED_SCORES
    one = round(1 / SCORE_UNIT)
    for begin in range(0, len(old), WINDOW):
        of_new, of_old = (fixed_point(part[begin : begin + WINDOW]) for part in (new, old))
        scores += ScoreCounts.of(spread(of_new, SCORE_STEPS))
        if paired:
            agreement, change = one - abs(of_new - of_old), of_new - of_old + one
            comparison += PairedScores(
                ScoreCounts.of(spread(agreement, SCORE_STEPS)), ScoreCounts.of(spread(change, CHANGE_STEPS))
            )
        yield _window(scores, comparison)


def _window(scores: ScoreCounts, paired: PairedScores) -> Window:
    return Window(
        release="digits@2",
        index=0,
        started_at=0.0,
        ended_at=1.0,
        samples=scores.samples,
        features={},
        scores=scores,
        paired=paired,
    )


def _roll_out(plan: RolloutPlan, floor: Floor, windows: Iterator[Window]) -> tuple[str, int]:
    """Return how a rollout to one device ends, and after how many labelled samples."""
    rollout: Rollout = create_rollout("r1", "digits@2", plan, [DeviceFacts("d", "pi", "digits@1")], 0.0)
    rollout, _ = advance(rollout, Started(now=0.0))
    installed = Execution(rollout="r1", attempt=1, state=ExecutionState.SUCCEEDED)
    rollout, _ = advance(rollout, DeviceReported("d", installed, 0.0))
    gate = plan.gate or GatePlan()
    taken = 0
    for now, window in enumerate(windows):
        taken = window.scores.samples
        rollout, _ = advance(rollout, GateJudged(judge(gate, window, floor, OUTPUTS), now=float(now)))
        if rollout.state.is_terminal:
            break
    rollout, _ = advance(rollout, Tick(now=float(WINDOWS)))
    if rollout.state is RolloutState.FINISHED:
        return "finished", taken
    return ("undecided" if "could not decide" in rollout.reason else "stopped"), taken


def main() -> None:
    """Print the table of docs/statistics.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("| scores | worse by | evidence | finished | stopped | undecided, went back | samples (median) |")
    print("|---|---|---|---|---|---|---|")
    rows = [
        *product((RIGHT_OR_WRONG, *SCORES), DROPS, ("paired", "alone")),
        *product(SCORES, (MARGIN,), ("paired, low floor",)),
    ]
    for scores, drop, name in rows:
        found = simulate(
            drop,
            paired=name != "alone",
            runs=given.runs,
            seed=given.seed,
            scores=scores,
            floor_drop=LOW_FLOOR if name == "paired, low floor" else None,
        )
        shares = " | ".join(f"{share:.1%}" for share in (found.finished, found.stopped, found.undecided))
        print(f"| {scores} | {100 * drop:g} points | {name} | {shares} | {found.median_samples:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
