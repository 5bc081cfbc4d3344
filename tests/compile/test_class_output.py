import numpy as np
import pytest

from hedgerow.compile.class_output import ClassOutput, class_scores, find_class_output
from hedgerow.model_schema import ModelSchema
from hedgerow.schema import TensorSpec

LABELS = np.array([0, 2, 1])


def schema(*outputs: TensorSpec) -> ModelSchema:
    return ModelSchema((TensorSpec("x", (4,)),), outputs)


@pytest.mark.parametrize(
    ("outputs", "labels", "expected"),
    [
        ((TensorSpec("box", (4, 4)), TensorSpec("scores", (1, 5))), LABELS, ("scores", 5)),
        ((TensorSpec("a", (5,)), TensorSpec("probabilities", (3,))), LABELS, ("probabilities", 3)),
        ((TensorSpec("few", (2,)), TensorSpec("label", (), "int64")), LABELS, ("label", 3)),
        ((TensorSpec("label", (), "int64"), TensorSpec("p", (3,))), LABELS, ("p", 3)),
        ((TensorSpec("p", (1,)),), np.array([0, 1]), ("p", 2)),
    ],
)
def test_the_output_that_is_classes_is_found_by_its_size_and_type(outputs, labels, expected):
    found = find_class_output(schema(*outputs), labels)
    assert isinstance(found, ClassOutput)
    assert (found.name, found.classes) == expected


def test_a_file_without_such_an_output_says_what_it_has():
    assert find_class_output(schema(TensorSpec("p", (1,)), TensorSpec("map", (4, 4))), LABELS) == (
        "no output is a score for each of the 3 classes of the labels, or the class itself: p of float32[1], map of "
        "float32[4, 4]"
    )


def test_a_class_that_is_given_as_a_number_is_a_score_of_1_and_one_that_is_none_is_no_number():
    label = find_class_output(schema(TensorSpec("label", (), "int64")), LABELS)
    scores = class_scores(label, {"label": np.array([2, 0, 7, -1], np.float32)})
    assert scores[:2].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert np.isnan(scores[2:]).all()


def test_one_score_of_two_classes_is_a_probability_between_0_and_1_and_else_its_logit():
    one = find_class_output(schema(TensorSpec("p", (1,))), np.array([0, 1]))
    assert class_scores(one, {"p": np.array([[0.25], [1.0]], np.float32)}).tolist() == [[0.75, 0.25], [0.0, 1.0]]
    logits = class_scores(one, {"p": np.array([[0.0], [np.log(3.0)]], np.float32)})
    assert np.allclose(logits, [[0.5, 0.5], [0.25, 0.75]])
