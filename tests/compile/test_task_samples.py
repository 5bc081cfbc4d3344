"""Samples of a task for a file from elsewhere: rows, or sequences where the file has state."""

from dataclasses import replace

import numpy as np
import pytest

from hedgerow.compile.errors import DataFileError
from hedgerow.compile.model_file import ModelFile
from hedgerow.compile.samples import HeldOutSamples
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import NO_OUTPUTS
from hedgerow.schema import TensorSpec
from hedgerow.state import State
from hedgerow.task import Dataset, Task, TaskData

SCHEMA = ModelSchema(
    (TensorSpec("x", (1, 3)), TensorSpec("h", (2, 1, 4))),
    (TensorSpec("y", (1, 2)), TensorSpec("hn", (2, 1, 4))),
    NO_OUTPUTS,
    {"h": "hn"},
)
FILE = ModelFile(
    format="onnx",
    content=b"",
    facts=None,
    inputs=(Tensor("x", "x", (1, 3), "float32"), Tensor("h", "h", (2, 1, 4), "float32")),
    outputs=(Tensor("y", "y", (1, 2), "float32"), Tensor("hn", "hn", (2, 1, 4), "float32")),
    schema=SCHEMA,
    state={"h": "hn"},
)
VALUES = np.arange(48, dtype=np.float32).reshape(4, 4, 3)
LABELS = np.array([[0, 0, 1, 1], [1, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0]])


def samples(data: Dataset, **changes) -> HeldOutSamples:
    everything = TaskData(data, data, data.take([1]))
    parts = {"name": "toy", "inputs": [TensorSpec("x", (3,), unit="m")], "labels": ("no", "yes")}
    task = Task(**{**parts, "model": lambda: None, "data": lambda: everything, **changes})
    return HeldOutSamples(task, everything)


def test_sequences_of_a_task_with_state_become_rows_with_state_of_zeros():
    data = Dataset({"x": VALUES}, LABELS, {"site": np.array(["a", "b", "c", "d"])})
    found = samples(data, state={"h": State((2, 1, 4))}).samples_for(FILE)

    assert (found.steps, found.calibration_steps) == (4, 4)
    assert found.held_out.inputs["x"].shape == (16, 1, 3)
    np.testing.assert_array_equal(found.held_out.inputs["x"][:, 0], VALUES.reshape(16, 3))
    assert found.held_out.inputs["h"].shape == (16, 2, 1, 4)
    assert not found.held_out.inputs["h"].any()
    assert found.held_out.target_values.tolist() == LABELS.reshape(-1).tolist()
    assert found.held_out.columns["site"][3:5].tolist() == ["a", "b"]
    assert found.calibration.target_values.tolist() == LABELS[1].tolist()


def test_names_and_units_of_the_task_are_taken_for_what_is_no_state():
    found = samples(Dataset({"x": VALUES}, LABELS), state={"h": State((2, 1, 4))}).inputs_for(FILE)

    assert [(spec.name, spec.shape, spec.unit) for spec in found] == [("x", (1, 3), "m"), ("h", (2, 1, 4), "")]


def test_a_file_with_state_wants_a_task_with_state():
    data = Dataset({"x": VALUES.reshape(16, 3)}, LABELS.reshape(-1))

    with pytest.raises(DataFileError, match=r"expected a file with --state for a task with state.*no sequences"):
        samples(data).samples_for(FILE)


def test_a_task_with_state_wants_to_be_told_what_is_state():
    schema = replace(SCHEMA, inputs=SCHEMA.inputs[:1], outputs=SCHEMA.outputs[:1], state={})
    plain = replace(FILE, inputs=FILE.inputs[:1], outputs=FILE.outputs[:1], schema=schema, state={})
    data = Dataset({"x": VALUES}, LABELS)

    with pytest.raises(DataFileError, match="found sequences, and no --state; say which inputs are state"):
        samples(data, state={"h": State((2, 1, 4))}).samples_for(plain)
