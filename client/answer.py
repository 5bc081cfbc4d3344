"""What a model says about one sample, as programs on the device get it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.model_schema import ModelSchema
from hedgerow.tensor_border import plain_numbers

__all__ = ["Answer", "make_answer"]

_CLASS_WORDS = {"label", "index", "confidence"}


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The prediction for one sample.

    Attributes:
        release: Who said so, as ``name@number``.
        outputs: Output name -> array as in the model's schema, without the batch dimension; read-only.
        told: The same in words, as the record of the output has it (:meth:`hedgerow.outputs.Output.told`): of classes
            ``label``, ``index`` and ``confidence``, of values each by its name, and so on; with several outputs by
            their names. Empty for a model of which nobody has said what it gives.
    """

    release: str
    outputs: Mapping[str, NDArray[Any]]
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def index(self) -> int | None:
        """The likeliest class, from 0; None for a model that gives anything but one of several classes."""
        found: int | None = self._of_class("index")
        return found

    @property
    def label(self) -> str | None:
        """The name of the likeliest class; None for a model that gives anything else."""
        found: str | None = self._of_class("label")
        return found

    @property
    def confidence(self) -> float | None:
        """The probability of the likeliest class; None for a model that gives anything else."""
        found: float | None = self._of_class("confidence")
        return found

    def _of_class(self, word: str) -> Any:
        # Values may be called so, too, and are floats; neither the name nor the index of a class is one.
        if self.told.keys() != _CLASS_WORDS or any(isinstance(self.told[each], float) for each in ("label", "index")):
            return None
        return self.told[word]

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values; what is not finite becomes null."""
        return {
            "release": self.release,
            "told": dict(self.told),
            "outputs": {name: plain_numbers(values) for name, values in self.outputs.items()},
        }


def make_answer(release: str, schema: ModelSchema, outputs: Mapping[str, NDArray[Any]]) -> Answer:
    """Return the answer that *outputs*, a batch of one, hold.

    Args:
        release: The release that predicted.
        schema: Its schema.
        outputs: Each ``(1, *shape)``.

    Raises:
        KeyError: One that the schema has a record of is not there.
    """
    single = {name: np.asarray(values)[0, ...] for name, values in outputs.items()}
    for values in single.values():
        # Several programs may hold the same array.
        values.flags.writeable = False
    return Answer(release, single, schema.answers.told(single) if schema.answers else {})
