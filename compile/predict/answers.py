"""What a model's outputs say of each sample, and how good that was. Pure.

This is the one place that knows that an answer is a class: whoever predicts asks here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.class_output import class_scores, find_class_output
from hedgerow.compile.predict.given import NO_LABEL
from hedgerow.features import predicted_classes
from hedgerow.schema import ModelSchema
from hedgerow.task import Task, accuracy

__all__ = ["ToldSamples", "tell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldSamples:
    """What was said of each sample; with state of each step, one row after the other.

    Attributes:
        rows: How many.
        steps: How many rows are one sequence; 1: each stands alone.
        answers: What people read -> one value a row: ``label`` (None where there is none), ``index`` (-1 likewise) and
            ``confidence`` of a model that classifies, and ``wanted`` where a label was given.
        outputs: Output name -> ``float32[rows, *shape]``.
        metrics: Of the rows whose label is known.
        scored: How many those are.
    """

    rows: int
    steps: int
    answers: Mapping[str, list[Any]]
    outputs: Mapping[str, NDArray[Any]]
    metrics: Mapping[str, float]
    scored: int


def tell(
    schema: ModelSchema,
    outputs: Mapping[str, NDArray[Any]],
    labels: NDArray[np.int64] | None,
    *,
    steps: int = 1,
    task: Task | None = None,
) -> ToldSamples:
    """Return what outputs say.

    Args:
        schema: Of the model.
        outputs: What it gave, without state, each ``(rows, *shape)``.
        labels: Class of each row, -1 where it is not known; None: of none.
        steps: How many rows are one sequence.
        task: Whose metrics are measured; None: the share of right answers.
    """
    rows = len(next(iter(outputs.values())))
    flat = None if labels is None else labels.reshape(-1)
    known = np.zeros(rows, bool) if flat is None else flat != NO_LABEL
    answers: dict[str, list[Any]] = {}
    metrics: dict[str, float] = {}
    found = find_class_output(schema.given, np.array([max(0, len(schema.labels) - 1)]))
    if schema.labels and not isinstance(found, str):
        given = class_scores(found, outputs)
        classes = predicted_classes(given)
        named = [schema.labels[index] if 0 <= index < len(schema.labels) else None for index in classes.tolist()]
        best = [float(given[row, index]) if index >= 0 else None for row, index in enumerate(classes.tolist())]
        answers = {"label": named, "index": classes.tolist(), "confidence": best}
        if flat is not None:
            answers["wanted"] = [schema.labels[index] if index >= 0 else None for index in flat.tolist()]
        if flat is not None and known.any():
            metrics = {"accuracy": accuracy(given[known], flat[known])}
            metrics = metrics if task is None else task.measure(given[known], flat[known])
    return ToldSamples(
        rows=rows,
        steps=steps,
        answers=answers,
        outputs=dict(outputs),
        metrics={name: value for name, value in metrics.items() if np.isfinite(value)},
        scored=int(known.sum()) if metrics else 0,
    )
