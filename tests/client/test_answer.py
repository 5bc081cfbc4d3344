"""Answers: what one sample's outputs say."""

import json

import numpy as np
import pytest

from hedgerow.client.answer import make_answer
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs
from hedgerow.schema import TensorSpec

INPUTS = (TensorSpec("x", (2,)),)
CLASSES = ModelSchema(INPUTS, (TensorSpec("probabilities", (3,)),), Outputs.of(Classes(("a", "b", "c"))))


def test_a_classifier_says_which_class_its_name_and_how_sure_it_is():
    answer = make_answer("demo@1", CLASSES, {"probabilities": np.asarray([[0.25, 0.125, 0.625]], np.float32)})
    assert (answer.release, answer.index, answer.label, answer.confidence) == ("demo@1", 2, "c", 0.625)
    assert answer.outputs["probabilities"].tolist() == [0.25, 0.125, 0.625]
    assert answer.to_record() == {
        "release": "demo@1",
        "label": "c",
        "index": 2,
        "confidence": 0.625,
        "outputs": {"probabilities": [0.25, 0.125, 0.625]},
    }


def test_outputs_are_read_only_arrays_without_the_batch():
    outputs = {"mask": np.ones((1, 2, 2), np.uint8), "level": np.asarray([7.5], np.float32)}
    answer = make_answer("demo@1", CLASSES, outputs)
    assert answer.outputs["mask"].shape == (2, 2)
    assert answer.outputs["level"].shape == ()
    with pytest.raises(ValueError, match="read-only"):
        answer.outputs["mask"][0, 0] = 9
    assert (answer.index, answer.label, answer.confidence) == (None, None, None)
    assert answer.to_record()["outputs"] == {"mask": [[1, 1], [1, 1]], "level": 7.5}


def test_classes_without_names_have_an_index_alone():
    schema = ModelSchema(INPUTS, (TensorSpec("probabilities", (3,)),))
    answer = make_answer("demo@1", schema, {"probabilities": np.asarray([[0.5, 0.25, 0.25]], np.float32)})
    assert (answer.index, answer.label, answer.confidence) == (0, None, 0.5)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_names_no_class_and_is_null_in_json(odd):
    answer = make_answer("demo@1", CLASSES, {"probabilities": np.asarray([[odd, 0.5, 0.5]], np.float32)})
    assert (answer.index, answer.label, answer.confidence) == (None, None, None)
    text = json.dumps(answer.to_record(), allow_nan=False)
    assert json.loads(text)["outputs"] == {"probabilities": [None, 0.5, 0.5]}
