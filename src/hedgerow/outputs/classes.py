"""One class of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.outputs.names import MOST_NAMES, as_names, names_mistakes, some_of
from hedgerow.outputs.output import Classified, Output, finite_rows, told_number
from hedgerow.schema import TensorSpec

__all__ = ["Classes"]

_MOST_WATCHED = 4096
"""So many classes does a window count one by one."""


@dataclass(frozen=True, slots=True)
class Classes(Output):
    """Exactly one of several classes; the score is 1 if it is right, so that the mean score is the accuracy.

    Attributes:
        names: Of the classes; the place is the class index.
        softmax: Whether artifacts make probabilities of what the model gives; else they give it as it is.
    """

    kind: ClassVar[str] = "classes"
    tensor_name: ClassVar[str] = "probabilities"
    score_key: ClassVar[str] = "accuracy"
    score_name: ClassVar[str] = "accuracy"
    agreement_name: ClassVar[str] = "equal classes"
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "bce", "mse", "focal")
    target_dtype: ClassVar[str] = "int64"
    is_all_or_nothing: ClassVar[bool] = True
    known_word: ClassVar[str] = "labelled"
    request: ClassVar[str] = "label some"

    names: Sequence[str]
    softmax: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", as_names(self.names))

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong with it."""
        return names_mistakes("class", self.names, least=2)

    def tensor(self, name: str) -> TensorSpec:
        """Return the tensor that artifacts give, called *name*."""
        low, high = (0.0, 1.0) if self.softmax else (None, None)
        return TensorSpec(name, (len(self.names),), "float32", minimum=low, maximum=high)

    @property
    def activation(self) -> str:
        """What makes an answer of what the model gives."""
        return "softmax" if self.softmax else "none"

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the numbers along the last dimension of the tensor."""
        return tuple(self.names)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one sample's target value."""
        return ()

    def target_mistakes(self, wanted: NDArray[Any]) -> list[str]:
        """Return one sentence for everything that is wrong with target values."""
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self.names)):
            low, high, most = wanted.min(), wanted.max(), len(self.names) - 1
            advice = "; they are counted from 0" if (low, high) == (1, most + 1) else ""
            if low == -1 and high <= most:
                advice = "; leave out the samples whose class is not known"
            return [f"the classes must lie in 0..{most}, found {low}..{high}{advice}"]
        return []

    def unknown(self, samples: int) -> NDArray[Any]:
        """Return -1 for each sample."""
        return np.full(samples, -1, dtype=np.int64)

    def is_known(self, wanted: NDArray[Any]) -> NDArray[np.bool_]:
        """Return of which samples the target value is known."""
        return wanted >= 0

    @property
    def chance(self) -> float:
        """Accuracy of guessing: one of so many classes."""
        return 1 / len(self.names)

    def strata(self, wanted: NDArray[Any]) -> NDArray[np.int64]:
        """Return the class of each sample."""
        return np.asarray(wanted, dtype=np.int64)

    @property
    def strata_names(self) -> Sequence[str]:
        """The classes."""
        return self.names

    def notes(self, wanted: NDArray[Any]) -> list[str]:
        """Return which classes have no sample."""
        counts = np.bincount(wanted[wanted >= 0], minlength=len(self.names))
        empty = [name for name, count in zip(self.names, counts, strict=True) if count == 0]
        return [f"holds no sample of {some_of(empty)}"] if empty else []

    def predicted(self, given: NDArray[Any]) -> NDArray[np.int64]:
        """Return the most probable class of each sample, ``int64[n]``; -1 where a value is not finite.

        What is no number is no prediction: the first of several NaN must not be right by chance.
        """
        found: NDArray[np.int64] = np.asarray(given).argmax(axis=1).astype(np.int64, copy=False)
        found[~finite_rows(given)] = -1
        return found

    def scores(self, given: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
        """Return 1 where the most probable class is the wanted one, else 0."""
        predicted = self.predicted(given)
        return np.asarray(((predicted == wanted) & (predicted >= 0)).astype(np.float64), dtype=np.float64)

    def classified(self, given: NDArray[Any], wanted: NDArray[Any]) -> Classified:
        """Return the wanted and the answered class of each sample."""
        return Classified(tuple(self.names), self.strata(wanted), self.predicted(given))

    def agreement(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
        """Return 1 where both name the same class, or neither names one, else 0."""
        return np.asarray((self.predicted(first) == self.predicted(second)).astype(np.float64), dtype=np.float64)

    def features(self, name: str, given: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Return the confidence, and where there are at most 4,096 classes the predicted one, of each answer."""
        values = np.asarray(given, dtype=np.float64)
        predicted = self.predicted(values).astype(np.float64)
        is_none = predicted < 0
        confidence = {f"{name}.confidence": np.where(is_none, np.nan, values.max(axis=1))}
        return confidence | {label: np.where(is_none, np.nan, predicted) for label in self.categories(name)}

    def categories(self, name: str) -> Mapping[str, Sequence[str]]:
        """Return which features are indices of something, with its names."""
        return {f"{name}.label": self.names} if len(self.names) <= _MOST_WATCHED else {}

    def metrics(self, given: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
        """Return accuracy, and precision, recall and F1 as means over the classes that occur."""
        # Not by a table of all pairs, which of 100,000 classes nothing could hold.
        predicted, classes = self.predicted(given), len(self.names)
        right, asked, answered = (
            np.bincount(part, minlength=classes)
            for part in (wanted[predicted == wanted], wanted, predicted[predicted >= 0])
        )
        occurs = asked > 0
        precision = np.divide(right, answered, out=np.zeros(len(right)), where=answered > 0)
        recall = np.divide(right, asked, out=np.zeros(len(right)), where=occurs)
        f1 = np.divide(2 * right, asked + answered, out=np.zeros(len(right)), where=asked + answered > 0)
        return {
            "accuracy": float(right.sum() / len(wanted)),
            "precision": float(precision[occurs].mean()),
            "recall": float(recall[occurs].mean()),
            "f1": float(f1[occurs].mean()),
        }

    def baseline(self, wanted: NDArray[Any]) -> tuple[str, NDArray[np.float32]]:
        """Return the shares of the classes in the training data: the most frequent one is answered."""
        shares = np.bincount(wanted, minlength=len(self.names)) / max(1, len(wanted))
        return f"always {self.names[int(shares.argmax())]!r}, the most frequent class", shares.astype(np.float32)

    def told(self, given: NDArray[Any]) -> dict[str, Any]:
        """Return ``label``, ``index`` and ``confidence``, each None where there is no answer."""
        index = int(self.predicted(given[None])[0])
        if index < 0:
            return {"label": None, "index": None, "confidence": None}
        return {"label": self.names[index], "index": index, "confidence": told_number(given[index])}

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values, without its kind and weight."""
        return {"names": list(self.names), "softmax": self.softmax}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode it; the caller finishes *fields*."""
        return cls(fields.texts("names", maximum_items=MOST_NAMES), fields.boolean("softmax"))
