"""How good a model is for each class and each subgroup, from its outputs on held-out data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.fairness import measure_fairness
from hedgerow.task import Dataset

__all__ = ["MAXIMUM_CLASSES", "evaluate", "evaluate_parts"]

MAXIMUM_CLASSES = 100
"""A model of more classes gets no table of classes, which nobody could read."""
_MAXIMUM_GROUPS = 50


def evaluate(
    labels: Sequence[str], probabilities: NDArray[Any], held_out: Dataset, subgroup: str | None
) -> dict[str, Any]:
    """Return a model's evaluation as plain JSON values.

    Args:
        labels: Names of the classes.
        probabilities: ``(n, classes)``.
        held_out: The ``n`` samples.
        subgroup: Column of *held_out* whose values are the subgroups, if any.

    Returns:
        ``samples``; ``classes``: for each its name, ``support``, ``precision`` (None where it was never predicted) and
        ``recall`` (None where there is no sample); ``confusion``: rows are labels, columns predictions; ``subgroups``:
        for each value its ``samples`` and ``accuracy``; ``fairness``, see :mod:`hedgerow.compile.fairness`.
    """
    predicted = np.asarray(probabilities).argmax(axis=1)
    names = _groups(held_out, subgroup)
    fairness = measure_fairness(labels, held_out.labels, predicted, names) if names is not None else {}
    return {
        "samples": len(held_out),
        **evaluate_parts(labels, probabilities, held_out, subgroup),
        "confusion": _confusion(labels, held_out, predicted).tolist() if len(labels) <= MAXIMUM_CLASSES else [],
        "fairness": fairness,
    }


def evaluate_parts(
    labels: Sequence[str], probabilities: NDArray[Any], held_out: Dataset, subgroup: str | None
) -> dict[str, Any]:
    """Return the ``classes`` and ``subgroups`` of :func:`evaluate` alone, which cost next to nothing."""
    predicted = np.asarray(probabilities).argmax(axis=1)
    classes, subgroups = [], []
    if len(labels) <= MAXIMUM_CLASSES:
        confusion = _confusion(labels, held_out, predicted)
        classes = [
            {
                "name": name,
                "support": int(confusion[index].sum()),
                "precision": _share(confusion[index, index], confusion[:, index].sum()),
                "recall": _share(confusion[index, index], confusion[index].sum()),
            }
            for index, name in enumerate(labels)
        ]
    names = _groups(held_out, subgroup)
    if names is not None:
        subgroups = [
            {
                "name": value,
                "samples": int((names == value).sum()),
                "accuracy": _share((predicted == held_out.labels)[names == value].sum(), (names == value).sum()),
            }
            for value in sorted(set(names.tolist()))[:_MAXIMUM_GROUPS]
        ]
    return {"classes": classes, "subgroups": subgroups}


def _confusion(labels: Sequence[str], held_out: Dataset, predicted: NDArray[Any]) -> NDArray[np.int64]:
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (held_out.labels, predicted), 1)
    return confusion


def _groups(held_out: Dataset, subgroup: str | None) -> NDArray[Any] | None:
    """Return the subgroup of each sample as text, or None."""
    groups = held_out.columns.get(subgroup) if subgroup is not None else None
    return np.asarray([str(value) for value in groups]) if groups is not None else None


def _share(part: Any, whole: Any) -> float | None:
    return round(float(part) / float(whole), 6) if whole else None
