"""The report's plots, as SVG text. Drawn without a display and without global state."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hedgerow.fleet.demo.story import Moment, ReleaseRunning, RoundPoint, WindowPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_drift", "plot_rollouts", "plot_rounds"]

_INK, _CALM, _MOVED, _GRID = "#22313a", "#4a8f6d", "#c8553d", "#d8dee2"
_RELEASES = ("#9db4c0", "#4a8f6d", "#c8553d", "#e0a458", "#6b5b95")


def _axes(height: float) -> "tuple[Figure, Any]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK)
    return figure, axes


def _svg(figure: "Figure", title: str) -> str:
    import matplotlib as mpl

    text = io.StringIO()
    # Fixed ids and no date: the same story draws the same bytes.
    with mpl.rc_context({"svg.hashsalt": "hedgerow", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Title": title})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _mark(axes: Any, moments: Sequence[Moment]) -> None:
    for moment in moments:
        axes.axvline(moment.at_s, color=_INK, linewidth=0.8, linestyle=":")
        axes.annotate(
            moment.what, (moment.at_s, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -2),
            textcoords="offset points", rotation=90, va="top", fontsize=7, color=_INK,
        )  # fmt: skip


def plot_rounds(rounds: Sequence[RoundPoint]) -> str:
    """Draw held-out accuracy against the round, a line for each training run."""
    figure, axes = _axes(3.0)
    for color, run in zip((_CALM, _MOVED, _INK), dict.fromkeys(point.run for point in rounds), strict=False):
        points = [point for point in rounds if point.run == run]
        axes.plot([p.round for p in points], [p.accuracy for p in points], color=color, marker=".", label=run)
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy on held-out data")
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, loc="lower right")
    return _svg(figure, "Accuracy per round")


def plot_drift(windows: Sequence[WindowPoint], moments: Sequence[Moment], threshold_js_bits: float) -> str:
    """Draw, above, each window's accuracy; below, its largest drift effect. Red: the device's world moves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
    for device in dict.fromkeys(point.device for point in windows):
        points = [point for point in windows if point.device == device]
        color = _MOVED if points[0].meets_drift else _CALM
        labelled = [point for point in points if point.accuracy is not None]
        upper.plot([p.at_s for p in labelled], [p.accuracy for p in labelled], color=color, marker=".", linewidth=0.8)
        lower.plot([p.at_s for p in points], [p.js_bits for p in points], color=color, marker=".", linewidth=0.8)
    lower.axhline(threshold_js_bits, color=_INK, linewidth=0.8, linestyle="--")
    lower.annotate(
        "smallest effect that can raise an alert",
        (0.01, threshold_js_bits),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=7,
        color=_INK,
    )
    upper.set_ylabel("accuracy of the window")
    upper.set_ylim(0, 1.02)
    lower.set_ylabel("Jensen-Shannon divergence\nfrom the reference, bits")
    lower.set_xlabel("seconds since the start")
    _mark(lower, moments)
    _mark(upper, [Moment(moment.at_s, "") for moment in moments])
    return _svg(figure, "Accuracy and drift per window")


def plot_rollouts(running: Sequence[ReleaseRunning], moments: Sequence[Moment], end_s: float) -> str:
    """Draw which release each device ran when, a row for each device."""
    devices = sorted(dict.fromkeys(entry.device for entry in running))
    figure, axes = _axes(1.2 + 0.3 * len(devices))
    releases = [name for name in dict.fromkeys(entry.release for entry in running) if name is not None]
    colors = dict(zip(releases, _RELEASES * len(releases), strict=False))
    named: set[str] = set()
    for row, device in enumerate(devices):
        entries = [entry for entry in running if entry.device == device]
        for entry, following in zip(entries, [*entries[1:], None], strict=True):
            if entry.release is None:
                continue
            width = (following.at_s if following else end_s) - entry.at_s
            label = None if entry.release in named else entry.release
            named.add(entry.release)
            axes.barh(row, width, left=entry.at_s, height=0.6, color=colors[entry.release], label=label)
    axes.set_yticks(range(len(devices)), devices)
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the start")
    _mark(axes, moments)
    if named:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return _svg(figure, "What each device ran")
