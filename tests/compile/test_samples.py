"""Samples from files: matched with a model's inputs, or refused in a sentence that says what to give."""

from pathlib import Path

import numpy as np
import pytest

from hedgerow.compile.errors import DataFileError
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.model_file import ModelFile
from hedgerow.compile.samples import SampleFile
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.schema import TensorSpec


def model(*inputs: tuple[str, int], stored: str = "float32", state: dict[str, str] | None = None) -> ModelFile:
    """Return a file with these inputs, ``(1, size)`` each; of integers they have the scale 1/255, from 0 to 1."""
    scale = None if stored == "float32" else 1 / 255
    limits = {} if scale is None else {"minimum": 0.0, "maximum": 1.0}
    specs = tuple(TensorSpec(name, (size,), "float32", **limits) for name, size in inputs)
    tensors = tuple(Tensor(name, f"the {name}", (1, size), stored, scale, 0) for name, size in inputs)
    given = TensorSpec("y", (2,), "float32")
    return ModelFile(
        format="tflite",
        content=b"",
        facts=FileFacts.__new__(FileFacts),
        inputs=tensors,
        outputs=(Tensor("y", "y", (1, 2), "float32"),),
        schema=ModelSchema(specs, (given,)),
        state=state or {},
    )


def table(path: Path, text: str) -> SampleFile:
    (path / "data.csv").write_text(text, "utf-8")
    return SampleFile(path / "data.csv")


def arrays(path: Path, **values: np.ndarray) -> SampleFile:
    np.savez(path / "data.npz", **values)
    return SampleFile(path / "data.npz")


ROWS = "1,2,0\n3,4,1\n5,6,0\n7,8,1\n9,10,0\n"


def test_columns_with_the_names_of_all_inputs_are_these_inputs_in_any_order(tmp_path):
    samples = table(tmp_path, f"b,the a,labels\n{ROWS}").samples_for(model(("a", 1), ("b", 1)))
    assert samples.held_out.inputs["a"].tolist() == [[4], [6], [8]]
    assert samples.held_out.inputs["b"].tolist() == [[3], [5], [7]]
    assert samples.held_out.target_values.tolist() == [1, 0, 1]
    assert samples.calibration.inputs["a"].tolist() == [[2], [10]]


@pytest.mark.parametrize("header", ["a,b,labels", "f,f,labels", "\ufeffa,b,labels"])
def test_other_columns_are_one_input_in_their_order(header, tmp_path):
    samples = table(tmp_path, f"{header}\n{ROWS}").samples_for(model(("x", 2)))
    assert samples.held_out.inputs["x"].tolist() == [[3, 4], [5, 6], [7, 8]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a,b,labels\n{ROWS}5,six,1\n", "a number in every cell, found 'six' in line 7, column 'b'"),
        ("a,b,labels\n1,2,cat\n", "a number in every cell, found 'cat' in line 2, column 'labels'"),
        ("a,b,labels\n1,2\n", "a header with one column 'labels', and rows of its length, found 1 rows under 'a'"),
        ("", "found 0 rows under no header"),
    ],
)
def test_a_table_that_is_none_is_told_with_its_place(text, said, tmp_path):
    with pytest.raises(DataFileError) as caught:
        table(tmp_path, text).samples_for(model(("x", 2)))
    assert said in str(caught.value)


def test_classes_in_words_are_told_with_one_of_them(tmp_path):
    with pytest.raises(DataFileError) as caught:
        arrays(tmp_path, x=np.zeros((4, 2)), labels=np.array(["cat", "dog"] * 2)).samples_for(model(("x", 2)))
    assert str(caught.value).endswith(
        "expected whole numbers from 0 as 'labels', the place of the class among the output's scores, found text, such "
        "as 'cat'; correct the data"
    )


def test_an_array_of_objects_is_refused_without_numpys_words(tmp_path):
    values = np.array([{}, {}], dtype=object)
    with pytest.raises(DataFileError) as caught:
        arrays(tmp_path, x=values, labels=np.zeros(2)).samples_for(model(("x", 2)))
    assert caught.value.found == "an archive with an array of Python objects, or a damaged one"


def test_samples_without_an_input_that_may_be_state_are_told_how_to_say_so(tmp_path):
    data = arrays(tmp_path, x=np.zeros((4, 2)), labels=np.zeros(4))
    with pytest.raises(DataFileError) as caught:
        data.samples_for(model(("x", 2), ("h", 3)))
    assert str(caught.value).endswith(
        "expected arrays called 'the x', 'the h', found 'x'; correct the data, or say with --state IN=OUT which output "
        "'the h' carries on"
    )


def test_stored_integers_in_the_place_of_real_numbers_are_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4)).astype(np.uint8)
    with pytest.raises(DataFileError) as caught:
        arrays(tmp_path, x=pixels, labels=np.zeros(8)).samples_for(model(("x", 4), stored="uint8"))
    assert "expected real numbers within 0 and 1 for 'x', all that its uint8 holds, found " in str(caught.value)
    assert "give no stored integers" in str(caught.value)


def test_real_numbers_of_which_some_are_cut_off_are_taken(tmp_path):
    values = np.linspace(-0.2, 1.2, 32).reshape(8, 4)
    found = arrays(tmp_path, x=values, labels=np.zeros(8)).samples_for(model(("x", 4), stored="uint8"))
    assert len(found.held_out) == 6


def test_floats_have_no_range(tmp_path):
    values = np.full((8, 4), 200.0)
    assert len(arrays(tmp_path, x=values, labels=np.zeros(8)).samples_for(model(("x", 4))).held_out) == 6
