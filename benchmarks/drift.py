"""Simulated inputs of every kind, counted and tested as a fleet does it: how often drift is said where none is.

    python -m benchmarks.drift --windows 2000

Each window is a new draw of the distribution that the reference was drawn from, and so is each reference.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hedgerow.fleet.drift.alerts import DriftState, observe
from hedgerow.fleet.drift.findings import DriftPlan, comparisons_of, test_window
from hedgerow.reference import Reference, build_reference
from hedgerow.window import FeatureCounts, Window

__all__ = ["LEVELS", "WORLDS", "FalseAlarms", "alerts_without_change", "counted", "simulate"]

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def _kept(rng: np.random.Generator, values: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    return np.where(rng.random(len(values)) < share, values, np.nan)


WORLDS: Mapping[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy tails": lambda rng, n: rng.standard_cauchy(size=n),
    "rain gauge, 97 % zeros": lambda rng, n: np.where(rng.random(n) < 0.97, 0.0, rng.exponential(size=n)),
    "constant": lambda _rng, n: np.full(n, 3.0),
    "normal, a tenth missing": lambda rng, n: _kept(rng, rng.normal(size=n), 0.9),
    "flag, 5 %": lambda rng, n: (rng.random(n) < 0.05).astype(np.float64),
    "count": lambda rng, n: rng.poisson(3.0, size=n).astype(np.float64),
    "category of 200": lambda rng, n: np.minimum(rng.zipf(1.5, size=n), 200).astype(np.float64),
}
"""Kind of input -> what draws values of it; those of :data:`WHOLE` are counted by value."""
WHOLE = frozenset({"flag, 5 %", "count", "category of 200"})
LEVELS = (0.05, 0.01)


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """How often an unchanged world looked changed.

    Attributes:
        below: Level -> share of the windows of which the feature's p-value was below it.
        found: Windows with a finding that counts as drifted, at the first look of one feature alone.
    """

    below: Mapping[float, float]
    found: int


def counted(reference: Reference, columns: Mapping[str, NDArray[np.float64]], index: int = 0) -> Window:
    """Return a window of the values of a reference's features."""
    features = {
        f.name: FeatureCounts(tuple(f.bin(columns[f.name]).tolist()), int(np.isnan(columns[f.name]).sum()))
        for f in reference.features
    }
    samples = len(next(iter(columns.values())))
    return Window(release="simulated@1", index=index, started_at=0.0, ended_at=1.0, samples=samples, features=features)


def simulate(world: str, *, samples: int, reference_samples: int, windows: int, seed: int) -> FalseAlarms:
    """Test windows of a world in which nothing changes.

    Args:
        world: One of :data:`WORLDS`.
        samples: In a window.
        reference_samples: In the reference, which is drawn anew for each window.
        windows: How many.
        seed: Of all draws.
    """
    rng, plan, draw = np.random.default_rng(seed), DriftPlan(), WORLDS[world]
    below, found = dict.fromkeys(LEVELS, 0), 0
    for _ in range(windows):
        reference = build_reference(
            {}, {}, inputs={"x": draw(rng, reference_samples)}, whole={"x"} if world in WHOLE else ()
        )
        window = counted(reference, {"x": draw(rng, samples)})
        findings = test_window(
            reference, window, plan, slice="device:a", look=1, comparisons=comparisons_of(reference), rng=rng
        )
        p_value = min((finding.p_value for finding in findings if finding.feature == "x"), default=1.0)
        for level in LEVELS:
            below[level] += p_value < level
        found += any(finding.drifted for finding in findings)
    return FalseAlarms({level: times / windows for level, times in below.items()}, found)


def alerts_without_change(*, runs: int, windows: int, samples: int, reference_samples: int, seed: int) -> int:
    """Return how many of so many devices, each with one input of every kind, raise an alert in a world as it was."""
    rng, raised = np.random.default_rng(seed), 0
    for _ in range(runs):
        columns = {world: draw(rng, reference_samples) for world, draw in WORLDS.items()}
        reference, state = build_reference({}, {}, inputs=columns, whole=WHOLE), DriftState("simulated@1")
        for index in range(windows):
            window = counted(reference, {world: draw(rng, samples) for world, draw in WORLDS.items()}, index)
            state, alerts = observe(state, reference, "a", "target", window, DriftPlan(), rng)
            raised += bool(alerts)
    return raised


def main() -> None:
    """Print the table of docs/statistics.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| world | samples in the window, in the reference | at 0.05 | at 0.01 | drifted |")
    print("|---|---|---|---|---|")
    for world in WORLDS:
        for samples, known in ((50, 1000), (500, 5000), (5000, 5000)):
            found = simulate(
                world, samples=samples, reference_samples=known, windows=options.windows, seed=options.seed
            )
            shares = " | ".join(f"{found.below[level] / level:.2f}" for level in LEVELS)
            print(f"| {world} | {samples:,}, {known:,} | {shares} | {found.found} |", flush=True)
    for samples in (50, 500):
        raised = alerts_without_change(runs=40, windows=50, samples=samples, reference_samples=5000, seed=options.seed)
        print(f"alerts of 40 devices over 50 windows of {samples} samples: {raised}", flush=True)


if __name__ == "__main__":
    main()
