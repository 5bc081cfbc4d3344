"""The gate: measurements of an artifact in, metrics and check states out, or an error that names the failed check.

Quantizers fail silently: recipes that quantize nothing, int8 files bigger than float, calibrators that destroy the
model. Nothing here converts or runs a model; a check that could not be run is recorded ``not run``, never ``passed``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.errors import VerificationError
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.recipes import Recipe
from hedgerow.hardware.target import Target
from hedgerow.task import accuracy

__all__ = [
    "TRAIN_TOLERANCE",
    "Measured",
    "Verdict",
    "agreement",
    "signal_to_noise_db",
    "verify_artifact",
    "verify_train_graph",
]

PASSED, NOT_RUN = "passed", "not run"
TRAIN_TOLERANCE = 1e-5
"""Largest difference of any weight or the loss after one step from torch's, relative to the tensor's largest number."""
_SNR_LIMIT_DB = 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one artifact.

    Attributes:
        size_bytes: Of the artifact.
        float_bytes: Of the float artifact in the same format.
        facts: Read from the file.
        labels: ``int64[n]``, of the held-out data.
        float_probabilities: The float model's output on it, ``(n, classes)``.
        probabilities: The artifact's; None where this host cannot run the format.
        replay_difference: Largest difference between two runs of the golden samples, the second sample by sample in a
            fresh session; None where this host cannot run the format.
        replay_tolerance: What the golden samples allow.
    """

    size_bytes: int
    float_bytes: int
    facts: FileFacts
    labels: NDArray[np.int64]
    float_probabilities: NDArray[Any]
    probabilities: NDArray[Any] | None
    replay_difference: float | None
    replay_tolerance: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Metrics and check states of an artifact that passed; see :class:`hedgerow.manifest.Artifact`."""

    metrics: Mapping[str, float]
    checks: Mapping[str, str]


def signal_to_noise_db(signal: NDArray[Any], other: NDArray[Any]) -> float:
    """Return ``10 log10(sum(signal^2) / sum((signal - other)^2))``, at most 200; NaN in *other* gives -200."""
    power = float(np.square(signal, dtype=np.float64).sum())
    noise = float(np.square(signal.astype(np.float64) - other).sum())
    if not math.isfinite(noise) or power == 0:
        return -_SNR_LIMIT_DB
    return min(_SNR_LIMIT_DB, max(-_SNR_LIMIT_DB, 10 * math.log10(power / noise))) if noise > 0 else _SNR_LIMIT_DB


def agreement(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the share of samples on which both predict the same class."""
    return float((one.argmax(axis=1) == other.argmax(axis=1)).mean())


def verify_artifact(target: Target, recipe: Recipe, measured: Measured, *, max_drop: float) -> Verdict:
    """Judge one artifact.

    Args:
        target: What must run it.
        recipe: What it promises.
        measured: What was found.
        max_drop: Largest allowed loss of held-out accuracy, as a share (0.015: 1.5 points).

    Raises:
        VerificationError: A check failed.
    """
    _check_file(target, recipe, measured)
    float_accuracy = accuracy(measured.float_probabilities, measured.labels)
    metrics = {
        "bytes": float(measured.size_bytes),
        "float_bytes": float(measured.float_bytes),
        "float_accuracy": float_accuracy,
    }
    checks = dict.fromkeys(("size", "storage", "quantized", "operators", "number types"), PASSED)
    if measured.probabilities is None or measured.replay_difference is None:
        return Verdict(metrics, checks | dict.fromkeys(("accuracy", "parity", "golden"), NOT_RUN))
    metrics |= {
        "accuracy": accuracy(measured.probabilities, measured.labels),
        "snr_db": signal_to_noise_db(measured.float_probabilities, measured.probabilities),
        "agreement": agreement(measured.float_probabilities, measured.probabilities),
    }
    _check_outputs(target, recipe, measured, metrics, max_drop)
    return Verdict(metrics, checks | dict.fromkeys(("accuracy", "parity", "golden"), PASSED))


def _check_file(target: Target, recipe: Recipe, measured: Measured) -> None:
    facts = measured.facts
    if measured.size_bytes >= measured.float_bytes:
        expected = f"fewer bytes than the float artifact's {measured.float_bytes}"
        raise VerificationError(target.name, "size", expected, f"{measured.size_bytes} bytes")
    if measured.size_bytes > target.flash_bytes:
        expected = f"at most the target's {target.flash_bytes} bytes"
        raise VerificationError(target.name, "storage", expected, f"{measured.size_bytes} bytes")
    if facts.quantized_share < recipe.minimum_quantized_share:
        expected = f"at least {recipe.minimum_quantized_share:.1%} of the weights in at most 8 bits"
        raise VerificationError(target.name, "quantized", expected, f"{facts.quantized_share:.1%}")
    if unknown := sorted(facts.operators - target.operators):
        raise VerificationError(
            target.name, "operators", "operators in the target's table", f"also {', '.join(unknown)}"
        )
    if unknown := sorted(facts.number_types - target.number_types):
        expected = f"tensors of {', '.join(sorted(target.number_types))}"
        raise VerificationError(target.name, "number types", expected, f"also {', '.join(unknown)}")


def _check_outputs(
    target: Target, recipe: Recipe, measured: Measured, metrics: Mapping[str, float], max_drop: float
) -> None:
    if measured.probabilities is None or not np.isfinite(measured.probabilities).all():
        raise VerificationError(target.name, "accuracy", "finite outputs", "NaN or infinity")
    drop = metrics["float_accuracy"] - metrics["accuracy"]
    # A drop of exactly the budget is allowed; 1e-9 is for the subtraction.
    if drop > max_drop + 1e-9:
        expected = f"at most {max_drop * 100:g} points below the float accuracy {metrics['float_accuracy']:.4f}"
        raise VerificationError(target.name, "accuracy", expected, f"{metrics['accuracy']:.4f}")
    if metrics["snr_db"] < recipe.minimum_snr_db or metrics["agreement"] < recipe.minimum_agreement:
        expected = f"at least {recipe.minimum_snr_db:g} dB and {recipe.minimum_agreement:.1%} equal classes"
        found = f"{metrics['snr_db']:.1f} dB and {metrics['agreement']:.1%}"
        raise VerificationError(target.name, "parity", expected, found)
    if not (measured.replay_difference or 0.0) <= measured.replay_tolerance:
        expected = f"the golden samples again, within {measured.replay_tolerance:g}"
        raise VerificationError(target.name, "golden", expected, f"a difference of {measured.replay_difference}")


def verify_train_graph(kind: str, difference: float) -> None:
    """Judge one train graph.

    Args:
        kind: Its format, for the message.
        difference: Largest relative difference from one step in torch.

    Raises:
        VerificationError: It is above :data:`TRAIN_TOLERANCE`, or NaN.
    """
    if not difference <= TRAIN_TOLERANCE:
        expected = f"one step within {TRAIN_TOLERANCE:g} of torch's"
        raise VerificationError(f"the {kind} train graph", "train graph", expected, f"a difference of {difference:g}")
