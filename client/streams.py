"""State of a model from one prediction to the next: kept for each stream, zero before its first prediction. Pure.

A stream is what one thing in the world gives: one microphone, one machine. Samples of two streams may come in any
order; each goes on where its own stream was.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.client.runtimes.base import LoadedModel
from hedgerow.model_schema import ModelSchema

__all__ = ["MOST_STREAMS", "Streams"]

MOST_STREAMS = 64
"""So many streams have a state at once; beyond, the one that was silent longest begins anew."""
_MOST_BYTES = 64 * 2**20
_log = logging.getLogger(__name__)

_State = Mapping[str, NDArray[Any]]


class Streams:
    """Predicts with the state of each stream. The caller holds a lock.

    Args:
        schema: Of the model.
    """

    def __init__(self, schema: ModelSchema) -> None:
        self._pairs = dict(schema.state)
        self._specs = {spec.name: spec for spec in schema.inputs if spec.name in schema.state}
        self._given = [spec.name for spec in schema.given.outputs]
        each_bytes = sum(np.dtype(s.dtype).itemsize * math.prod(s.shape) for s in self._specs.values())
        self._most = max(1, min(MOST_STREAMS, _MOST_BYTES // max(1, each_bytes)))
        self._states: OrderedDict[str, _State] = OrderedDict()

    def reset(self, stream: str | None = None) -> None:
        """Let a stream begin anew, or all of them."""
        if stream is None:
            self._states.clear()
        else:
            self._states.pop(stream, None)

    def predict(
        self, model: LoadedModel, inputs: Mapping[str, NDArray[Any]], stream: str = ""
    ) -> dict[str, NDArray[Any]]:
        """Return the outputs for the next steps of a stream, without its state.

        A step on which the model fails leaves the state as it was. A state that is not finite, as one bad number of a
        sensor makes it, would never get well again: the stream begins anew.

        Args:
            model: Takes the state as any other input.
            inputs: What a caller gives, each ``(steps, *shape)``, one step after the other.
            stream: Which one.

        Raises:
            ValueError: The model gave a state of another shape.
        """
        total = len(next(iter(inputs.values())))
        if not self._pairs:
            return model.predict(inputs)
        if not total:
            empty = {name: np.zeros((0, *spec.shape), spec.dtype) for name, spec in self._specs.items()}
            return self._without_state(model.predict({**inputs, **empty}))
        state = self._states.get(stream) or self._zero()
        steps = []
        for place in range(total):
            outputs = model.predict({**{name: values[place : place + 1] for name, values in inputs.items()}, **state})
            state = self._checked({into: np.asarray(outputs[out]) for into, out in self._pairs.items()}, stream)
            steps.append(self._without_state(outputs))
        self._keep(stream, state)
        return {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}

    def _zero(self) -> _State:
        return {name: np.zeros((1, *spec.shape), spec.dtype) for name, spec in self._specs.items()}

    def _checked(self, state: _State, stream: str) -> _State:
        for name, values in state.items():
            wanted = (1, *self._specs[name].shape)
            if values.shape != wanted:
                raise ValueError(f"the state {name} has the shape {values.shape} and not {wanted}")
        if all(values.dtype.kind != "f" or np.isfinite(values).all() for values in state.values()):
            return state
        _log.warning("the state of the stream %r is no longer finite; it begins anew", stream)
        return self._zero()

    def _without_state(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: values for name, values in outputs.items() if name in self._given}

    def _keep(self, stream: str, state: _State) -> None:
        self._states[stream] = state
        self._states.move_to_end(stream)
        if len(self._states) > self._most:
            silent, _ = self._states.popitem(last=False)
            _log.warning("more than %d streams; %r was silent longest and begins anew", self._most, silent)
