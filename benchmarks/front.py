"""Rows of a comparison of tools, and who is on the Pareto front of (bytes, accuracy). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hedgerow.compile.search import TriedRecipe, pareto_front

__all__ = ["OURS", "Row", "ours_on_front"]

OURS = "hedgerow "


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One file, measured.

    Attributes:
        tool: Who made it; ours start with ``hedgerow``, followed by the recipe.
        format: ``onnx`` or ``tflite``.
        bytes: Its size.
        accuracy: Top-1 on the test images.
        latency_ms: Median of single images on this host, one thread.
    """

    tool: str
    format: str
    bytes: int
    accuracy: float
    latency_ms: float


def ours_on_front(rows: Sequence[Row], named: Mapping[str, str]) -> dict[str, bool]:
    """Return for each format whether one row of ours is on the Pareto front of (bytes, accuracy) of the other tools.

    Args:
        rows: Of all tools; ours that are not named are left out, so that they cannot stand in for it or beat it.
        named: Format -> the recipe that was named before anything was measured.
    """
    found = {}
    for kind in ("onnx", "tflite"):
        trials = [
            TriedRecipe(
                target=kind, recipe=row.tool, state="passed", metrics={"bytes": row.bytes, "accuracy": row.accuracy}
            )
            for row in rows
            if row.format == kind and (not row.tool.startswith(OURS) or row.tool == OURS + named[kind])
        ]
        found[kind] = any(trial.recipe.startswith(OURS) for trial in pareto_front(trials))
    return found
