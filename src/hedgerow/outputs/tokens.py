"""A token at each position of a sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.outputs.bounds import as_number, size_mistakes
from hedgerow.outputs.names import MOST_NAMES, as_names, names_mistakes
from hedgerow.outputs.output import Output, told_number
from hedgerow.schema import TensorSpec

__all__ = ["Tokens"]


@dataclass(frozen=True, slots=True)
class Tokens(Output):
    """The token at each position, or the next one.

    The score of a sequence is the share of its known positions that are right. It is one score for a sequence, and not
    one for each position: positions of one sequence are not independent, and must not count as so many samples.

    Attributes:
        vocabulary: The tokens; the place is the token's index.
        positions: How many a sequence has.
    """

    kind: ClassVar[str] = "tokens"
    tensor_name: ClassVar[str] = "probabilities"
    score_name: ClassVar[str] = "share of right positions"
    agreement_name: ClassVar[str] = "equal tokens"
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy",)
    target_dtype: ClassVar[str] = "int64"

    vocabulary: Sequence[str]
    positions: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", as_names(self.vocabulary))
        object.__setattr__(self, "positions", as_number(self.positions))

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong with it."""
        return [
            *names_mistakes("token", self.vocabulary, least=2, may_be_blank=True),
            *size_mistakes("the positions", [self.positions]),
        ]

    def tensor(self, name: str) -> TensorSpec:
        """Return the tensor that artifacts give, called *name*."""
        return TensorSpec(name, (self.positions, len(self.vocabulary)), "float32", minimum=0.0, maximum=1.0)

    @property
    def activation(self) -> str:
        """What makes an answer of what the model gives."""
        return "softmax"

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the numbers along the last dimension of the tensor."""
        return tuple(self.vocabulary)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one sample's target value."""
        return (self.positions,)

    def target_mistakes(self, wanted: NDArray[Any]) -> list[str]:
        """Return one sentence for everything that is wrong with target values."""
        last = len(self.vocabulary) - 1
        if wanted.size and not (wanted.min() >= -1 and wanted.max() <= last):
            return [f"the tokens must lie in 0..{last}, or be -1 at padding; found {wanted.min()}..{wanted.max()}"]
        if len(wanted) and (wanted < 0).all(axis=1).any():
            return ["a sequence has no token that is not padding"]
        return []

    def unknown(self, samples: int) -> NDArray[Any]:
        """Return -1 for each position of each sample."""
        return np.full((samples, self.positions), -1, dtype=np.int64)

    def is_known(self, wanted: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which sequences have a target value at one position at least."""
        return np.asarray((wanted >= 0).any(axis=1), dtype=np.bool_)

    def predicted(self, given: NDArray[Any]) -> NDArray[np.int64]:
        """Return the most probable token at each position, ``int64[n, positions]``; -1 where a value is not finite."""
        values = np.asarray(given)
        return np.where(np.isfinite(values).all(axis=2), values.argmax(axis=2), -1).astype(np.int64)

    def scores(self, given: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
        """Return the share of the known positions of each sequence that are right."""
        known = wanted >= 0
        right = ((self.predicted(given) == wanted) & known).sum(axis=1)
        return np.asarray(
            np.divide(right, known.sum(axis=1), out=np.zeros(len(wanted)), where=known.any(axis=1)), dtype=np.float64
        )

    def agreement(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
        """Return the share of the positions at which both say the same token."""
        alike: NDArray[np.float64] = (self.predicted(first) == self.predicted(second)).mean(axis=1)
        return alike

    def features(self, name: str, given: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Return the mean and the least confidence over the positions, and how many tokens differ."""
        values = np.asarray(given, dtype=np.float64)
        is_none = ~np.isfinite(values).all(axis=(1, 2))
        confidence, said = values.max(axis=2), self.predicted(values)
        return {
            f"{name}.confidence": np.where(is_none, np.nan, confidence.mean(axis=1)),
            f"{name}.least_confidence": np.where(is_none, np.nan, confidence.min(axis=1)),
            f"{name}.distinct": np.where(is_none, np.nan, [float(len(set(row))) for row in said.tolist()]),
        }

    def metrics(self, given: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
        """Return the share of right positions of a sequence, that of all positions, and the perplexity.

        A token that was given no probability at all counts with the smallest normal float32.
        """
        known = wanted >= 0
        places = np.where(known, wanted, 0)[..., None]
        probability = np.take_along_axis(np.asarray(given, dtype=np.float64), places, axis=2)[..., 0][known]
        least = float(np.finfo(np.float32).tiny)
        bounded = np.maximum(np.nan_to_num(probability, nan=0.0), least)
        return {
            "score": float(self.scores(given, wanted).mean()),
            "right_positions": float((self.predicted(given) == wanted)[known].mean()),
            "perplexity": float(np.exp(-np.log(bounded).mean())),
        }

    def baseline(self, wanted: NDArray[Any]) -> tuple[str, NDArray[np.float32]]:
        """Return the shares of the tokens in the training data: the most frequent one is answered."""
        shares = np.bincount(wanted[wanted >= 0], minlength=len(self.vocabulary)) / max(1, int((wanted >= 0).sum()))
        answer = np.broadcast_to(shares.astype(np.float32), (self.positions, len(self.vocabulary)))
        return f"always {self.vocabulary[int(shares.argmax())]!r}, the most frequent token", answer.copy()

    def told(self, given: NDArray[Any]) -> dict[str, Any]:
        """Return the ``tokens``, None where there is no answer, and their ``confidence``."""
        said = self.predicted(given[None])[0].tolist()
        return {
            "tokens": [self.vocabulary[index] if index >= 0 else None for index in said],
            "confidence": [told_number(value) for value in given.max(axis=1)],
        }

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values, without its kind and weight."""
        return {"vocabulary": list(self.vocabulary), "positions": self.positions}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode it; the caller finishes *fields*."""
        return cls(fields.texts("vocabulary", maximum_items=MOST_NAMES), fields.integer("positions", minimum=1))
