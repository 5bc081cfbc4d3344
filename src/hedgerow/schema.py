"""What goes into a model and what comes out: names, shapes, types, units, valid ranges, labels.

The same schema checks a user's task, names the tensors of every artifact, rides in the release manifest and guards
the device's prediction call, so training and serving cannot disagree.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError, InputError
from hedgerow.state import MOST_STATES, MOST_VALUES

__all__ = ["DTYPES", "ModelSchema", "TensorSpec"]

DTYPES = ("float32", "int16", "int32", "int64", "uint8", "int8", "bool")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor, without its batch dimension.

    Attributes:
        name: Lower-case identifier; the tensor's name in every artifact.
        shape: Sizes after the batch dimension, such as ``(1, 28, 28)`` (channels first).
        dtype: One of :data:`DTYPES`.
        unit: What one unit of the value is, such as ``"intensity 0-16"`` or ``"m/s^2"``; for people.
        minimum: Smallest valid value, inclusive; values below it count as out of range. None: no bound.
        maximum: Largest valid value, inclusive.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        # A user may write a list, or forget that one number is no shape: mistakes() tells them, not a traceback.
        if isinstance(self.shape, Iterable):
            object.__setattr__(self, "shape", tuple(self.shape))

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong with this specification."""
        found = []
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            found.append(f"the tensor name {self.name!r} is not like {_NAME.pattern}")
        sizes = self.shape if isinstance(self.shape, tuple) else (None,)
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            found.append(f"{self.name}: the shape {self.shape} must hold positive whole numbers (leave the batch out)")
        if self.dtype not in DTYPES:
            found.append(f"{self.name}: the dtype {self.dtype!r} is none of {', '.join(DTYPES)}")
        if self.minimum is not None and self.maximum is not None and not self.minimum < self.maximum:
            found.append(f"{self.name}: the minimum {self.minimum} is not below the maximum {self.maximum}")
        return found

    def check(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return *values* if they are a batch of this tensor.

        Args:
            values: Shape ``(batch, *shape)`` and this dtype.

        Raises:
            InputError: The shape or the dtype differs.
        """
        if values.shape[1:] != self.shape or values.ndim != len(self.shape) + 1:
            raise InputError(
                f"{self.name}: expected the shape (batch, {', '.join(map(str, self.shape))}), found {values.shape}"
            )
        if values.dtype != np.dtype(self.dtype):
            raise InputError(
                f"{self.name}: expected the dtype {self.dtype}, found {values.dtype}; convert it with .astype"
            )
        return values

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "unit": self.unit,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "TensorSpec":
        """Decode one tensor.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        spec = cls(
            name=fields.text("name", pattern=_NAME),
            shape=fields.integers("shape", minimum=1, maximum_items=8),
            dtype=fields.choice("dtype", {name: name for name in DTYPES}),
            unit=fields.text("unit"),
            minimum=fields.optional_number("minimum"),
            maximum=fields.optional_number("maximum"),
        )
        fields.finish()
        return spec


@dataclass(frozen=True, slots=True)
class ModelSchema:
    """All tensors of a model, in order, and the names of its classes.

    Attributes:
        inputs: What the model takes: what a caller gives, and state.
        outputs: What it gives, after post-processing: what a caller gets, and state.
        labels: Class names, index = class; empty for a model that does not classify.
        state: Input -> the output of the prediction before that it takes; before the first prediction of a stream it
            is zero. Whoever runs the model carries it. Both have one shape and one dtype.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] = ()
    state: Mapping[str, str] = field(default_factory=dict)

    @property
    def given(self) -> "ModelSchema":
        """What a caller gives and gets: without the state."""
        if not self.state:
            return self
        outputs = tuple(spec for spec in self.outputs if spec.name not in self.state.values())
        # A file from elsewhere may give its state for an answer.
        return ModelSchema(
            tuple(spec for spec in self.inputs if spec.name not in self.state), outputs or self.outputs, self.labels
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
            "labels": list(self.labels),
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
        schema = cls(
            inputs=fields.sequence("inputs", TensorSpec.from_fields, maximum_items=16),
            outputs=fields.sequence("outputs", TensorSpec.from_fields, maximum_items=16),
            labels=fields.texts("labels", maximum_items=100_000),
            state={name: pairs.text(name, pattern=_NAME) for name in pairs.names()} if pairs is not None else {},
        )
        fields.finish()
        if misfit := schema.state_misfit():
            raise DecodeError(f"{fields.where}.state", *misfit)
        return schema
