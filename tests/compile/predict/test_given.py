"""Tests of hedgerow.compile.predict.given."""

import numpy as np
import pytest

from hedgerow.compile.errors import DataFileError
from hedgerow.compile.predict.given import read_samples
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs, Values
from hedgerow.schema import TensorSpec

OUT = (TensorSpec("probabilities", (3,)),)
ABC = Outputs.of(Classes(("a", "b", "c")))
ONE = ModelSchema((TensorSpec("x", (2, 2), "float32", minimum=0, maximum=9),), OUT, ABC)
TWO = ModelSchema((TensorSpec("x", (2,)), TensorSpec("t", (), "int64")), OUT, ABC)
STATE = ModelSchema(
    (TensorSpec("x", (2,)), TensorSpec("h", (1, 4))),
    (*OUT, TensorSpec("h_next", (1, 4))),
    ABC,
    {"h": "h_next"},
)
SEVERAL_OUT = Outputs.of({"state": Classes(["off", "on"]), "level": Values(["low", "high"], tolerance=1.0)})
SEVERAL = ModelSchema((TensorSpec("x", (2,)),), SEVERAL_OUT.tensors(), SEVERAL_OUT)
X = np.arange(8, dtype=np.float32).reshape(2, 2, 2)


def csv(path, text):
    path.write_text(text)
    return path


def test_arrays_are_taken_by_the_inputs_names_in_the_models_dtypes(tmp_path):
    np.savez(tmp_path / "s.npz", t=np.array([1.0, 2.0]), x=np.ones((2, 2)), labels=np.array([2, -1]))
    found = read_samples(tmp_path / "s.npz", TWO)

    assert {name: (values.dtype.name, values.shape) for name, values in found.inputs.items()} == {
        "x": ("float32", (2, 2)),
        "t": ("int64", (2,)),
    }
    assert (found.target_values["probabilities"].tolist(), found.notes, len(found)) == ([2, -1], (), 2)


@pytest.mark.parametrize("form", ["named", "flat", "npy"])
def test_the_only_input_may_have_any_name_and_be_flat(tmp_path, form):
    path = tmp_path / ("s.npy" if form == "npy" else "s.npz")
    if form == "npy":
        np.save(path, X)
    else:
        np.savez(path, **{"x" if form == "named" else "images": X if form == "named" else X.reshape(2, 4)})

    found = read_samples(path, ONE)

    assert np.array_equal(found.inputs["x"], X)
    assert found.target_values is None


@pytest.mark.parametrize(
    "header", ["labels,x.0,x.1,x.2,x.3", "labels,red,green,blue,grey", "labels,x.0,x.1,x.2,x.3,when"]
)
def test_a_table_has_a_column_for_each_number(tmp_path, header):
    extra = ",now" if header.endswith("when") else ""
    found = read_samples(csv(tmp_path / "s.csv", f"{header}\nb,0,1,2,3{extra}\nc,4,5,6,7{extra}\n"), ONE)

    assert np.array_equal(found.inputs["x"], X)
    assert found.target_values["probabilities"].tolist() == [1, 2]
    assert found.notes == (("1 column left out, such as 'when'",) if extra else ())


def test_a_table_for_several_inputs_is_taken_by_name(tmp_path):
    found = read_samples(csv(tmp_path / "s.csv", "t,x.1,x.0,labels\n5,2,1,2\n6,4,3,\n"), TWO)

    assert found.inputs["x"].tolist() == [[1, 2], [3, 4]]
    assert found.inputs["t"].tolist() == [5, 6]
    assert found.target_values["probabilities"].tolist() == [2, -1]


def test_what_is_out_of_range_is_noted_and_kept(tmp_path):
    np.save(tmp_path / "s.npy", X * 2)

    assert read_samples(tmp_path / "s.npy", ONE).notes == ("1 sample of 2 with x outside 0..9",)


def test_sequences_keep_their_steps(tmp_path):
    np.savez(tmp_path / "s.npz", x=np.ones((3, 5, 2)), labels=np.ones((3, 5), np.int32))
    found = read_samples(tmp_path / "s.npz", STATE)

    wanted = found.target_values["probabilities"]
    assert (found.inputs["x"].shape, wanted.shape, wanted.dtype) == ((3, 5, 2), (15,), np.int64)
    np.savez(tmp_path / "s.npz", x=np.ones((3, 2)))
    with pytest.raises(DataFileError, match=r"expected sequences, \(n, steps, \.\.\.\), for a model with state"):
        read_samples(tmp_path / "s.npz", STATE)
    with pytest.raises(DataFileError, match="expected sequences, found a table"):
        read_samples(csv(tmp_path / "s.csv", "x.0,x.1\n1,2\n"), STATE)


