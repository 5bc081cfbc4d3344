"""Plots of simulations, drawn without a display and without global state. Matplotlib is imported on use."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hedgerow.server.run_records import RoundRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "Curve", "draw_curves", "draw_sweep"]

FORMATS = ("png", "svg")
_INK, _HELD_OUT, _TRAIN, _GRID = "#22313a", "#4a8f6d", "#9db4c0", "#d8dee2"
_UNITS = (
    (2 * 86400.0, 86400.0, "days"),
    (2 * 3600.0, 3600.0, "hours"),
    (300.0, 60.0, "minutes"),
    (0.0, 1.0, "seconds"),
)

Curve = tuple[str, Sequence[RoundRecord]]
"""A name and the rounds of one run."""


def draw_curves(history: Sequence[RoundRecord], title: str, score_name: str = "score") -> dict[str, bytes]:
    """Draw the score and the loss against rounds, wall time and, with a device model, virtual time.

    Args:
        history: The rounds of one run.
        title: Above all.
        score_name: What people call the score.

    Returns:
        Format -> the image.
    """
    from matplotlib.figure import Figure

    scales = _scales(history)
    figure = Figure(figsize=(4.2 * len(scales), 6), layout="constrained")
    grid = figure.subplots(2, len(scales), sharex="col", sharey="row", squeeze=False)
    for column, (label, positions) in enumerate(scales):
        both: list[Axes] = [grid[0][column], grid[1][column]]
        upper, lower = both
        _line(upper, positions, [record.score for record in history], _HELD_OUT, "held out")
        _line(lower, positions, [record.train_loss for record in history], _TRAIN, "clients, while they train")
        _line(lower, positions, [record.loss for record in history], _HELD_OUT, "held out")
        lower.set_xlabel(label)
        for axes in both:
            _style(axes)
    grid[0][0].set_ylabel(score_name)
    grid[1][0].set_ylabel("loss")
    if history:
        grid[1][0].legend(frameon=False)
    figure.suptitle(title, fontsize=10, color=_INK)
    return {kind: _image(figure, kind) for kind in FORMATS}


def draw_sweep(
    curves: Sequence[Curve],
    scores: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    score_name: str = "score",
) -> dict[str, bytes]:
    """Draw what a sweep found.

    Args:
        curves: The score against rounds is drawn for each, the best first; a map of colours goes with the order.
        scores: For each varied setting with numbers its name, its values and the scores of the trials.
        score_name: What people call the score.

    Returns:
        Format -> the image.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * (1 + len(scores)), 3.6), layout="constrained")
    panels = figure.subplots(1, 1 + len(scores), sharey=True, squeeze=False)[0]
    shades = mpl.colormaps["viridis_r"](np.linspace(0.1, 1, max(2, len(curves))))
    for rank in reversed(range(len(curves))):
        name, history = curves[rank]
        label = name if rank < 5 else None
        _line(panels[0], [r.round for r in history], [r.score for r in history], shades[-1 - rank], label)
    panels[0].set_xlabel("round")
    panels[0].set_ylabel(score_name)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], frameon=False, fontsize=7, loc="outside lower left", ncols=2)
    for axes, (name, values, found) in zip(panels[1:], scores, strict=True):
        axes.plot(values, found, "o", color=_HELD_OUT, markersize=4)
        axes.set_xlabel(name)
        positive = [value for value in values if value > 0]
        if len(positive) == len(values) and max(positive) / min(positive) >= 10:
            axes.set_xscale("log")
    for axes in panels:
        _style(axes)
    return {kind: _image(figure, kind) for kind in FORMATS}


def _scales(history: Sequence[RoundRecord]) -> list[tuple[str, Sequence[float]]]:
    scales: list[tuple[str, Sequence[float]]] = [("round", [record.round for record in history])]
    scales.append(_in_units("wall time", np.cumsum([record.seconds for record in history]).tolist()))
    virtual = [record.virtual_s for record in history if record.virtual_s is not None]
    if virtual and len(virtual) == len(history):
        scales.append(_in_units("virtual time", virtual))
    return scales


def _in_units(label: str, seconds: Sequence[float]) -> tuple[str, Sequence[float]]:
    longest = max(seconds, default=0.0)
    _least, size, unit = next(entry for entry in _UNITS if longest >= entry[0])
    return f"{label} ({unit})", [value / size for value in seconds]


def _line(
    axes: "Axes", positions: Sequence[float], values: Sequence[float | None], color: str, label: str | None
) -> None:
    known = [(position, value) for position, value in zip(positions, values, strict=True) if value is not None]
    if known:
        marker = "." if len(known) <= 30 else None
        axes.plot(*zip(*known, strict=True), color=color, linewidth=1.2, marker=marker, label=label)


def _style(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK)


def _image(figure: "Figure", kind: str) -> bytes:
    import matplotlib as mpl

    content = io.BytesIO()
    # Fixed ids and no date: the same history draws the same bytes.
    with mpl.rc_context({"svg.hashsalt": "hedgerow", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(content, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()
