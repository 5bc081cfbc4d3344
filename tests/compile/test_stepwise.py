"""Sequences as rows, and back."""

import numpy as np
import pytest

from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.stepwise import as_rows, golden_steps, state_ends, with_state
from hedgerow.manifest.content import Tensor
from hedgerow.task import Dataset
from tests.output_tasks import STREAMING


def test_rows_are_the_steps_one_after_the_other_with_what_each_took():
    x, h = np.arange(12).reshape(2, 3, 2), np.arange(6).reshape(2, 3, 1, 1)
    data = Dataset({"x": x}, np.array([[0, 1, 2], [3, 4, 5]]), {"site": np.array(["a", "b"])})
    rows = as_rows(STREAMING["classes"], data, {"h": h})

    assert rows.target_values.tolist() == [0, 1, 2, 3, 4, 5]
    assert rows.inputs["x"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    assert rows.inputs["h"].tolist() == [[[0]], [[1]], [[2]], [[3]], [[4]], [[5]]]
    assert rows.columns["site"].tolist() == ["a", "a", "a", "b", "b", "b"]


def test_rows_have_the_target_values_of_each_output_and_where_none_is_known_what_says_so():
    x = {"x": np.zeros((2, 3, 4), np.float32)}
    two = {"state": np.arange(6).reshape(2, 3), "level": np.arange(12.0).reshape(2, 3, 2)}
    rows = as_rows(STREAMING["several"], Dataset(x, two))
    assert rows.target_values["state"].tolist() == [0, 1, 2, 3, 4, 5]
    assert rows.target_values["level"].shape == (6, 2)
    assert as_rows(STREAMING["reconstruction"], Dataset(x)).target_values.tolist() == [-1] * 6


@pytest.mark.parametrize(
    ("rows", "steps", "places", "length"),
    [
        (60, 20, [*range(8), *range(20, 28)], 8),
        (20, 20, [*range(8)], 8),
        (15, 5, [*range(15)], 5),
        (3, 1, [0, 1, 2], 1),
        (100, 2, [0, 1, 12, 13, 24, 25, 36, 37, 50, 51, 62, 63, 74, 75, 86, 87], 2),
        (400, 4, [0, 1, 2, 3, 100, 101, 102, 103, 200, 201, 202, 203, 300, 301, 302, 303], 4),
    ],
)
def test_golden_samples_are_the_first_steps_of_sequences_that_are_spread(rows, steps, places, length):
    found, each = golden_steps(rows, steps)

    assert (found.tolist(), each) == (places, length)


def test_state_is_zero_at_the_start_of_each_sequence_and_then_what_came_before():
    inputs = {"x": np.zeros(4), "h": np.full((4, 1), 9.0)}
    inputs["h"][[0, 2]] = 0
    found = with_state(inputs, {"hn": np.array([[1.0], [2.0], [3.0], [4.0]])}, {"h": "hn"}, 2)

    assert found["h"].tolist() == [[0], [1], [0], [3]]
    assert found["x"] is inputs["x"]
    assert inputs["h"].tolist() == [[0], [9], [0], [9]], "what came in stays"


def test_ends_are_told_by_type_shape_and_scale():
    state = Tensor("h", "args_1", (2, 1, 4), "int8", 0.5, 3)
    after = Tensor("hn", "output_1", (2, 1, 4), "int8", 0.25, 3)
    stage = CompiledModel(format="tflite", content=b"", inputs=(state,), outputs=(after,), state={"h": "hn"})

    assert state_ends(stage) == {"h": ("int8[2, 1, 4] x 0.5 from 3", "int8[2, 1, 4] x 0.25 from 3")}
