"""Simulated rollouts, decided by the rollout's own rules and the gate: how often each ends how, and after how much.

    python -m benchmarks.gates --runs 1000

One stage, windows of 50 labelled samples, patience for 100 of them. The model before is right on 95 % of the samples;
the new one wins 2 % of them and loses 2 % more than it is worse. Alone it is held against the floor that follows from
950 of 1,000 held-out samples; paired, against the model before as well.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hedgerow.fleet.rollout.events import DeviceReported, GateJudged, Started, Tick
from hedgerow.fleet.rollout.floors import Floor, measured_floor
from hedgerow.fleet.rollout.gates import GatePlan, judge, measurement_alpha
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.rules import advance, create_rollout
from hedgerow.fleet.rollout.stages import DeviceFacts, StagePlan
from hedgerow.fleet.rollout.state import Rollout, RolloutState
from hedgerow.window import PairedCounts, Window
from hedgerow.wire.execution import Execution, ExecutionState

__all__ = ["DROPS", "Outcome", "simulate"]

DROPS = (0.0, 0.02, 0.05, 0.12)
"""How much worse the new model is, as a share; the second is the margin itself, where both errors are largest."""
ACCURACY, HELD_OUT, WON = 0.95, 1000, 0.02
WINDOW, WINDOWS = 50, 100


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


def simulate(drop: float, *, paired: bool, runs: int, seed: int, margin: float = 0.02) -> Outcome:
    """Roll *runs* releases out that are *drop* worse.

    Args:
        drop: How much worse, as a share.
        paired: Whether the model before runs on the same samples.
        runs: How many.
        seed: Of the samples; the same seed gives the same samples paired and alone.
        margin: Accepted loss of accuracy.
    """
    plan = RolloutPlan(
        stages=(StagePlan("fleet", 1.0),), gate=GatePlan(maximum_accuracy_drop=margin), gate_timeout_s=float(WINDOWS)
    )
    floor = measured_floor(ACCURACY, HELD_OUT, margin, measurement_alpha(GatePlan()))
    rng, ends, samples = np.random.default_rng(seed), Counter[str](), []
    for _ in range(runs):
        end, taken = _roll_out(plan, floor, _windows(rng, drop, paired=paired))
        ends[end] += 1
        samples.append(taken)
    return Outcome(ends["finished"] / runs, ends["stopped"] / runs, ends["undecided"] / runs, float(np.median(samples)))


def _windows(rng: np.random.Generator, drop: float, *, paired: bool) -> Iterator[Window]:
    shares = (ACCURACY - drop - WON, WON, drop + WON, 1 - ACCURACY - WON)
    counts = rng.multinomial(WINDOW, shares, size=WINDOWS).cumsum(axis=0).tolist()
    for both, new, old, neither in counts:
        total = both + new + old + neither
        yield Window(
            release="digits@2",
            index=0,
            started_at=0.0,
            ended_at=1.0,
            samples=total,
            features={},
            labelled=total,
            correct=both + new,
            paired=PairedCounts(both + neither, new + old, both, new, old, neither) if paired else PairedCounts(),
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
        taken = window.labelled
        rollout, _ = advance(rollout, GateJudged(judge(gate, window, floor), now=float(now)))
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
    print("| worse by | evidence | finished | stopped | undecided, went back | samples (median) |")
    print("|---|---|---|---|---|---|")
    for drop in DROPS:
        for paired in (True, False):
            found = simulate(drop, paired=paired, runs=given.runs, seed=given.seed)
            name = "paired" if paired else "alone"
            shares = " | ".join(f"{share:.1%}" for share in (found.finished, found.stopped, found.undecided))
            print(f"| {100 * drop:g} points | {name} | {shares} | {found.median_samples:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
