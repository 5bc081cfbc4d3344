"""Numbers and shapes that a user gives are judged in one place."""

import numpy as np
import pytest

from hedgerow.field_types import as_sizes, number_mistakes, sizes_are_sound


@pytest.mark.parametrize(
    ("value", "bounds", "sentence"),
    [
        (0.5, {"above": 0, "below": 1}, None),
        (np.float32(0.5), {"above": 0, "below": 1}, None),
        (np.int64(3), {"least": 1, "most": 3, "whole": True}, None),
        (0, {"least": 0}, None),
        (0, {"above": 0}, "it must be above 0, found 0"),
        (1, {"above": 0, "below": 1}, "it must lie between 0 and 1, found 1"),
        (4, {"least": 1, "most": 3}, "it must lie between 1 and 3, found 4"),
        (-1, {"least": 0}, "it must be at least 0, found -1"),
        (1.5, {"whole": True}, "it must be a whole number, found 1.5"),
        ("5", {}, "it must be a number, found '5'"),
        (True, {}, "it must be a number, found True"),
        (float("nan"), {}, "it must be a number, found nan"),
        (float("inf"), {"above": 0}, "it must be a number, found inf"),
        (None, {"whole": True}, "it must be a whole number, found None"),
    ],
)
def test_a_number_is_taken_or_told_in_one_sentence(value, bounds, sentence):
    assert number_mistakes("it", value, **bounds) == ([] if sentence is None else [sentence])


@pytest.mark.parametrize(
    ("shape", "is_sound"),
    [([2, 3], True), ((), True), (range(1, 3), True), ([0], False), ([1.0], False), (2, False), ("2", False)],
)
def test_a_shape_is_a_sequence_of_positive_whole_numbers(shape, is_sound):
    assert sizes_are_sound(as_sizes(shape)) is is_sound
