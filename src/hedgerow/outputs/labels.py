"""Several labels at once, each of which may be there or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.outputs.bounds import as_number, positive_mistakes
from hedgerow.outputs.names import MOST_NAMES, as_names, names_mistakes, some_of
from hedgerow.outputs.output import LONGEST_PART, Output, finite_rows, in_float32, told_number
from hedgerow.schema import TensorSpec

__all__ = ["Labels"]

_WATCHED = 16


@dataclass(frozen=True, slots=True)
class Labels(Output):
    """Any number of labels at once.

    The score of a sample is its F1: twice the labels that are rightly there, by all that are there or were said to be;
    1 where none is there and none was said. The share of right labels would reward a model that never says anything.

    Attributes:
        names: Of the labels.
        threshold: Probability from which on a label is said to be there.
    """

    kind: ClassVar[str] = "labels"
    tensor_name: ClassVar[str] = "probabilities"
    score_name: ClassVar[str] = "F1 of the samples"
    agreement_name: ClassVar[str] = "equal labels"
    losses: ClassVar[tuple[str, ...]] = ("bce", "focal", "mse")
    target_dtype: ClassVar[str] = "int64"
    known_word: ClassVar[str] = "labelled"
    request: ClassVar[str] = "label some"

    names: Sequence[str]
    threshold: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", as_names(self.names))
        object.__setattr__(self, "threshold", as_number(self.threshold))

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong with it."""
        return [
            *names_mistakes("label", self.names, least=1, most_chars=LONGEST_PART),
            *positive_mistakes("the threshold", self.threshold, below=1.0),
        ]

    def tensor(self, name: str) -> TensorSpec:
        """Return the tensor that artifacts give, called *name*."""
        return TensorSpec(name, (len(self.names),), "float32", minimum=0.0, maximum=1.0)

    @property
    def activation(self) -> str:
        """What makes an answer of what the model gives."""
        return "sigmoid"

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the numbers along the last dimension of the tensor."""
        return tuple(self.names)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one sample's target value."""
        return (len(self.names),)

    def target_mistakes(self, wanted: NDArray[Any]) -> list[str]:
        """Return one sentence for everything that is wrong with target values."""
        others = np.setdiff1d(wanted, [0, 1])
        return [f"each label is 0 or 1, found {', '.join(map(str, others[:5].tolist()))}"] if len(others) else []

    def unknown(self, samples: int) -> NDArray[Any]:
        """Return -1 for each label of each sample."""
        return np.full((samples, len(self.names)), -1, dtype=np.int64)

    def is_known(self, wanted: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which samples have a target value for every label."""
        return np.asarray((wanted >= 0).all(axis=1), dtype=np.bool_)

    def notes(self, wanted: NDArray[Any]) -> list[str]:
        """Return which labels no sample has."""
        empty = [name for place, name in enumerate(self.names) if not (wanted[:, place] == 1).any()]
        return [f"holds no sample with {some_of(empty)}"] if empty else []

    def predicted(self, given: NDArray[Any]) -> NDArray[np.int64]:
        """Return which labels are said to be there, ``int64[n, labels]``.

        In float32, as artifacts answer: wider copies of an answer must say the same.
        """
        return (in_float32(given) >= np.float32(self.threshold)).astype(np.int64)

    def scores(self, given: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
        """Return the F1 of each sample."""
        return np.where(finite_rows(given), _f1(self.predicted(given), wanted), 0.0)

    def agreement(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
        """Return the F1 of each sample, with what the first model said as what was wanted."""
        both = finite_rows(first) == finite_rows(second)
        return np.where(both, _f1(self.predicted(first), self.predicted(second)), 0.0)

    def features(self, name: str, given: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Return how many labels were said, and the probability of each of the first sixteen."""
        values = np.asarray(given, dtype=np.float64)
        is_none = ~finite_rows(values)
        said = np.where(is_none, np.nan, self.predicted(values).sum(axis=1))
        columns = {f"{name}.labels": said}
        for place, label in enumerate(self.names[:_WATCHED]):
            # A label may be called as their number is.
            columns.setdefault(f"{name}.{label}", np.where(is_none, np.nan, values[:, place]))
        return columns

    def metrics(self, given: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
        """Return the mean F1 of the samples, and precision, recall and F1 over all labels of all samples."""
        said = self.predicted(given)
        hits, asked, answered = int((said & wanted).sum()), int(wanted.sum()), int(said.sum())
        return {
            "score": float(self.scores(given, wanted).mean()),
            "precision": hits / answered if answered else 0.0,
            "recall": hits / asked if asked else 0.0,
            "f1": 2 * hits / (asked + answered) if asked + answered else 0.0,
            "all_right": float((said == wanted).all(axis=1).mean()),
        }

    def baseline(self, wanted: NDArray[Any]) -> tuple[str, NDArray[np.float32]]:
        """Return the share of the training data that has each label."""
        return "always the labels that more than half of the samples have", wanted.mean(axis=0).astype(np.float32)

    def told(self, given: NDArray[Any]) -> dict[str, Any]:
        """Return ``labels``, those that are there, None where there is no answer; and the ``probabilities`` of all."""
        said = self.predicted(given[None])[0]
        labels = [name for name, is_there in zip(self.names, said, strict=True) if is_there]
        return {
            "labels": labels if finite_rows(given[None])[0] else None,
            "probabilities": {name: told_number(value) for name, value in zip(self.names, given, strict=True)},
        }

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values, without its kind and weight."""
        return {"names": list(self.names), "threshold": self.threshold}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode it; the caller finishes *fields*."""
        return cls(fields.texts("names", maximum_items=MOST_NAMES), fields.number("threshold", minimum=0, maximum=1))


def _f1(said: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.float64]:
    hits, all_of_them = (said & wanted).sum(axis=1), (said + wanted).sum(axis=1)
    return np.asarray(
        np.divide(2.0 * hits, all_of_them, out=np.ones(len(said)), where=all_of_them > 0), dtype=np.float64
    )
