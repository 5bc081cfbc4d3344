"""Answers: what one sample's outputs say."""

import json

import numpy as np
import pytest

from hedgerow.client.answer import make_answer
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Custom, Labels, Outputs, Reconstruction, Tokens, Values
from hedgerow.schema import TensorSpec

INPUTS = (TensorSpec("x", (2,)),)
CLASSES = ModelSchema(INPUTS, (TensorSpec("probabilities", (3,)),), Outputs.of(Classes(("a", "b", "c"))))


PROBABILITIES = {"probabilities": np.asarray([[0.25, 0.125, 0.625]], np.float32)}


def test_a_classifier_says_which_class_its_name_and_how_sure_it_is():
    answer = make_answer("demo@1", CLASSES, PROBABILITIES)
    assert (answer.release, answer.index, answer.label, answer.confidence) == ("demo@1", 2, "c", 0.625)
    assert answer.outputs["probabilities"].tolist() == [0.25, 0.125, 0.625]
    assert answer.to_record() == {
        "release": "demo@1",
        "told": {"label": "c", "index": 2, "confidence": 0.625},
        "outputs": {"probabilities": [0.25, 0.125, 0.625]},
    }


def schema_of(outputs) -> ModelSchema:
    found = Outputs.of(outputs)
    return ModelSchema(INPUTS, found.tensors(), found)


@pytest.mark.parametrize(
    ("outputs", "given", "told"),
    [
        (
            Labels(("hot", "wet")),
            {"probabilities": [[0.75, 0.25]]},
            {"labels": ["hot"], "probabilities": {"hot": 0.75, "wet": 0.25}},
        ),
        (Values(("level", "flow"), 1.0), {"values": [[2.5, np.nan]]}, {"level": 2.5, "flow": None}),
        (Reconstruction(threshold=2.0), {"anomaly": [[2.5]]}, {"anomaly": 2.5, "anomalous": True}),
        (Reconstruction(), {"anomaly": [[2.5]]}, {"anomaly": 2.5, "anomalous": None}),
        (
            Tokens(("lo", "hi"), 2),
            {"probabilities": [[[0.75, 0.25], [0.5, np.inf]]]},
            {"tokens": ["lo", None], "confidence": [0.75, None]},
        ),
        (Custom((2,)), {"output": [[1.5, np.nan]]}, {"values": [1.5, None], "shape": [2]}),
        (
            {"state": Classes(("a", "b")), "level": Values("level", 1.0)},
            {"state": [[0.25, 0.75]], "level": [[3.0]]},
            {"state": {"label": "b", "index": 1, "confidence": 0.75}, "level": {"level": 3.0}},
        ),
    ],
)
def test_every_kind_says_in_its_own_words_what_it_found(outputs, given, told):
    arrays = {name: np.asarray(values, np.float32) for name, values in given.items()}
    answer = make_answer("demo@1", schema_of(outputs), arrays)
    assert answer.told == told
    assert json.loads(json.dumps(answer.to_record(), allow_nan=False))["told"] == told
    assert (answer.index, answer.label, answer.confidence) == (None, None, None), "they are of one class alone"


def test_outputs_are_read_only_arrays_without_the_batch():
    outputs = {**PROBABILITIES, "mask": np.ones((1, 2, 2), np.uint8), "level": np.asarray([7.5], np.float32)}
    answer = make_answer("demo@1", CLASSES, outputs)
    assert answer.outputs["mask"].shape == (2, 2)
    assert answer.outputs["level"].shape == ()
    with pytest.raises(ValueError, match="read-only"):
        answer.outputs["mask"][0, 0] = 9
    assert answer.to_record()["outputs"] == {
        "probabilities": [0.25, 0.125, 0.625],
        "mask": [[1, 1], [1, 1]],
        "level": 7.5,
    }


def test_of_a_model_of_which_nobody_has_said_what_it_gives_nothing_is_told():
    schema = ModelSchema(INPUTS, (TensorSpec("probabilities", (3,)),))
    answer = make_answer("demo@1", schema, PROBABILITIES)
    assert (answer.told, answer.index, answer.label, answer.confidence) == ({}, None, None, None)
    assert answer.outputs["probabilities"].tolist() == [0.25, 0.125, 0.625]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_names_no_class_and_is_null_in_json(odd):
    answer = make_answer("demo@1", CLASSES, {"probabilities": np.asarray([[odd, 0.5, 0.5]], np.float32)})
    assert (answer.index, answer.label, answer.confidence) == (None, None, None)
    text = json.dumps(answer.to_record(), allow_nan=False)
    assert json.loads(text)["outputs"] == {"probabilities": [None, 0.5, 0.5]}


@pytest.mark.parametrize("numbers", [[1, 2, 3], [1, np.nan, 3], [np.nan, 2, 3]])
def test_values_that_are_called_as_the_words_of_a_class_are_none(numbers):
    values = Values(("label", "index", "confidence"), tolerance=1.0)
    schema = ModelSchema((), (values.tensor("values"),), Outputs.of(values))

    answer = make_answer("m@1", schema, {"values": np.float32([numbers])})

    assert (answer.label, answer.index, answer.confidence) == (None, None, None)
    assert answer.told["confidence"] == 3.0
