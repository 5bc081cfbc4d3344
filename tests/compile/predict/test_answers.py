"""Tests of hedgerow.compile.predict.answers and of the files that they become."""

import csv
import json

import numpy as np
import pytest

from hedgerow.compile.errors import DataFileError
from hedgerow.compile.predict.answers import tell
from hedgerow.compile.predict.writing import check_ending, write_answers
from hedgerow.schema import ModelSchema, TensorSpec

SCHEMA = ModelSchema((TensorSpec("x", (2,)),), (TensorSpec("probabilities", (3,)),), ("a", "b", "c"))
GIVEN = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25], [np.nan, 0, 0], [0, 0, 1]], np.float32)


def test_each_row_has_its_class_and_known_labels_are_scored():
    told = tell(SCHEMA, {"probabilities": GIVEN}, np.array([1, 2, -1, 2]))

    assert told.answers["label"] == ["b", "a", None, "c"]
    assert told.answers["index"] == [1, 0, -1, 2]
    assert told.answers["confidence"] == [pytest.approx(0.7), 0.5, None, 1.0]
    assert told.answers["wanted"] == ["b", "c", None, "c"]
    assert (told.metrics, told.scored) == ({"accuracy": pytest.approx(2 / 3)}, 3)


def test_without_labels_nothing_is_scored():
    for labels in (None, np.full(4, -1)):
        told = tell(SCHEMA, {"probabilities": GIVEN}, labels)
        assert (told.metrics, told.scored) == ({}, 0)


def test_a_model_without_classes_gives_its_outputs_alone():
    schema = ModelSchema((TensorSpec("x", (2,)),), (TensorSpec("y", (1,)),), ())
    told = tell(schema, {"y": np.ones((2, 1), np.float32)}, None)

    assert (told.answers, told.rows) == ({}, 2)


def told(steps=1):
    return tell(SCHEMA, {"probabilities": GIVEN}, np.array([1, 2, -1, 2]), steps=steps)


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
        "index": -1,
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
    schema = ModelSchema((TensorSpec("x", (2,)),), (TensorSpec("y", (5000,)),), ())
    wide = tell(schema, {"y": np.ones((1, 5000), np.float32)}, None)
    with pytest.raises(DataFileError, match=r"at most 4096 numbers a sample in a table, found 5000; write \.npz or"):
        write_answers(tmp_path / "a.csv", wide)
    assert not list(tmp_path.iterdir())
