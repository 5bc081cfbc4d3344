"""All outputs of a model together: one score of a sample, whatever the model gives."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.outputs.output import MOST_FEATURES, Output
from hedgerow.outputs.records import output_from_fields, output_to_record
from hedgerow.schema import TENSOR_NAME, TensorSpec

__all__ = ["MOST_OUTPUTS", "NO_OUTPUTS", "OUTPUT_FEATURES", "Arrays", "Outputs"]

MOST_OUTPUTS = 16
"""So many outputs may a model have."""
OUTPUT_FEATURES = "output"
"""What the names of features of outputs begin with; no input is called so."""

Arrays = Mapping[str, NDArray[Any]]
"""One array for each output, by its name: answers, or target values."""


@dataclass(frozen=True, slots=True)
class Outputs(Mapping[str, Output]):
    """Outputs by the names of their tensors, in the order in which the model gives them.

    The score of a sample is the mean of its outputs' scores by their weights. A sample counts where every output has
    its target value: with one of two outputs known, a change of the mean would tell which ones were.

    Attributes:
        by_name: The outputs.
    """

    by_name: Mapping[str, Output]

    @classmethod
    def of(cls, given: Output | Mapping[str, Output]) -> "Outputs":
        """Return outputs of a mapping, or of one output, which is called after its kind."""
        return cls({given.tensor_name: given} if isinstance(given, Output) else dict(given))

    def __getitem__(self, name: str) -> Output:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    @property
    def alone(self) -> Output | None:
        """The only output; None where there are several, or none."""
        return next(iter(self.values())) if len(self) == 1 else None

    @property
    def score_key(self) -> str:
        """Of the mean score in metrics."""
        return self.alone.score_key if self.alone is not None else "score"

    @property
    def score_name(self) -> str:
        """What people call the mean score."""
        return self.alone.score_name if self.alone is not None else "score"

    @property
    def is_all_or_nothing(self) -> bool:
        """Whether the score of a sample is 0 or 1 and nothing between."""
        return self.alone is not None and self.alone.is_all_or_nothing

    @property
    def known_word(self) -> str:
        """What a sample is whose target values are known."""
        return self.alone.known_word if self.alone is not None else Output.known_word

    @property
    def request(self) -> str:
        """What people are asked for where no target value is known."""
        return self.alone.request if self.alone is not None else Output.request

    @property
    def chance(self) -> float:
        """Mean score that guessing reaches, as far as it is known."""
        return float(self._mean([np.array([output.chance]) for output in self.values()])[0]) if self else 0.0

    @property
    def goes_by_agreement(self) -> bool:
        """Whether answers are judged by how alike they are to another model's, as no score need ever come of them.

        That is so where a device cannot score them, and where the model learns without target values.
        """
        return bool(self) and (self.learns_alone or not self.can_score)

    @property
    def can_score(self) -> bool:
        """Whether this process can score answers."""
        return bool(self) and all(output.can_score for output in self.values())

    @property
    def learns_alone(self) -> bool:
        """Whether it is trained on inputs alone, without target values."""
        return bool(self) and all(output.learns_alone for output in self.values())

    def tensors(self) -> tuple[TensorSpec, ...]:
        """Return the tensors that artifacts give, in order."""
        return tuple(output.tensor(name) for name, output in self.items())

    def named(self, values: NDArray[Any] | Arrays | None, samples: int) -> dict[str, NDArray[Any]]:
        """Return target values by the names of the outputs.

        Args:
            values: By name, where an output that learns alone may be left out; of the only output alone; or None: none
                is known.
            samples: How many there are, of which nothing is known where values are left out.

        Raises:
            ValueError: The names are others, or there is one array for several outputs.
        """
        if values is None:
            return {name: output.unknown(samples) for name, output in self.items()}
        if not isinstance(values, Mapping):
            if len(self) != 1:
                raise ValueError(f"expected target values for each of {', '.join(self)}, found one array")
            return dict.fromkeys(self, values)
        needed = {name for name, output in self.items() if not output.learns_alone}
        if not needed <= set(values) <= set(self):
            found = ", ".join(sorted(map(str, values))) or "none"
            raise ValueError(f"expected target values for {', '.join(self)}, found {found}")
        return {name: values[name] if name in values else output.unknown(samples) for name, output in self.items()}

    def learnable(self, wanted: Arrays) -> NDArray[np.bool_]:
        """Return from which samples every output learns, ``bool[n]``."""
        every: NDArray[np.bool_] = np.logical_and.reduce(
            [output.learnable(wanted[name]) for name, output in self.items()]
        )
        return every

    def known(self, wanted: Arrays) -> NDArray[np.bool_]:
        """Return of which samples every target value is known and can be scored here, ``bool[n]``."""
        known = [output.is_known(wanted[name]) & output.can_score for name, output in self.items()]
        every: NDArray[np.bool_] = np.logical_and.reduce(known)
        return every

    def is_like(self, others: "Outputs") -> bool:
        """Return whether answers of a model with the records *others* mean the same."""
        return bool(self) and set(self) == set(others) and all(o.is_like(others[name]) for name, o in self.items())

    def translated(self, given: Arrays, others: "Outputs") -> dict[str, NDArray[Any]]:
        """Return answers of a model with the records *others*, which are like these, as this model would have them."""
        return {name: output.translated(given[name], others[name]) for name, output in self.items()}

    def scores(self, given: Arrays, wanted: Arrays) -> NDArray[np.float64]:
        """Return how good the answers to each sample were, ``float64[n]`` in [0, 1]."""
        return self._mean([output.scores(given[name], wanted[name]) for name, output in self.items()])

    def agreement(self, first: Arrays, second: Arrays) -> NDArray[np.float64]:
        """Return how alike two models' answers are, ``float64[n]`` in [0, 1]."""
        return self._mean([output.agreement(first[name], second[name]) for name, output in self.items()])

    def _mean(self, columns: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        if len(columns) == 1:
            return columns[0]  # exactly: no weight is divided out again
        weights = np.array([output.weight for output in self.values()], dtype=np.float64)
        # Rounding may leave a mean of ones above 1.
        mean: NDArray[np.float64] = np.minimum(1.0, np.stack(columns, axis=1) @ (weights / weights.sum()))
        return mean

    def features(self, given: Arrays) -> dict[str, NDArray[np.float64]]:
        """Return what is counted of all outputs, feature -> ``float64[n]``; NaN where there is nothing.

        Those that an output says first, where all together would be too many.
        """
        found: dict[str, NDArray[np.float64]] = {}
        for name, output in self.items():
            features = output.features(self._prefix(name), given[name])
            found.update(islice(features.items(), MOST_FEATURES // len(self)))
        return found

    def categories(self) -> dict[str, Sequence[str]]:
        """Return which of :meth:`features` are indices of something, with its names."""
        found: dict[str, Sequence[str]] = {}
        for name, output in self.items():
            found.update(output.categories(self._prefix(name)))
        return found

    def _prefix(self, name: str) -> str:
        return OUTPUT_FEATURES if len(self) == 1 else f"{OUTPUT_FEATURES}.{name}"

    def metrics(self, given: Arrays, wanted: Arrays) -> dict[str, float]:
        """Return what people expect to read; the mean score first, and with several outputs each one's own.

        Args:
            given: Answers to samples whose target values are all known.
            wanted: These.
        """
        if self.alone is not None:
            (name,) = self
            return self.alone.metrics(given[name], wanted[name])
        found = {self.score_key: float(self.scores(given, wanted).mean())}
        for name, output in self.items():
            found |= {f"{name}.{key}": value for key, value in output.metrics(given[name], wanted[name]).items()}
        return found

    def baseline(self, wanted: Arrays) -> tuple[str, dict[str, NDArray[np.float32]]]:
        """Return what answers best without looking at the input, in words, and its answers.

        Args:
            wanted: Target values of the training data.
        """
        words, answers = {}, {}
        for name, output in self.items():
            words[name], answers[name] = output.baseline(wanted[name])
        if len(words) == 1:
            return next(iter(words.values())), answers
        return "; ".join(f"{name}: {said}" for name, said in words.items()), answers

    def last_value_score(self, wanted: Arrays) -> float | None:
        """Return the mean score of always answering what was wanted one step earlier: the naive forecast.

        Steps count of which that step and the one before are known.

        Args:
            wanted: Target values of sequences, ``(n, steps, *target_shape)``.

        Returns:
            None where an output is not compared so, or no step counts.
        """
        before = {name: output.last_values(wanted[name]) for name, output in self.items()}
        given = {name: values.reshape(-1, *values.shape[2:]) for name, values in before.items() if values is not None}
        if len(given) < len(self):
            return None
        after = {name: wanted[name][:, 1:].reshape(-1, *wanted[name].shape[2:]) for name in self}
        counts = self.known(after) & self.known(given)
        if not counts.any():
            return None
        parts = ({name: rows[counts] for name, rows in arrays.items()} for arrays in (given, after))
        return float(self.scores(*parts).mean())

    def measured(self, given: Arrays, wanted: Arrays) -> "Outputs":
        """Return these with what only a trained model's answers can tell; what is there already stays.

        Args:
            given: The float model's answers to held-out samples.
            wanted: Their target values, which need not be known.
        """
        return Outputs({name: output.measured(given[name], wanted[name]) for name, output in self.items()})

    def strata(self, wanted: Arrays) -> NDArray[np.int64] | None:
        """Return a class of each sample by which data can be cut into unlike shards: the first that an output has."""
        for name, output in self.items():
            if (found := output.strata(wanted[name])) is not None:
                return found
        return None

    def told(self, given: Arrays) -> dict[str, Any]:
        """Return one answer in the words of a program; with several outputs, by their names.

        Args:
            given: One sample's answers, each of its tensor's shape.
        """
        said = {name: output.told(np.asarray(given[name])) for name, output in self.items()}
        return next(iter(said.values())) if len(said) == 1 else said

    def misfit(self, tensors: Sequence[TensorSpec]) -> tuple[str, str] | None:
        """Return what was expected of the tensors of a model and what was found, or None where they fit."""
        shapes = {spec.name: spec.shape for spec in tensors}
        for name, output in self.items():
            wanted = output.tensor(name).shape
            if name not in shapes:
                return f"a tensor called {name}", ", ".join(shapes) or "none"
            if shapes[name] != wanted:
                return f"{output.kind} of the shape {list(wanted)} in {name}", str(list(shapes[name]))
        return None

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {name: output_to_record(output) for name, output in self.items()}

    @classmethod
    def from_fields(cls, fields: Fields, tensors: Sequence[TensorSpec]) -> "Outputs":
        """Decode outputs.

        Args:
            fields: Output by name.
            tensors: Of the model, which give the order.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds, or the tensors are others.
        """
        names = fields.names()
        if len(names) > MOST_OUTPUTS or not all(TENSOR_NAME.fullmatch(name) for name in names):
            raise DecodeError(fields.where, f"at most {MOST_OUTPUTS} outputs by their names", f"{len(names)} others")
        found = {name: output_from_fields(fields.nested(name)) for name in names}
        ordered = [spec.name for spec in tensors if spec.name in found]
        outputs = cls({name: found[name] for name in dict.fromkeys((*ordered, *names))})
        if misfit := outputs.misfit(tensors):
            raise DecodeError(fields.where, *misfit)
        return outputs


NO_OUTPUTS = Outputs({})
"""Of a model of which nobody has said what it gives."""
