"""State of a task: its shape has one dimension that counts streams, and its size is bounded."""

import pytest

from hedgerow.state import MOST_STATES, MOST_VALUES, State, next_name, state_mistakes


def test_the_output_of_a_state_is_called_after_it():
    assert next_name("h") == "h_next"


@pytest.mark.parametrize(
    ("state", "axis", "of_three"),
    [
        (State((2, 1, 128)), 1, (2, 3, 128)),
        (State([1, 64]), 0, (3, 64)),
        (State((8, 1)), 1, (8, 3)),
        (State((1, 1, 32), batch_axis=1), 1, (1, 3, 32)),
        (State((1,)), 0, (3,)),
    ],
)
def test_the_only_dimension_of_size_one_counts_streams(state, axis, of_three):
    assert state.mistakes("h") == []
    assert state.axis == axis
    assert state.of_streams(3) == of_three


@pytest.mark.parametrize(
    ("state", "mistake"),
    [
        (State((1, 1, 32)), "found 2 dimensions of size 1 in [1, 1, 32]; say which it is with batch_axis="),
        (State((2, 32)), "found 0 dimensions of size 1 in [2, 32]; say which it is with batch_axis="),
        (State((2, 1, 32), batch_axis=0), "expected the place of a dimension of size 1 in [2, 1, 32] as batch_axis"),
        (State((2, 1, 32), batch_axis=-2), "batch_axis, found -2"),
        (State((2, 1, 32), batch_axis=True), "batch_axis, found True"),
        (State(()), "must hold one to eight positive whole numbers"),
        (State((1,) * 9), "must hold one to eight positive whole numbers"),
        (State((2, 0)), "must hold one to eight positive whole numbers"),
        (State((2, 1.0)), "must hold one to eight positive whole numbers"),
        (State(128), "must hold one to eight positive whole numbers"),
        (State("h1"), "must hold one to eight positive whole numbers"),
    ],
)
def test_another_shape_is_a_mistake(state, mistake):
    (found,) = state.mistakes("h")

    assert found.startswith("the state 'h': ")
    assert mistake in found


def test_as_many_and_as_large_as_the_bounds_are_no_mistake_and_one_more_is():
    assert state_mistakes({f"h{i}": State((1, 2)) for i in range(MOST_STATES)}) == []
    assert state_mistakes({"h": State((1, MOST_VALUES))}) == []

    (many,) = state_mistakes({f"h{i}": State((1, 2)) for i in range(MOST_STATES + 1)})
    (large,) = state_mistakes({"h": State((1, MOST_VALUES)), "c": State((1,))})

    assert many == "it has 9 state tensors, at most 8 are allowed"
    assert large == f"its state holds {MOST_VALUES + 1} numbers, at most {MOST_VALUES} are allowed"


def test_what_is_no_state_is_told_by_its_type():
    (found,) = state_mistakes({"h": (2, 1, 128)})

    assert found == "the state 'h' must be a State, such as State((2, 1, 128)), found tuple"
