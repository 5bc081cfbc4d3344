"""The plot of the throughput benchmark: clients a second against cohorts, and FLOP/s under the roofline."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["best_points", "draw", "roof"]

_MARKERS = {"vectorized": "o", "workers": "s", "sequential": "x"}
_LINES = {"vectorized": "-", "workers": "--", "sequential": ":"}


def roof(flops_per_byte: float, flops_per_s: float, bytes_per_s: float) -> float:
    """Return the most FLOP/s at this intensity (Williams, Waterman and Patterson 2009, the roofline model)."""
    return min(flops_per_s, flops_per_byte * bytes_per_s)


def best_points(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return each engine's fastest point of each network."""
    best: dict[tuple[str, str], Mapping[str, Any]] = {}
    for point in points:
        key = (point["engine"], point["network"])
        if key not in best or point["flops_per_s"] > best[key]["flops_per_s"]:
            best[key] = point
    return list(best.values())


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw *result*, as ``benchmarks.simulation_roofline`` prints it, into *path*."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "hedgerow"
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    colors = {network: f"C{number}" for number, network in enumerate(result["costs"])}
    _draw_cohorts(left, result["points"], colors)
    _draw_roofline(right, result, colors)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _draw_cohorts(axes: Any, points: Sequence[Mapping[str, Any]], colors: Mapping[str, str]) -> None:
    for network, color in colors.items():
        for engine, style in _LINES.items():
            line = [point for point in points if (point["engine"], point["network"]) == (engine, network)]
            rates = [point["clients_per_s"] for point in line]
            label = network if engine == "vectorized" else None
            axes.plot([point["cohort"] for point in line], rates, style, color=color, marker=".", label=label)
    axes.set(xscale="log", yscale="log", xlabel="clients in the cohort", ylabel="clients/s (5 steps of 10 samples)")
    axes.set_title("solid: vectorized, dashed: workers, dotted: sequential", fontsize="small")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")


def _draw_roofline(axes: Any, result: Mapping[str, Any], colors: Mapping[str, str]) -> None:
    intensities = np.logspace(-1, 2.5, 100)
    for machine, style in zip(result["limits"], ("--", "-"), strict=True):
        peak = machine["flops_per_s"]
        for key, color, place in (("bytes_per_s", "black", "memory"), ("cache_bytes_per_s", "grey", "cache")):
            heights = [roof(intensity, peak, machine[key]) / 1e9 for intensity in intensities]
            label = f"{place}, {machine['threads']:.0f} thread{'s' if machine['threads'] > 1 else ''}"
            axes.plot(intensities, heights, style, color=color, linewidth=1, label=label)
    for point in best_points(result["points"]):
        axes.plot(
            point["flops_per_byte"],
            point["flops_per_s"] / 1e9,
            _MARKERS[point["engine"]],
            color=colors[point["network"]],
        )
    for engine, marker in _MARKERS.items():
        axes.plot([], [], marker, color="black", label=engine)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte of a plain step", ylabel="GFLOP/s")
    axes.set_title("roofline; each engine's fastest cohort, colours as on the left", fontsize="small")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
