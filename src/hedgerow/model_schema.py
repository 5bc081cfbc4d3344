"""What goes into a model, what comes out, and what it is for.

The same schema checks a user's task, names the tensors of every artifact, rides in the release manifest and guards
the device's prediction call, so training and serving cannot disagree.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError, InputError
from hedgerow.outputs.labelled import outputs_of_labels
from hedgerow.outputs.outputs import NO_OUTPUTS, Outputs
from hedgerow.schema import TENSOR_NAME, TensorSpec
from hedgerow.state import MOST_STATES, MOST_VALUES

__all__ = ["ModelSchema"]


@dataclass(frozen=True, slots=True)
class ModelSchema:
    """All tensors of a model, in order, and what its outputs are for.

    Attributes:
        inputs: What the model takes: what a caller gives, and state.
        outputs: What it gives, after post-processing: what a caller gets, and state.
        answers: What each output is for, but those of state; empty where nobody has said it.
        state: Input -> the output of the prediction before that it takes; before the first prediction of a stream it
            is zero. Whoever runs the model carries it. Both have one shape and one dtype.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    answers: Outputs = NO_OUTPUTS
    state: Mapping[str, str] = field(default_factory=dict)

    @property
    def given(self) -> "ModelSchema":
        """What a caller gives and gets: without the state."""
        if not self.state:
            return self
        outputs = tuple(spec for spec in self.outputs if spec.name not in self.state.values())
        # A file from elsewhere may give its state for an answer.
        return ModelSchema(
            tuple(spec for spec in self.inputs if spec.name not in self.state), outputs or self.outputs, self.answers
        )

    def state_misfit(self) -> tuple[str, str] | None:
        """Return what was expected of the state and what was found, or None where nothing is wrong with it."""
        if not self.state:
            return None
        if len(self.state) > MOST_STATES:
            return f"at most {MOST_STATES} state tensors", str(len(self.state))
        taken, given = ({spec.name: spec for spec in specs} for specs in (self.inputs, self.outputs))
        for into, out in self.state.items():
            if into not in taken or out not in given:
                return "pairs of an input and an output of the schema", f"{into} = {out}"
            one, other = taken[into], given[out]
            if (one.shape, one.dtype) != (other.shape, other.dtype):
                found = f"{one.dtype}{list(one.shape)} as {into} and {other.dtype}{list(other.shape)} as {out}"
                return "one shape and one dtype at both ends of a state", found
        if len(set(self.state.values())) != len(self.state):
            return "an output of its own for each state", "one output for two"
        if len(self.state) == len(self.inputs):
            return "an input that is no state", "none"
        if (total := sum(math.prod(taken[name].shape) for name in self.state)) > MOST_VALUES:
            return f"at most {MOST_VALUES} numbers of state", str(total)
        return None

    def check_inputs(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Refuse inputs that are not one batch of every input tensor.

        Raises:
            InputError: A tensor is missing, unknown, of another shape, dtype or batch size.
        """
        names = [spec.name for spec in self.inputs]
        if sorted(inputs) != sorted(names):
            raise InputError(f"expected the inputs {', '.join(names)}, found {', '.join(sorted(inputs)) or 'none'}")
        sizes = {spec.check(inputs[spec.name]).shape[0] for spec in self.inputs}
        if len(sizes) != 1:
            raise InputError(f"expected one batch size in all inputs, found {sorted(sizes)}")

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "inputs": [spec.to_record() for spec in self.inputs],
            "outputs": [spec.to_record() for spec in self.outputs],
            "answers": self.answers.to_record(),
            # A release without state is what it always was, so that agents of before read it.
            **({"state": dict(self.state)} if self.state else {}),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "ModelSchema":
        """Decode a schema.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        pairs = fields.optional("state")
        if pairs is not None and not 0 < len(pairs.names()) <= MOST_STATES:
            raise DecodeError(pairs.where, f"one to {MOST_STATES} state tensors", str(len(pairs.names())))
        inputs = fields.sequence("inputs", TensorSpec.from_fields, maximum_items=16)
        outputs = fields.sequence("outputs", TensorSpec.from_fields, maximum_items=16)
        schema = cls(
            inputs=inputs,
            outputs=outputs,
            answers=_answers(fields, outputs),
            state={name: pairs.text(name, pattern=TENSOR_NAME) for name in pairs.names()} if pairs is not None else {},
        )
        fields.finish()
        if misfit := schema.state_misfit():
            raise DecodeError(f"{fields.where}.state", *misfit)
        return schema


def _answers(fields: Fields, tensors: tuple[TensorSpec, ...]) -> Outputs:
    if "labels" not in fields.names() or "answers" in fields.names():
        return Outputs.from_fields(fields.nested("answers"), tensors)
    # A release that was signed when models gave classes and nothing else is served and watched as it was.
    return outputs_of_labels(fields, tensors)