@pytest.mark.parametrize(
    ("schema", "arrays", "sentence"),
    [
        (TWO, {"x": np.ones((2, 2))}, "expected arrays for 'x', 't', found 'x'; correct the data"),
        (TWO, {"x": np.ones((2, 2)), "t": np.ones(3)}, "expected as many samples of every input, found 2 and 3"),
        (TWO, {"x": np.ones((2, 2)), "t": [0.5, 1]}, "expected whole numbers that int64 holds for 't', found float64"),
        (ONE, {"x": np.ones((2, 3))}, r"expected samples of \(n, 2, 2\) for 'x', found \(2, 3\)"),
        (ONE, {"x": np.full((1, 4), np.nan)}, "expected finite numbers for 'x', found NaN or infinity"),
        (ONE, {"x": np.ones((0, 4))}, "expected at least one sample, found none"),
        (ONE, {"x": X, "labels": np.ones(3, int)}, "expected target values of 2, one for each sample, found 3"),
        (
            ONE,
            {"x": X, "labels": [0, 1], "target_values": [0, 1]},
            "expected target values as 'labels' or as 'target_values', found both; leave one out",
        ),
        (ONE, {"x": X, "labels": [0, 3]}, "found that the classes must lie in 0..2, found 3..3"),
        (
            ONE,
            {"x": X, "labels": [0.5, 1]},
            "expected whole numbers, int64.*, as target values for probabilities, found float64",
        ),
        (ONE, {"x": X, "labels": ["a", "d"]}, "expected labels among a, b, c, found 'd'"),
    ],
)
def test_samples_that_are_not_the_models_are_refused(tmp_path, schema, arrays, sentence):
    np.savez(tmp_path / "s.npz", **arrays)

    with pytest.raises(DataFileError, match=sentence):
        read_samples(tmp_path / "s.npz", schema)


def test_several_outputs_have_target_values_by_name_in_arrays_and_in_a_table(tmp_path):
    level = np.array([[1, 2], [np.nan, 4]])
    np.savez(tmp_path / "s.npz", **{"x": np.ones((2, 2)), "target_values.state": [1, -1], "target_values.level": level})
    table = csv(
        tmp_path / "s.csv",
        "x.0,x.1,target_values.state,target_values.level.0,target_values.level.1\n1,1,on,1,2\n1,1,,,4\n",
    )

    for path in (tmp_path / "s.npz", table):
        found = read_samples(path, SEVERAL).target_values
        assert found["state"].tolist() == [1, -1]
        assert np.array_equal(found["level"], level.astype(np.float32), equal_nan=True)
        assert found["level"].dtype == np.float32


def test_what_one_output_lacks_is_unknown_and_another_name_is_refused(tmp_path):
    np.savez(tmp_path / "s.npz", **{"x": np.ones((2, 2)), "target_values.state": [1, 0]})
    assert np.isnan(read_samples(tmp_path / "s.npz", SEVERAL).target_values["level"]).all()

    np.savez(tmp_path / "s.npz", **{"x": np.ones((2, 2)), "target_values.speed": [1, 0]})
    with pytest.raises(DataFileError, match="expected target values of state, level, found speed"):
        read_samples(tmp_path / "s.npz", SEVERAL)


def test_target_values_of_a_model_that_says_nothing_are_left_out_and_told(tmp_path):
    np.savez(tmp_path / "s.npz", x=X, labels=[0, 1])
    found = read_samples(tmp_path / "s.npz", ModelSchema(ONE.inputs, OUT))

    assert found.target_values is None
    assert found.notes == ("target values are left out, for nobody has said what the model gives",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected a header with each name once, and rows of its length, found 0 rows under no header"),
        ("x.0,x.0,x.2,x.3\n1,2,3,4\n", "expected a header with each name once"),
        ("x.0,x.1,x.2,x.3\n1,2,3\n", "expected a header with each name once, and rows of its length, found 1 rows"),
        ("x.0,x.1,x.2\n1,2,3\n", "expected the columns x.0 to x.3, found 'x.0', 'x.1', 'x.2'"),
        ("x.0,x.1,x.2,x.3\n1,2,3,4\n1,2,three,4\n", "expected a number in every cell, found 'three' in line 3, column"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, text, sentence):
    with pytest.raises(DataFileError, match=sentence):
        read_samples(csv(tmp_path / "s.csv", text), ONE)


def test_what_is_no_file_of_samples_is_told(tmp_path):
    (tmp_path / "s.npz").write_bytes(b"PK")
    for name, sentence in (
        ("s.npz", "expected arrays of numbers"),
        ("none.npy", "expected a file that can be read, found No such file or directory"),
        ("none.csv", "expected a file that can be read, found No such file or directory"),
        ("s.txt", "expected a file that ends in .npz, .npy, .csv, found '.txt'"),
    ):
        with pytest.raises(DataFileError, match=sentence):
            read_samples(tmp_path / name, ONE)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataFileError, match=r"expected an array of numbers as numpy\.save writes it"):
        read_samples(tmp_path / "objects.npy", ONE)
