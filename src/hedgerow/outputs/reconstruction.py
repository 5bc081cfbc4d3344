"""How far a sample is from what a model has learned to rebuild: anomaly detection."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.errors import InputError
from hedgerow.outputs.bounds import GREATEST, LEAST, as_number, positive_mistakes
from hedgerow.outputs.output import Output, in_float32, told_number
from hedgerow.schema import TensorSpec

__all__ = ["ANOMALOUS", "NORMAL", "Reconstruction"]

NORMAL, ANOMALOUS = 0, 1
_UNKNOWN = -1
_HIGHEST = float(np.nextafter(np.float32(GREATEST), np.float32(0)))
"""The greatest number with a finite one above it."""
_ROOM = 1.01
"""How far above the highest score the threshold may be looked for."""


@dataclass(frozen=True, slots=True)
class Reconstruction(Output):
    """An anomaly score, and a flag from a threshold on: the mean square of what the model rebuilt wrongly.

    The model is trained to give back its own pre-processed input; what artifacts give is the mean squared difference,
    one number a sample. The threshold is set where normal held-out samples are flagged at the stated rate. The score of
    a sample is 1 if its flag is right; of samples that nobody has judged only the anomaly score is counted.

    Attributes:
        false_alarm_rate: Share of normal samples that may be flagged.
        threshold: Anomaly score from which on a sample is flagged; None: not measured yet.
    """

    kind: ClassVar[str] = "reconstruction"
    score_name: ClassVar[str] = "share of right flags"
    agreement_name: ClassVar[str] = "equal flags"
    tensor_name: ClassVar[str] = "anomaly"
    losses: ClassVar[tuple[str, ...]] = ("mse", "huber")
    target_dtype: ClassVar[str] = "int64"
    learns_alone: ClassVar[bool] = True
    saturates: ClassVar[bool] = True
    is_all_or_nothing: ClassVar[bool] = True
    known_word: ClassVar[str] = "judged"
    request: ClassVar[str] = "say of some samples whether they are normal"
    not_learned: ClassVar[str] = "anomalous"

    false_alarm_rate: float = 0.01
    threshold: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "false_alarm_rate", as_number(self.false_alarm_rate))
        object.__setattr__(self, "threshold", as_number(self.threshold))

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong with it."""
        return [
            *positive_mistakes("the false-alarm rate", self.false_alarm_rate, below=0.5),
            *(positive_mistakes("the threshold", self.threshold) if self.threshold is not None else []),
        ]

    def tensor(self, name: str) -> TensorSpec:
        """Return the tensor that artifacts give, called *name*."""
        return TensorSpec(name, (1,), "float32", unit="mean squared difference", minimum=0.0)

    @property
    def activation(self) -> str:
        """What makes an answer of what the model gives."""
        return "mean_square"

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one sample's target value."""
        return ()

    def target_mistakes(self, wanted: NDArray[Any]) -> list[str]:
        """Return one sentence for everything that is wrong with target values."""
        others = np.setdiff1d(wanted, [_UNKNOWN, NORMAL, ANOMALOUS])
        told = ", ".join(map(str, others[:5].tolist()))
        return [f"a sample is 0 (normal), 1 (anomalous) or -1 (not judged), found {told}"] if len(others) else []

    def unknown(self, samples: int) -> NDArray[Any]:
        """Return -1 for each sample."""
        return np.full(samples, _UNKNOWN, dtype=np.int64)

    def is_known(self, wanted: NDArray[Any]) -> NDArray[np.bool_]:
        """Return of which samples the target value is known."""
        return wanted >= 0

    def is_like(self, other: Output) -> bool:
        """Return whether both can flag: each by its own threshold, which is measured anew for every model."""
        return isinstance(other, Reconstruction) and None not in {self.threshold, other.threshold}

    def translated(self, given: NDArray[Any], other: Output) -> NDArray[Any]:
        """Return the other model's anomaly scores scaled so that this threshold flags what its own did."""
        if not isinstance(other, Reconstruction) or self.threshold is None or other.threshold is None:
            raise ValueError("expected two thresholds, found one or none")
        scaled = np.asarray(given, dtype=np.float64) * (self.threshold / other.threshold)
        threshold = np.float32(self.threshold)
        below = np.minimum(scaled, np.nextafter(threshold, np.float32(0)))
        return np.where(other.flags(given)[:, None], np.maximum(scaled, threshold), below)

    def learnable(self, wanted: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which samples nobody has judged anomalous: what was learned would not be flagged."""
        return np.asarray(wanted != ANOMALOUS, dtype=np.bool_)

    def notes(self, wanted: NDArray[Any]) -> list[str]:
        """Return whether normal samples are too few to flag some of them, as the rate says."""
        normal = int((wanted == NORMAL).sum()) or int((~self.is_known(wanted)).sum())
        least = math.ceil(1 / self.false_alarm_rate)
        said = f"of which a false-alarm rate of {self.false_alarm_rate:g} flags none; of {least} it flags one"
        return [f"holds {normal} normal samples, {said}"] if normal < least else []

    @property
    def can_score(self) -> bool:
        """Whether there is a threshold, without which nothing is flagged."""
        return self.threshold is not None

    def flags(self, given: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which samples are flagged, ``bool[n]``; what is no number is.

        Raises:
            ValueError: There is no threshold yet.
        """
        if self.threshold is None:
            raise ValueError("expected a threshold, found none; measure it on normal samples first")
        return ~(in_float32(given)[:, 0] < np.float32(self.threshold))

    def scores(self, given: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
        """Return 1 where the flag is right, else 0."""
        is_number = np.isfinite(np.asarray(given)[:, 0])
        return np.asarray(
            (is_number & (self.flags(given) == (wanted == ANOMALOUS))).astype(np.float64), dtype=np.float64
        )

    def agreement(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
        """Return 1 where both flag a sample or neither does, else 0."""
        return np.asarray((self.flags(first) == self.flags(second)).astype(np.float64), dtype=np.float64)

    def features(self, name: str, given: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Return the anomaly score."""
        value = np.asarray(given, dtype=np.float64)[:, 0]
        return {f"{name}.anomaly": np.where(np.isfinite(value), value, np.nan)}

    def metrics(self, given: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
        """Return the share of right flags, AUC, and the shares of normal and anomalous samples that are flagged.

        The AUC is the share of pairs of a normal and an anomalous sample in which the anomalous one has the higher
        anomaly score, equal ones half (Mann and Whitney); NaN, as the shares are, where a kind does not occur.
        """
        flagged, is_normal = self.flags(given), wanted == NORMAL
        value = np.asarray(given, dtype=np.float64)[:, 0]
        normal, anomalous = value[is_normal], value[~is_normal]
        order = np.sort(normal)
        below, up_to = (np.searchsorted(order, anomalous, side=side) for side in ("left", "right"))
        pairs = len(normal) * len(anomalous)
        return {
            "score": float(self.scores(given, wanted).mean()),
            "auc": float((below + up_to).sum() / 2 / pairs) if pairs else float("nan"),
            "false_alarm_rate": float(flagged[is_normal].mean()) if len(normal) else float("nan"),
            "detection_rate": float(flagged[~is_normal].mean()) if len(anomalous) else float("nan"),
        }

    def measured(self, given: NDArray[Any], wanted: NDArray[Any]) -> Self:
        """Return this with the threshold at which normal samples are flagged at the stated rate, or less.

        Normal are those that were judged so; where none was judged so, those that nobody has judged. A threshold that
        is there stays.

        Args:
            given: Anomaly scores of samples that were not trained on, ``(n, 1)``.
            wanted: Which of them are anomalous, as far as it is known.

        Raises:
            InputError: All samples are anomalous.
        """
        if self.threshold is not None:
            return self
        is_normal = wanted == NORMAL
        values = np.asarray(given, dtype=np.float64)[:, 0][is_normal if is_normal.any() else ~self.is_known(wanted)]
        if not len(values):
            raise InputError(
                "expected normal samples in the held-out data, which set the threshold; found anomalous ones only"
            )
        # What is no number is flagged whatever the threshold.
        ordered = np.sort(np.where(np.isfinite(values), values, np.inf))
        flagged = int(self.false_alarm_rate * len(ordered))
        highest = np.float32(min(ordered[len(ordered) - 1 - flagged], _HIGHEST))
        # Halfway to the least score that is flagged: another runtime rounds otherwise, and must flag none more.
        above = min(ordered[len(ordered) - flagged] if flagged else np.inf, float(highest) * _ROOM, _HIGHEST)
        halfway = np.float32((float(highest) + above) / 2)
        return replace(self, threshold=float(max(halfway, np.nextafter(highest, np.float32(np.inf)), LEAST)))

    def baseline(self, wanted: NDArray[Any]) -> tuple[str, NDArray[np.float32]]:
        """Return the answer that is never flagged."""
        del wanted
        return "never flagging anything", np.zeros(1, dtype=np.float32)

    def told(self, given: NDArray[Any]) -> dict[str, Any]:
        """Return the ``anomaly`` score, and whether it is ``anomalous``; None where there is no threshold."""
        flagged = bool(self.flags(given[None])[0]) if self.threshold is not None else None
        return {"anomaly": told_number(given[0]), "anomalous": flagged}

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values, without its kind and weight."""
        return {"false_alarm_rate": self.false_alarm_rate, "threshold": self.threshold}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode it; the caller finishes *fields*."""
        rate = fields.number("false_alarm_rate", minimum=0, maximum=0.5)
        return cls(rate, fields.optional_number("threshold", minimum=0))
