"""What the measured rows say: how many times faster, and whether each bar is met. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["BARS", "OURS", "Row", "bars", "measured_row", "missing_row", "ratios"]

Row = Mapping[str, Any]

OURS = "hedgerow"
"""The system whose rows are compared with all others: the engine that is chosen by itself."""

BARS: Mapping[str, tuple[str, float]] = {
    "overhead_ms": ("<=", 3.0),
    "lr_mnist_s": ("<=", 3.0),
    "cifar10_over_flower_ray": (">=", 2.0),
    "cifar10_over_pfl": (">=", 1.0),
    "million_startup_s": ("<=", 5.0),
    "million_peak_rss_bytes": ("<=", 4e9),
    "million_slower_ms": ("<=", 50.0),
    "cuda_cifar10_over_flower_ray": (">=", 30.0),
    "cuda_cifar10_over_pfl": (">=", 4.0),
}
"""Name -> how the value is compared, and with what."""


def measured_row(work: str, system: str, cohort: int, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the result.

    Args:
        work: Its name.
        system: What ran it.
        cohort: Clients a round.
        figures: What the system's process reported: ``rounds_s`` and more.
    """
    rounds_s = sorted(figures["rounds_s"])
    seconds = sum(rounds_s)
    middle = len(rounds_s) // 2
    median_s = rounds_s[middle] if len(rounds_s) % 2 else (rounds_s[middle - 1] + rounds_s[middle]) / 2
    others = {name: value for name, value in figures.items() if name not in {"rounds_s", "accuracy"}}
    return {
        "work": work,
        "system": system,
        "seconds": round(seconds, 4),
        "clients_per_s": round(cohort * len(rounds_s) / seconds, 1),
        "accuracy": figures["accuracy"],
        "rounds": len(rounds_s),
        "round_ms": round(median_s * 1000, 3),
        "fastest_round_ms": round(rounds_s[0] * 1000, 3),
        **{name: round(value, 3) if isinstance(value, float) else value for name, value in others.items()},
    }


def missing_row(work: str, system: str, reason: str) -> dict[str, Any]:
    """Return a row that says why there is no measurement."""
    empty = dict.fromkeys(("seconds", "clients_per_s", "accuracy"))
    return {"work": work, "system": system, **empty, "not_run": reason}


def _round_ms(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    return {(row["work"], row["system"]): row["round_ms"] for row in rows if "not_run" not in row}


def ratios(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return, for each work, how many times longer than ours each other system takes for a round (medians).

    A system on a GPU is compared with ours on a GPU.
    """
    medians = _round_ms(rows)
    found: dict[str, dict[str, float]] = {}
    for (work, system), taken in medians.items():
        ours = f"{OURS} cuda" if system.endswith(" cuda") else OURS
        if system != ours and (work, ours) in medians:
            found.setdefault(work, {})[system] = round(taken / medians[work, ours], 2)
    return found


def bars(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return each bar's value, its limit, and whether it is met; the value is None where its rows were not run."""
    values = _values(rows)
    result = {}
    for name, (relation, limit) in BARS.items():
        value = values.get(name)
        met = None if value is None else value <= limit if relation == "<=" else value >= limit
        result[name] = {"value": value, "bar": f"{relation} {limit:g}", "met": met}
    return result


def _values(rows: Sequence[Row]) -> dict[str, float]:
    by_name = {(row["work"], row["system"]): row for row in rows if "not_run" not in row}
    times = ratios(rows)
    values: dict[str, float] = {}
    if overhead := by_name.get(("overhead", OURS)):
        values["overhead_ms"] = overhead["round_ms"]
    if mnist := by_name.get(("lr-mnist", OURS)):
        values["lr_mnist_s"] = mnist["seconds"]
    cifar = times.get("cifar10", {})
    for suffix, prefix in (("", ""), (" cuda", "cuda_")):
        if f"flower-ray{suffix}" in cifar:
            values[f"{prefix}cifar10_over_flower_ray"] = cifar[f"flower-ray{suffix}"]
        # The fastest way to run pfl counts.
        if pfl := [cifar[name] for name in cifar if name.startswith("pfl") and name.endswith(" cuda") == bool(suffix)]:
            values[f"{prefix}cifar10_over_pfl"] = min(pfl)
    if million := by_name.get(("million", OURS)):
        values["million_startup_s"] = million["grid_made_s"]
        values["million_peak_rss_bytes"] = million["peak_rss_bytes"]
        if thousand := by_name.get(("thousand", OURS)):
            values["million_slower_ms"] = round(million["round_ms"] - thousand["round_ms"], 3)
    return values
