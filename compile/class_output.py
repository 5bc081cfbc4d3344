"""Which output of a file is classes, and what its numbers say as one score for each class. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hedgerow.model_schema import ModelSchema
from hedgerow.schema import TensorSpec

__all__ = ["ClassOutput", "class_scores", "find_class_output"]

_SCORES, _SCORE, _LABEL = "a score for each class", "one score of the second of two classes", "the class itself"
_SAID = "probabilities"


@dataclass(frozen=True, slots=True)
class ClassOutput:
    """The output of a file that is classes.

    Attributes:
        name: Of it, in the schema.
        kind: What its numbers are.
        classes: How many classes there are.
    """

    name: str
    kind: str
    classes: int

    @property
    def has_scores(self) -> bool:
        """Whether it gives a score for each class."""
        return self.kind == _SCORES

    @property
    def is_class(self) -> bool:
        """Whether it gives the class itself."""
        return self.kind == _LABEL


def find_class_output(schema: ModelSchema, labels: NDArray[np.int64]) -> ClassOutput | str:
    """Return the output of a file that is classes, or why none is.

    That is the output called ``probabilities``, else the first with as many real numbers as there are classes or more,
    else the first with a whole number, else the only one with one real number for two classes.

    Args:
        schema: Of the file.
        labels: Class of each sample, which say how many classes there are at least.
    """
    least = int(labels.max(initial=0)) + 1
    flat = {spec.name: spec for spec in schema.outputs if sum(size > 1 for size in spec.shape) <= 1}
    scores = [s for s in flat.values() if s.dtype == "float32" and _size(s) >= max(2, least)]
    for spec in sorted(scores, key=lambda spec: spec.name != _SAID):
        return ClassOutput(spec.name, _SCORES, _size(spec))
    for spec in flat.values():
        if spec.dtype.startswith(("int", "uint")) and _size(spec) == 1:
            return ClassOutput(spec.name, _LABEL, max(2, least))
    single = [spec for spec in flat.values() if spec.dtype == "float32" and _size(spec) == 1]
    if len(single) == 1 and least <= 2:
        return ClassOutput(single[0].name, _SCORE, 2)
    shapes = ", ".join(f"{spec.name} of {spec.dtype}{list(spec.shape)}" for spec in schema.outputs)
    return f"no output is a score for each of the {least} classes of the labels, or the class itself: {shapes}"


def _size(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64))


def class_scores(output: ClassOutput, outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return a score for each class, ``float32[n, classes]``; NaN where a sample's class is none.

    Args:
        output: Which output, and what it is.
        outputs: What the file gave, each ``float32[n, ...]``.
    """
    values = outputs[output.name].reshape(len(outputs[output.name]), -1)
    if output.kind == _SCORES:
        return values
    column = values[:, 0]
    if output.kind == _LABEL:
        found = np.zeros((len(column), output.classes), np.float32)
        is_class = (column >= 0) & (column < output.classes)
        found[np.flatnonzero(is_class), column[is_class].astype(np.int64)] = 1.0
        found[~is_class] = np.nan
        return found
    # A score outside 0 to 1 is no probability: the logit of one.
    inside = np.all((column >= 0) & (column <= 1) | np.isnan(column))
    second = column if inside else 0.5 + 0.5 * np.tanh(0.5 * column)
    return np.stack([1 - second, second], axis=1).astype(np.float32)
