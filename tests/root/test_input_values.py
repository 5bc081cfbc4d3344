"""Values are held against what an input is said to be."""

import numpy as np
import pytest

from hedgerow.input_values import value_mistakes
from hedgerow.schema import TensorSpec

NAN = np.nan


def column(*values, dtype="float32"):
    return np.array(values, dtype)[:, None]


@pytest.mark.parametrize(
    ("more", "values", "mistake"),
    [
        ({}, column(1, NAN), "x holds NaN or infinity; where values may be missing say missing=True"),
        ({"missing": True}, column(1, np.inf), "x holds infinity; a value that is missing is NaN"),
        ({"missing": True}, column(NAN, NAN), "x holds nothing but NaN"),
        ({"missing": True, "minimum": 2.0}, column(NAN, 1), "x goes down to 1, the task says 2"),
        ({"missing": True, "maximum": 2.0}, column(NAN, 3), "x goes up to 3, the task says 2"),
        ({"kind": "flag"}, column(0, 1, 0.5), "x is said to be of the kind flag: expected 0 or 1, found 0.5"),
        ({"kind": "flag", "missing": True}, column(0, NAN, 2), "expected 0 or 1, found 2"),
        ({"kind": "category"}, column(4, -1, 1.5), "of the kind category: expected whole numbers, found 1.5"),
        ({"kind": "count"}, column(4, -1), "of the kind count: expected whole numbers from 0, found -1"),
        ({"kind": "tokens", "dtype": "int64"}, column(4, -1, dtype="int64"), "of the kind tokens"),
    ],
)
def test_each_mistake_in_values_is_one_sentence(more, values, mistake):
    spec = TensorSpec("x", (1,), **{"dtype": "float32", **more})

    assert [mistake in sentence for sentence in value_mistakes(spec, values)] == [True]


@pytest.mark.parametrize(
    ("more", "values"),
    [
        ({}, column(0.5, -3)),
        ({"missing": True, "minimum": 0.0, "maximum": 1.0}, column(0, NAN, 1)),
        ({"kind": "flag", "missing": True}, column(0, NAN, 1)),
        ({"kind": "flag", "dtype": "bool"}, column(0, 1, dtype="bool")),
        ({"kind": "category"}, column(-3, 70)),
        ({"kind": "count"}, column(0, 70)),
        ({"kind": "sensor"}, column(0.25)),
        ({"missing": True}, np.zeros((0, 1), np.float32)),
    ],
)
def test_sound_values_have_no_mistake(more, values):
    assert value_mistakes(TensorSpec("x", (1,), **{"dtype": "float32", **more}), values) == []
