"""What a model gives, and what it is for: the form of the target values, the score, what is counted of it.

Records only: no torch, so that they go into a release and work on a device. Losses stand beside torch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.schema import TensorSpec

__all__ = ["LONGEST_PART", "MOST_FEATURES", "Classified", "Output", "finite_rows", "in_float32", "told_number"]

MOST_FEATURES = 128
"""So many features of all outputs together are watched, so that a window of them is no longer than a message."""
LONGEST_PART = 56
"""Characters of a name that is part of a feature's, which has 128: ``output.``, the output's 64, a point, and it."""


@dataclass(frozen=True, slots=True)
class Classified:
    """Samples that each got exactly one of several classes: what a table of classes is made of.

    Attributes:
        names: Of the classes.
        wanted: Class of each sample, ``int64[n]``.
        given: What was answered, ``int64[n]``; -1 where nothing was.
    """

    names: tuple[str, ...]
    wanted: NDArray[np.int64]
    given: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Output(ABC):
    """One thing that a model gives.

    All arrays have the samples as their first dimension. *given* is what an artifact gives, of the shape of
    :meth:`tensor`; *wanted* are target values, of :attr:`target_shape` and :attr:`target_dtype`.

    Attributes:
        weight: Of its loss and its score beside those of a model's other outputs.
    """

    kind: ClassVar[str]
    """Its name in records."""
    tensor_name: ClassVar[str]
    """Of its tensor, where the model has no other output."""
    score_key: ClassVar[str] = "score"
    """Of the mean score in metrics; ``accuracy`` for classes."""
    score_name: ClassVar[str] = "score"
    """What people call the mean score."""
    agreement_name: ClassVar[str] = "agreement"
    """What people call the mean of :meth:`agreement`."""
    losses: ClassVar[tuple[str, ...]]
    """The losses that fit it, the default first."""
    target_dtype: ClassVar[str]
    """Of a target value."""
    learns_alone: ClassVar[bool] = False
    """Whether it is trained on inputs alone, without target values."""
    is_scored_on_devices: ClassVar[bool] = True
    """Whether a release holds what a score is made by."""
    is_all_or_nothing: ClassVar[bool] = False
    """Whether a score is 0 or 1 and nothing between."""
    known_word: ClassVar[str] = "scored"
    """What a sample is whose target value is known: so many ``scored`` samples."""
    request: ClassVar[str] = "give target values"
    """What people are asked for where none is known."""
    saturates: ClassVar[bool] = False
    """Whether a number that is larger than all that an integer holds may stand for it: it says no less."""
    not_learned: ClassVar[str] = ""
    """What samples are that it does not learn from; empty where it learns from all."""

    weight: float = field(default=1.0, kw_only=True)

    @abstractmethod
    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong with it."""

    @abstractmethod
    def tensor(self, name: str) -> TensorSpec:
        """Return the tensor that artifacts give, called *name*."""

    @property
    def activation(self) -> str:
        """What makes an answer of what the model gives: ``softmax``, ``sigmoid``, ``mean_square`` or ``none``."""
        return "none"

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the numbers along the last dimension of the tensor; empty: they have none."""
        return ()

    @property
    @abstractmethod
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one sample's target value."""

    @abstractmethod
    def target_mistakes(self, wanted: NDArray[Any]) -> list[str]:
        """Return one sentence for everything that is wrong with target values of the right shape and dtype."""

    @abstractmethod
    def unknown(self, samples: int) -> NDArray[Any]:
        """Return target values of samples of which none is known."""

    @abstractmethod
    def is_known(self, wanted: NDArray[Any]) -> NDArray[np.bool_]:
        """Return of which samples the target value is known, ``bool[n]``."""

    def value_mistakes(self, wanted: NDArray[Any]) -> list[str]:
        """Return one sentence for everything that is wrong with one sample's target value, which may be unknown.

        Args:
            wanted: ``(1, *target_shape)``.
        """
        return [] if np.array_equal(wanted, self.unknown(1)) else self.target_mistakes(wanted)

    @property
    def can_score(self) -> bool:
        """Whether this process can score answers; false: they can only be compared with another model's."""
        return True

    @property
    def chance(self) -> float:
        """Mean score that guessing reaches, where that is known of every task; else 0."""
        return 0.0

    def is_like(self, other: "Output") -> bool:
        """Return whether answers of a model with the record *other* mean the same, whatever its weight."""
        return replace(other, weight=self.weight) == self

    def translated(self, given: NDArray[Any], other: "Output") -> NDArray[Any]:
        """Return answers of a model with the record *other*, which is like this one, as this one would have them."""
        del other
        return given

    @property
    def strata_names(self) -> Sequence[str]:
        """What the classes of :meth:`strata` are called; empty where there are none."""
        return ()

    def notes(self, wanted: NDArray[Any]) -> list[str]:
        """Return what may surprise in target values that are allowed, each beginning with a verb."""
        del wanted
        return []

    def learnable(self, wanted: NDArray[Any]) -> NDArray[np.bool_]:
        """Return from which samples it learns, and on which its loss says something, ``bool[n]``."""
        return np.ones(len(wanted), dtype=np.bool_)

    def strata(self, wanted: NDArray[Any]) -> NDArray[np.int64] | None:
        """Return a class of each sample by which a data set can be cut into unlike shards; None: there is none."""
        del wanted
        return None

    def classified(self, given: NDArray[Any], wanted: NDArray[Any]) -> Classified | None:
        """Return answers and target values as classes, where each sample has exactly one; else None."""
        del given, wanted
        return None

    @abstractmethod
    def scores(self, given: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
        """Return how good each answer was, ``float64[n]`` in [0, 1]; what is not finite is worth nothing."""

    @abstractmethod
    def agreement(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
        """Return how alike two models' answers are, ``float64[n]`` in [0, 1]."""

    @abstractmethod
    def features(self, name: str, given: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Return what is counted of the output called *name*, feature -> ``float64[n]``; NaN where there is nothing."""

    def categories(self, name: str) -> Mapping[str, Sequence[str]]:
        """Return which of :meth:`features` are indices of something, with its names."""
        del name
        return {}

    @abstractmethod
    def metrics(self, given: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
        """Return what people expect to read of this kind, by name; the mean score first.

        Args:
            given: Answers to samples whose target values are all known.
            wanted: These.
        """

    @abstractmethod
    def baseline(self, wanted: NDArray[Any]) -> tuple[str, NDArray[np.float32]]:
        """Return what answers best without looking at the input, in words, and its answer, of the tensor's shape.

        Args:
            wanted: Target values of the training data.
        """

    def last_values(self, wanted: NDArray[Any]) -> NDArray[Any] | None:
        """Return for each step but the first what is wanted one step earlier, as an answer; None: nobody compares so.

        Args:
            wanted: Target values of sequences, ``(n, steps, *target_shape)``.
        """
        del wanted
        return None

    def measured(self, given: NDArray[Any], wanted: NDArray[Any]) -> Self:
        """Return this with what only a trained model's answers can tell, such as a threshold; most kinds need nothing.

        What is there already stays: the user has said it, or it was measured before.

        Args:
            given: The float model's answers to held-out samples.
            wanted: Their target values, which need not be known.
        """
        del given, wanted
        return self

    @abstractmethod
    def told(self, given: NDArray[Any]) -> dict[str, Any]:
        """Return one answer in the words of a program, as plain JSON values.

        Args:
            given: One sample's, of the tensor's shape.
        """

    @abstractmethod
    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values, without its kind and weight."""

    @classmethod
    @abstractmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode what :meth:`to_record` gives; the caller finishes *fields*.

        Raises:
            DecodeError: A field is absent or out of bounds.
        """


def finite_rows(given: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which samples have only finite values, ``bool[n]``."""
    values = np.asarray(given)
    finite: NDArray[np.bool_] = np.isfinite(values.reshape(len(values), math.prod(values.shape[1:]))).all(axis=1)
    return finite


def in_float32(given: NDArray[Any]) -> NDArray[np.float32]:
    """Return answers as artifacts give them, so that a wider copy is judged as they are."""
    with np.errstate(over="ignore"):
        return np.asarray(given, dtype=np.float32)


def told_number(value: Any) -> float | None:
    """Return a number as JSON has it: None for what is not finite."""
    return float(value) if np.isfinite(value) else None
