"""Tests of hedgerow.compile.predict.answers and of the files that they become."""

import csv
import json

import numpy as np
import pytest

from hedgerow.compile.errors import DataFileError
from hedgerow.compile.predict.answers import tell
from hedgerow.compile.predict.writing import check_ending, write_answers
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Custom, Labels, Outputs, Reconstruction, Values
from hedgerow.schema import TensorSpec

SCHEMA = ModelSchema(
    (TensorSpec("x", (2,)),), (TensorSpec("probabilities", (3,)),), Outputs.of(Classes(("a", "b", "c")))
)
GIVEN = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25], [np.nan, 0, 0], [0, 0, 1]], np.float32)


def test_each_row_has_its_class_and_known_labels_are_scored():
    told = tell(SCHEMA, {"probabilities": GIVEN}, {"probabilities": np.array([1, 2, -1, 2])})

    assert told.answers["label"] == ["b", "a", None, "c"]
    assert told.answers["index"] == [1, 0, None, 2]
    assert told.answers["confidence"] == [pytest.approx(0.7), 0.5, None, 1.0]
    assert told.answers["wanted"] == ["b", "c", None, "c"]
    assert (told.metrics["accuracy"], told.scored) == (pytest.approx(2 / 3), 3)
    # b and c were asked for twice in all: b rightly, c once of two times.
    assert told.metrics["recall"] == pytest.approx((1 + 1 / 2) / 2)


def test_without_labels_nothing_is_scored():
    for wanted in (None, {"probabilities": np.full(4, -1)}):
        told = tell(SCHEMA, {"probabilities": GIVEN}, wanted)
        assert (told.metrics, told.scored) == ({}, 0)


def test_a_model_without_classes_gives_its_outputs_alone():
    schema = ModelSchema((TensorSpec("x", (2,)),), (TensorSpec("y", (1,)),))
    told = tell(schema, {"y": np.ones((2, 1), np.float32)}, None)

    assert (told.answers, told.rows) == ({}, 2)


def schema_of(outputs) -> ModelSchema:
    outputs = Outputs.of(outputs)
    return ModelSchema((TensorSpec("x", (2,)),), outputs.tensors(), outputs)


def test_several_outputs_are_told_by_their_names_and_scored_together():
    schema = schema_of({"state": Classes(["off", "on"]), "level": Values(["level"], tolerance=2.0, unit="m")})
    given = {"state": np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), "level": np.array([[1.0], [3.0]], np.float32)}
    told = tell(schema, given, {"state": np.array([0, 0]), "level": np.array([[1.5], [np.nan]], np.float32)})

    assert told.answers["state.label"] == ["off", "on"]
    assert told.answers["level.level"] == [1.0, 3.0]
    assert told.answers["state.wanted"] == ["off", "off"]
    assert told.answers["level.wanted"] == [[1.5], None]
    # Only the first sample has both: 1 for the state, 0.75 for the level.
    assert (told.metrics["score"], told.scored) == (pytest.approx(0.875), 1)


@pytest.mark.parametrize(
    ("output", "given", "wanted", "answers"),
    [
        (
            Labels(["hot", "wet"]),
            [[0.75, 0.25]],
            [[1, 1]],
            {"labels": [["hot"]], "probabilities": [{"hot": 0.75, "wet": 0.25}], "wanted": [[1, 1]]},
        ),
        (
            Reconstruction(threshold=2.0),
            [[3.0]],
            [-1],
            {"anomaly": [3.0], "anomalous": [True], "wanted": [None]},
        ),
        (Custom((2,)), [[1.0, 2.0]], None, {"values": [[1.0, 2.0]], "shape": [[2]]}),
    ],
)
def test_every_kind_is_told_in_its_own_words_and_goes_into_every_file(tmp_path, output, given, wanted, answers):
    schema = schema_of(output)
    (name,) = schema.answers
    told = tell(
        schema,
        {name: np.array(given, np.float32)},
        None if wanted is None else {name: np.array(wanted, output.target_dtype)},
    )

    assert told.answers == answers
    for ending in (".csv", ".jsonl", ".npz"):
        write_answers(tmp_path / f"a{ending}", told)
    (line,) = (tmp_path / "a.jsonl").read_text().splitlines()
    assert {key: [value] for key, value in json.loads(line).items() if key in answers} == answers
    (row,) = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    lists = {key: value[0] for key, value in answers.items() if isinstance(value[0], list | dict)}
    assert {key: json.loads(row[key]) for key in lists} == lists


def told(steps=1):
    return tell(SCHEMA, {"probabilities": GIVEN}, {"probabilities": np.array([1, 2, -1, 2])}, steps=steps)


def test_a_table_has_a_row_for_each_sample(tmp_path):
    write_answers(tmp_path / "a.csv", told())
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))

    assert list(rows[0]) == ["sample", "label", "index", "confidence", "wanted", *(f"probabilities.{n}" for n in "012")]
    assert [row["label"] for row in rows] == ["b", "a", "", "c"]
    assert [float(row["probabilities.1"]) for row in rows] == [pytest.approx(0.7), 0.25, 0, 0]
    write_answers(tmp_path / "a.csv", told(steps=2))
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [(row["sample"], row["step"]) for row in rows] == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]


def test_lines_hold_json_without_what_is_no_number(tmp_path):
    write_answers(tmp_path / "a.jsonl", told())
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]

    assert lines[2] == {
        "sample": 2,
        "label": None,
        "index": None,
        "confidence": None,
        "wanted": None,
        "outputs": {"probabilities": [None, 0.0, 0.0]},
    }


def test_arrays_hold_the_outputs_as_they_are(tmp_path):
    write_answers(tmp_path / "a.npz", told())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert np.array_equal(found["probabilities"], GIVEN, equal_nan=True)
        assert found["label"].tolist() == ["b", "a", "", "c"]
        assert np.isnan(found["confidence"][2])


def test_another_ending_and_too_wide_a_table_are_refused(tmp_path):
    with pytest.raises(DataFileError, match=r"expected a name that ends in \.csv, \.jsonl, \.npz, found '\.txt'"):
        check_ending(tmp_path / "a.txt")
    schema = ModelSchema((TensorSpec("x", (2,)),), (TensorSpec("y", (5000,)),))
    wide = tell(schema, {"y": np.ones((1, 5000), np.float32)}, None)
    with pytest.raises(DataFileError, match=r"at most 4096 numbers a sample in a table, found 5000; write \.npz or"):
        write_answers(tmp_path / "a.csv", wide)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["sample", "step", "wanted", "outputs"])
def test_a_value_that_is_called_as_a_column_of_the_file_takes_no_place_but_its_own(tmp_path, word):
    told = tell(
        schema_of(Values((word, "y"), tolerance=1.0)),
        {"values": np.float32([[7, 8]])},
        {"values": np.float32([[7, 9]])},
    )

    write_answers(tmp_path / "a.jsonl", told)

    assert json.loads((tmp_path / "a.jsonl").read_text()) == {
        "sample": 0,
        f"values.{word}": 7.0,
        "values.y": 8.0,
        "values.wanted": [7.0, 9.0],
        "outputs": {"values": [7.0, 8.0]},
    }
