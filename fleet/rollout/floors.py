"""The score that a release must reach on the devices, whatever the model before it reached there. Pure.

It is the one that the user asked for, or else what was measured before release: the accuracy of the devices' artifacts
on held-out samples. That is a sample too, so the floor is the lower end of its one-sided Clopper-Pearson interval (C.
Clopper, E. Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial, Biometrika 26,
1934), less the margin. A number of samples that is not known is not guessed: the accuracy then counts as exact, which
is the stricter reading.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from hedgerow.manifest.release import Manifest

__all__ = ["HELD_OUT_SAMPLES", "Floor", "floor_of", "measured_floor"]

HELD_OUT_SAMPLES = "held_out_samples"
"""The metric of an artifact that says on how many samples its accuracy was measured."""


@dataclass(frozen=True, slots=True)
class Floor:
    """A score to reach.

    Attributes:
        score: The score, in [0, 1].
        origin: Where it comes from; the end of a sentence.
        alpha: Probability with which the measurement behind it says too much; 0 where the user said it.
    """

    score: float
    origin: str
    alpha: float = 0.0


def floor_of(
    manifest: Manifest, targets: Iterable[str], asked: float | None, margin: float, alpha: float
) -> Floor | None:
    """Return the floor of a release on devices of these hardware targets; None: nothing is known to hold it against.

    A model that was measured to be no better than chance has none: a floor that whatever runs would reach is no floor.

    Args:
        manifest: The release's.
        targets: Those of the devices that are judged together; the lowest of their floors is that of all.
        asked: The user's floor; None: the measured one.
        margin: How far below the measured score is accepted.
        alpha: Probability that the measured score's lower bound is above the truth.
    """
    if asked is not None:
        return Floor(asked, "which was asked for")
    found = []
    for target in sorted(set(targets)):
        artifact = manifest.artifact(target)
        if artifact is not None and "accuracy" in artifact.metrics:
            samples = int(artifact.metrics.get(HELD_OUT_SAMPLES, 0))
            found.append(measured_floor(artifact.metrics["accuracy"], samples, margin, alpha))
    lowest = min(found, key=lambda floor: floor.score, default=None)
    chance = 1 / max(1, len(manifest.model_schema.labels))
    return lowest if lowest is not None and lowest.score > chance else None


def measured_floor(accuracy: float, samples: int, margin: float, alpha: float) -> Floor:
    """Return the floor that follows from a measurement.

    Args:
        accuracy: What was measured, in [0, 1].
        samples: On how many; 0: not known.
        margin: How far below is accepted.
        alpha: Probability that the interval lies above the truth.
    """
    less = f"less {100 * margin:g} points"
    if samples < 1:
        return Floor(max(0.0, accuracy - margin), f"the {accuracy:.1%} measured before release {less}")
    from scipy.special import betaincinv

    right = round(accuracy * samples)
    low = float(betaincinv(right, samples - right + 1, alpha)) if right else 0.0
    origin = f"the {accuracy:.1%} (at least {low:.1%}) measured on {samples} samples before release {less}"
    return Floor(max(0.0, low - margin), origin, alpha)
