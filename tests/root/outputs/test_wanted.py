"""Target values: what programs give is kept as it is, and brought into the form of a release or refused in words."""

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from hedgerow.errors import InputError
from hedgerow.outputs import Classes, Custom, Labels, Outputs, Reconstruction, Tokens, Values
from hedgerow.outputs.wanted import ONLY, as_declared, as_given, as_given_rows, taken_out

CLASSES = Outputs.of(Classes(("a", "b", "c")))
LABELS = Outputs.of(Labels(("hot", "wet")))
VALUES = Outputs.of(Values(("level", "flow"), tolerance=1.0))
LEVEL = Outputs.of(Values("level", tolerance=1.0))
FLAGS = Outputs.of(Reconstruction(threshold=2.0))
TOKENS = Outputs.of(Tokens(("lo", "hi"), positions=3))
CUSTOM = Outputs.of(Custom((2,), wanted_shape=(2, 2)))
SEVERAL = Outputs({"state": Classes(("a", "b")), "level": Values("level", tolerance=1.0)})


def declared(outputs: Outputs, value) -> dict[str, np.ndarray]:
    return as_declared(outputs, {name: part[None] for name, part in as_given(value).items()}, 1)


@pytest.mark.parametrize(
    ("outputs", "value", "name", "dtype", "wanted"),
    [
        (CLASSES, 2, "probabilities", "int64", [2]),
        (CLASSES, np.uint8(2), "probabilities", "int64", [2]),
        (CLASSES, [2], "probabilities", "int64", [2]),
        (CLASSES, True, "probabilities", "int64", [1]),
        (CLASSES, -1, "probabilities", "int64", [-1]),
        (CLASSES, None, "probabilities", "int64", [-1]),
        (CLASSES, {"probabilities": 1}, "probabilities", "int64", [1]),
        (CLASSES, {"probabilities": None}, "probabilities", "int64", [-1]),
        (LABELS, [1, 0], "probabilities", "int64", [[1, 0]]),
        (LABELS, np.array([True, False]), "probabilities", "int64", [[1, 0]]),
        (LABELS, [-1, -1], "probabilities", "int64", [[-1, -1]]),
        (VALUES, [1, 2.5], "values", "float32", [[1.0, 2.5]]),
        (VALUES, [1.0, np.nan], "values", "float32", [[1.0, np.nan]]),
        (LEVEL, 7, "values", "float32", [[7.0]]),
        (LEVEL, np.float64(7.5), "values", "float32", [[7.5]]),
        (FLAGS, 1, "anomaly", "int64", [1]),
        (TOKENS, [0, 1, -1], "probabilities", "int64", [[0, 1, -1]]),
        (CUSTOM, [[1, 2], [3, 4]], "output", "float32", [[[1, 2], [3, 4]]]),
        (SEVERAL, {"state": 1, "level": 2.5}, "level", "float32", [[2.5]]),
        (SEVERAL, {"state": 1}, "level", "float32", [[np.nan]]),
        (SEVERAL, {"level": 2.5}, "state", "int64", [-1]),
    ],
)
def test_what_a_program_gives_becomes_what_the_output_declares(outputs, value, name, dtype, wanted):
    found = declared(outputs, value)

    assert list(found) == list(outputs)
    assert str(found[name].dtype) == dtype
    np.testing.assert_array_equal(found[name], np.asarray(wanted))


@pytest.mark.parametrize(
    ("outputs", "value", "said"),
    [
        (CLASSES, 3, "expected a target value of classes for probabilities, found that the classes must lie in 0..2"),
        (CLASSES, -2, "the classes must lie in 0..2, found -2..-2"),
        (CLASSES, 1.5, r"expected whole numbers, int64\[\], as target values for probabilities, found float64\[\]"),
        (CLASSES, [1, 2], r"expected target values int64\[\] a sample for probabilities, found int64\[2\]"),
        (CLASSES, np.uint64(2**63), "that fit"),
        (CLASSES, {"state": 1}, "expected target values of probabilities, found state"),
        (LABELS, [1], r"int64\[2\] a sample for probabilities, found int64\[1\]"),
        (LABELS, [1, -1], "each label is 0 or 1, found -1"),
        (LABELS, [1, 2], "each label is 0 or 1, found 2"),
        (VALUES, [1.0, np.inf], "NaN or infinity"),
        (VALUES, [1.0, 1e39], "NaN or infinity"),
        (FLAGS, 2, "0 \\(normal\\), 1 \\(anomalous\\) or -1"),
        (TOKENS, [0, 2, 1], "the tokens must lie in 0..1"),
        (CUSTOM, [[1, 2], [3, np.nan]], "NaN or infinity"),
        (SEVERAL, 1, "expected target values by name \\(state, level\\), found one without a name"),
        (SEVERAL, {"state": 1, "mood": 2}, "expected target values of state, level, found mood"),
        (Outputs({}), 1, "expected target values by name \\(no output\\)"),
        (CLASSES, "seven", "expected the target value as numbers, found str"),
        (CLASSES, object(), "expected the target value as numbers, found object"),
        (CLASSES, [[1], [1, 2]], "expected the target value as numbers, found a ValueError"),
        (CLASSES, 1j, "found complex"),
        (SEVERAL, {"state": "on"}, "expected the target value of state as numbers, found str"),
        (SEVERAL, {"an output": 1}, "by the names of outputs, found another name"),
        (SEVERAL, {5: 1}, "by the names of outputs, found another name"),
        (SEVERAL, {f"o{number}": 1 for number in range(17)}, "at most 16 outputs, found 17"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(outputs, value, said):
    with pytest.raises(InputError, match=said):
        declared(outputs, value)


def test_a_refusal_does_not_quote_what_was_given():
    with pytest.raises(InputError) as caught:
        as_given("the patient's name")
    assert "patient" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"), [(np.zeros(3), "expected 4 target values, found"), (5, "found an array of shape ()")]
)
def test_a_batch_has_a_target_value_for_each_sample(value, said):
    with pytest.raises(InputError) as caught:
        as_given_rows(value, 4)
    assert said in str(caught.value)
    assert as_given_rows({"level": np.zeros((4, 2))}, 4)["level"].shape == (4, 2)
    assert as_given_rows(None, 4) == {}


@drawn(st.integers(0, 2**63 - 1), st.sampled_from([CLASSES, FLAGS, LEVEL]))
def test_a_number_is_taken_exactly_or_refused(number, outputs):
    assert as_given(number)[ONLY].tolist() == number
    try:
        (found,) = declared(outputs, number).values()
    except InputError:
        assert outputs is not LEVEL
        assert number > 1
    else:
        assert found.reshape(-1)[0] == (np.float32(number) if outputs is LEVEL else number)


def test_target_values_under_both_names_of_the_only_output_are_refused():
    arrays = {"x": np.zeros(2), "labels": np.zeros(2, np.int64), "target_values": np.ones(2, np.int64)}

    with pytest.raises(InputError, match="as 'labels' or as 'target_values', found both; leave one out"):
        taken_out(arrays)
    assert set(arrays) == {"x", "labels", "target_values"}
