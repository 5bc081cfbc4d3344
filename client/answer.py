"""What a model says about one sample, as programs on the device get it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.schema import ModelSchema
from hedgerow.tensor_border import plain_numbers

__all__ = ["PROBABILITIES", "Answer", "make_answer"]

PROBABILITIES = "probabilities"
"""The output of a classifier: one probability for each class."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The prediction for one sample.

    Attributes:
        release: Who said so, as ``name@number``.
        outputs: Output name -> array as in the model's schema, without the batch dimension; read-only.
        index: The likeliest class, from 0; None for a model that does not classify, or whose probabilities are not
            numbers.
        label: Its name; None where classes have no names.
        confidence: Its probability.
    """

    release: str
    outputs: Mapping[str, NDArray[Any]]
    index: int | None = None
    label: str | None = None
    confidence: float | None = None

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values; what is not finite becomes null."""
        return {
            "release": self.release,
            "label": self.label,
            "index": self.index,
            "confidence": self.confidence,
            "outputs": {name: plain_numbers(values) for name, values in self.outputs.items()},
        }


def make_answer(release: str, schema: ModelSchema, outputs: Mapping[str, NDArray[Any]]) -> Answer:
    """Return the answer that *outputs*, a batch of one, hold.

    Args:
        release: The release that predicted.
        schema: Its schema.
        outputs: Each ``(1, *shape)``.
    """
    single = {name: np.asarray(values)[0, ...] for name, values in outputs.items()}
    for values in single.values():
        # Several programs may hold the same array.
        values.flags.writeable = False
    probabilities = single.get(PROBABILITIES)
    if probabilities is None or np.ndim(probabilities) != 1 or not len(probabilities):
        return Answer(release, single)
    if not np.isfinite(probabilities).all():
        return Answer(release, single)
    index = int(np.argmax(probabilities))
    label = schema.labels[index] if index < len(schema.labels) else None
    return Answer(release, single, index, label, float(probabilities[index]))
