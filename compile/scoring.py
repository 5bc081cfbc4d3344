"""How good a model's answers are where target values are known, and how near they are to another model's. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.manifest.content import Tensor
from hedgerow.outputs import Outputs
from hedgerow.outputs.outputs import Arrays

__all__ = [
    "all_finite", "chosen", "finite_metrics", "largest_differences", "largest_held", "least_snr_db", "mean_score",
    "score_in", "signal_to_noise_db", "why_unscored",
]  # fmt: skip

_SNR_LIMIT_DB = 200.0
_SCORE_KEYS = ("accuracy", "score")


def signal_to_noise_db(signal: NDArray[Any], other: NDArray[Any]) -> float:
    """Return ``10 log10(sum(signal^2) / sum((signal - other)^2))``, at most 200; NaN in *other* gives -200."""
    power = float(np.square(signal, dtype=np.float64).sum())
    noise = float(np.square(signal.astype(np.float64) - other).sum())
    if noise == 0 and math.isfinite(power):
        return _SNR_LIMIT_DB
    if not math.isfinite(noise) or power == 0:
        return -_SNR_LIMIT_DB
    return min(_SNR_LIMIT_DB, max(-_SNR_LIMIT_DB, 10 * math.log10(power / noise)))


def least_snr_db(signal: Arrays, other: Arrays) -> float:
    """Return the signal to noise of the output that lost most; both have the same outputs."""
    return min(signal_to_noise_db(values, other[name]) for name, values in signal.items())


def mean_score(outputs: Outputs, answers: Arrays, wanted: Arrays) -> float | None:
    """Return the mean score over the samples whose target values are known; None: there is none, or no score here."""
    known = outputs.known(wanted)
    if not known.any():
        return None
    return float(outputs.scores(chosen(answers, known), chosen(wanted, known)).mean())


def why_unscored(outputs: Outputs) -> str:
    """Return why answers have no score."""
    absent = [name for name, output in outputs.items() if not output.can_score]
    if absent:
        return f"there is no score function for {', '.join(absent)} here"
    return "no target value of the held-out data is known"


def chosen(arrays: Arrays, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return some rows of each array, by their places or by whether they are wanted."""
    return {name: values[rows] for name, values in arrays.items()}


def all_finite(arrays: Arrays) -> bool:
    """Say whether all numbers are finite."""
    return all(bool(np.isfinite(values).all()) for values in arrays.values())


def largest_differences(one: Arrays, other: Arrays) -> dict[str, float]:
    """Return for each output of *one* the largest absolute difference; infinite where one is no number."""
    return {
        name: float(
            np.nan_to_num(
                np.abs(values.astype(np.float64) - other[name].reshape(values.shape).astype(np.float64)), nan=np.inf
            ).max(initial=0.0)
        )
        for name, values in one.items()
    }


def largest_held(tensors: Sequence[Tensor]) -> dict[str, float]:
    """Return the largest number that each tensor of integers can stand for, by its schema name."""
    return {
        tensor.name: float((np.iinfo(tensor.dtype).max - tensor.zero_point) * tensor.scale)
        for tensor in tensors
        if tensor.scale is not None
    }


def finite_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that are numbers: what cannot be said of some data, such as an R2, is left out."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def score_in(metrics: Mapping[str, Any], prefix: str = "") -> float | None:
    """Return the mean score among metrics, whatever it is called; *prefix* is ``float_`` for the float model's."""
    return next((metrics[prefix + key] for key in _SCORE_KEYS if metrics.get(prefix + key) is not None), None)
