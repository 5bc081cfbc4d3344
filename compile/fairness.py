"""Fairness between subgroups, measured with fairlearn: demographic parity and equalized odds, by class."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.errors import ExtraNotInstalledError

__all__ = ["measure_fairness"]

_MAXIMUM_CLASSES = 20


def measure_fairness(
    labels: Sequence[str], truth: NDArray[np.int64], predicted: NDArray[np.int64], groups: NDArray[Any]
) -> dict[str, Any]:
    """Return how far subgroups are apart, as plain JSON values.

    Demographic parity difference: the largest difference between subgroups of how often a class is predicted. Equalized
    odds difference: the larger of the differences of the true and of the false positive rate (Hardt, Price, Srebro,
    NeurIPS 2016). 0 is equal. For two classes the second one is the positive; for more, each class against the rest.

    Args:
        labels: Names of the classes.
        truth: Labels, ``int64[n]``.
        predicted: Predicted classes, ``int64[n]``.
        groups: Subgroup of each sample.

    Returns:
        ``classes``: for each its name and both differences (None where they are not defined), and
        the largest of both over all classes; empty for one subgroup or more than 20 classes.

    Raises:
        ExtraNotInstalledError: fairlearn is absent.
    """
    if len(set(groups.tolist())) < 2 or len(labels) > _MAXIMUM_CLASSES:
        return {}
    try:
        from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
    except ModuleNotFoundError as exc:
        raise ExtraNotInstalledError("fairness of subgroups", "compile", exc.name) from exc
    rows = []
    for index in [1] if len(labels) == 2 else range(len(labels)):
        columns = {
            "y_true": (truth == index).astype(int),
            "y_pred": (predicted == index).astype(int),
            "sensitive_features": groups,
        }
        rows.append(
            {
                "name": labels[index],
                "demographic_parity_difference": _finite(demographic_parity_difference(**columns)),
                "equalized_odds_difference": _finite(equalized_odds_difference(**columns)),
            }
        )
    return {"classes": rows, **{f"largest_{kind}": _largest(rows, kind) for kind in list(rows[0])[1:]}}


def _finite(value: Any) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _largest(rows: Sequence[dict[str, Any]], kind: str) -> float | None:
    return max((row[kind] for row in rows if row[kind] is not None), default=None)
