"""The score that a release must reach on the devices, whatever the model before it reached there. Pure.

It is the one that the user asked for, or else what was measured before release: the mean score of the devices'
artifacts on held-out samples. That is a sample too, so the floor is the lower end of its one-sided interval, less the
margin. Where a score is 0 or 1 that is the interval of Clopper and Pearson (The use of confidence or fiducial limits
illustrated in the case of the binomial, Biometrika 26, 1934); for scores between it is the one that follows from
Hoeffding's first inequality (Probability inequalities for sums of bounded random variables, JASA 58, 1963, theorem 1,
(2.1)), which holds however they are spread. A number of samples that is not known is not guessed: the mean then counts
as exact, which is the stricter reading.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hedgerow.manifest.release import Manifest

__all__ = ["BASELINE", "HELD_OUT_SAMPLES", "Floor", "floor_of", "measured_floor"]

HELD_OUT_SAMPLES = "held_out_samples"
"""The metric of an artifact that says on how many samples its score was measured."""

BASELINE = "baseline_"
"""Before the key of the score, the metric of a release that says what is reached without looking at the input."""


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

    A model that was measured to be no better than guessing has none: a floor that whatever runs would reach is no
    floor. What guessing reaches is what the release says of its baseline, or else what is known of its outputs.

    Args:
        manifest: The release's.
        targets: Those of the devices that are judged together; the lowest of their floors is that of all.
        asked: The user's floor; None: the measured one.
        margin: How far below the measured score is accepted.
        alpha: Probability that the measured score's lower bound is above the truth.
    """
    if asked is not None:
        return Floor(asked, "which was asked for")
    outputs, found = manifest.model_schema.answers, []
    for target in sorted(set(targets)):
        artifact = manifest.artifact(target)
        if artifact is not None and outputs.score_key in artifact.metrics:
            samples = int(artifact.metrics.get(HELD_OUT_SAMPLES, 0))
            mean = artifact.metrics[outputs.score_key]
            found.append(measured_floor(mean, samples, margin, alpha, is_all_or_nothing=outputs.is_all_or_nothing))
    lowest = min(found, key=lambda floor: floor.score, default=None)
    guessing = max(outputs.chance, manifest.metrics.get(f"{BASELINE}{outputs.score_key}", 0.0))
    return lowest if lowest is not None and lowest.score > guessing else None


def measured_floor(mean: float, samples: int, margin: float, alpha: float, *, is_all_or_nothing: bool = True) -> Floor:
    """Return the floor that follows from a measurement.

    Args:
        mean: The mean score that was measured, in [0, 1].
        samples: On how many; 0: not known.
        margin: How far below is accepted.
        alpha: Probability that the interval lies above the truth.
        is_all_or_nothing: Whether each score was 0 or 1.
    """
    less = f"less {100 * margin:g} points"
    if samples < 1:
        return Floor(max(0.0, mean - margin), f"the {mean:.1%} measured before release {less}")
    low = (
        _clopper_pearson(round(mean * samples), samples, alpha)
        if is_all_or_nothing
        else _hoeffding(mean, samples, alpha)
    )
    origin = f"the {mean:.1%} (at least {low:.1%}) measured on {samples} samples before release {less}"
    return Floor(max(0.0, low - margin), origin, alpha)


def _clopper_pearson(right: int, samples: int, alpha: float) -> float:
    from scipy.special import betaincinv

    return float(betaincinv(right, samples - right + 1, alpha)) if right else 0.0


def _hoeffding(mean: float, samples: int, alpha: float) -> float:
    """Return the least true mean under which *mean* or more has a probability of *alpha* by Hoeffding's bound."""
    from scipy.optimize import brentq
    from scipy.special import rel_entr

    if not mean:
        return 0.0
    limit = -math.log(alpha) / samples

    def beyond(true: float) -> float:
        return float(rel_entr(mean, true) + rel_entr(1 - mean, 1 - true)) - limit

    tiny = 1e-12
    return float(brentq(beyond, tiny, mean)) if beyond(tiny) > 0 else 0.0
