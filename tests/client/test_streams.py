"""The state of a model on the device: kept for each stream, zero at first, and never left ill."""

import logging

import numpy as np
import pytest

from hedgerow.client import streams
from hedgerow.client.streams import Streams
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import NO_OUTPUTS
from hedgerow.schema import TensorSpec

SCHEMA = ModelSchema(
    (TensorSpec("x", (2,)), TensorSpec("sum", (1, 2)), TensorSpec("count", (1,), "int32")),
    (TensorSpec("probabilities", (2,)), TensorSpec("sum_next", (1, 2)), TensorSpec("count_next", (1,), "int32")),
    NO_OUTPUTS,
    {"sum": "sum_next", "count": "count_next"},
)


class Adding:
    """Gives the sum of all that it saw, in so many steps as it counted."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def predict(self, inputs):
        assert sorted(inputs) == ["count", "sum", "x"]
        self.asked.append(len(inputs["x"]))
        total = inputs["sum"] + inputs["x"][:, None]
        if np.any(inputs["x"] == 13):
            raise RuntimeError("no thirteen")
        return {
            "probabilities": total[:, 0] / np.maximum(1, inputs["count"] + 1),
            "sum_next": total,
            "count_next": inputs["count"] + 1,
        }


def x(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[value, -value] for value in values], np.float32).reshape(-1, 2)}


@pytest.fixture
def model() -> Adding:
    return Adding()


def first(outputs) -> list[float]:
    return outputs["probabilities"][:, 0].tolist()


def test_state_is_zero_at_first_and_goes_on_from_call_to_call(model):
    running = Streams(SCHEMA)

    assert first(running.predict(model, x(2))) == [2]
    assert first(running.predict(model, x(4))) == [3]
    assert list(running.predict(model, x(6))) == ["probabilities"]
    assert first(running.predict(model, x(8))) == [5]


def test_a_batch_is_steps_after_one_another(model):
    running = Streams(SCHEMA)

    assert first(running.predict(model, x(2, 4, 6))) == [2, 3, 4]
    assert model.asked == [1, 1, 1]


def test_each_stream_goes_on_where_it_was(model):
    running = Streams(SCHEMA)
    running.predict(model, x(10), "left")
    running.predict(model, x(100), "right")

    assert first(running.predict(model, x(20), "left")) == [15]
    assert first(running.predict(model, x(200), "right")) == [150]
    assert first(running.predict(model, x(7))) == [7]


def test_a_reset_begins_one_stream_anew_or_all(model):
    running = Streams(SCHEMA)
    for name in ("left", "right"):
        running.predict(model, x(10), name)
    running.reset("left")

    assert first(running.predict(model, x(20), "left")) == [20]
    assert first(running.predict(model, x(20), "right")) == [15]
    running.reset()
    assert first(running.predict(model, x(8), "right")) == [8]


def test_a_failed_step_leaves_the_state_as_it_was(model):
    running = Streams(SCHEMA)
    running.predict(model, x(2))

    with pytest.raises(RuntimeError, match="no thirteen"):
        running.predict(model, x(13))
    with pytest.raises(RuntimeError, match="no thirteen"):
        running.predict(model, x(50, 13))

    assert first(running.predict(model, x(4))) == [3]


def test_a_state_that_is_not_finite_is_let_go(model, caplog):
    running = Streams(SCHEMA)
    running.predict(model, x(2), "mic")
    with caplog.at_level(logging.WARNING):
        assert np.isnan(first(running.predict(model, x(float("nan")), "mic"))).all()

    assert first(running.predict(model, x(4), "mic")) == [4]
    assert "the state of the stream 'mic' is no longer finite; it begins anew" in caplog.text


def test_an_empty_batch_has_outputs_and_leaves_the_state(model):
    running = Streams(SCHEMA)
    running.predict(model, x(2))

    assert running.predict(model, x())["probabilities"].shape == (0, 2)
    assert first(running.predict(model, x(4))) == [3]


def test_a_state_of_another_shape_is_a_fault_of_the_model():
    class Wide(Adding):
        def predict(self, inputs):
            return {**super().predict(inputs), "sum_next": np.zeros((1, 2), np.float32)}

    with pytest.raises(ValueError, match=r"the state sum has the shape \(1, 2\) and not \(1, 1, 2\)"):
        Streams(SCHEMA).predict(Wide(), x(1))


def test_the_stream_that_was_silent_longest_makes_room(model, monkeypatch, caplog):
    monkeypatch.setattr(streams, "MOST_STREAMS", 2)
    running = Streams(SCHEMA)
    running.predict(model, x(10), "a")
    running.predict(model, x(10), "b")
    running.predict(model, x(10), "a")
    with caplog.at_level(logging.WARNING):
        running.predict(model, x(10), "c")

    assert first(running.predict(model, x(40), "a")) == [20]
    assert first(running.predict(model, x(40), "b")) == [40]
    assert "more than 2 streams; 'b' was silent longest and begins anew" in caplog.text


def test_large_states_leave_room_for_fewer_streams(model, monkeypatch):
    monkeypatch.setattr(streams, "_MOST_BYTES", 30)  # a stream has two floats and a count, 12 bytes
    running = Streams(SCHEMA)
    for name in ("a", "b", "c"):
        running.predict(model, x(10), name)

    assert first(running.predict(model, x(20), "c")) == [15]
    assert first(running.predict(model, x(20), "a")) == [20]


def test_a_model_without_state_is_asked_as_it_is():
    class Plain:
        def predict(self, inputs):
            return inputs

    inputs = x(1, 2)
    schema = ModelSchema((TensorSpec("x", (2,)),), (TensorSpec("x", (2,)),))

    assert Streams(schema).predict(Plain(), inputs) is inputs
