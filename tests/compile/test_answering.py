"""Which outputs of a file from elsewhere answer what a task asks for."""

import numpy as np
import pytest

from hedgerow.compile.answering import Answering, find_answering
from hedgerow.compile.samples import SampleSet
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import NO_OUTPUTS, Classes, Outputs, Reconstruction, Values
from hedgerow.schema import TensorSpec
from hedgerow.task import Dataset

X = {"x": np.zeros((4, 1), np.float32)}
LEVEL = Values(("level", "flow"), tolerance=1.0)
KIND = Classes(("a", "b", "c"))


def schema(*outputs: TensorSpec) -> ModelSchema:
    return ModelSchema((TensorSpec("x", (1,)),), outputs)


def samples(outputs, target_values) -> SampleSet:
    data = Dataset(X, target_values)
    return SampleSet(held_out=data, calibration=data, known=data, fingerprint_of=(data,), outputs=outputs)


def found(outputs, target_values, *given: TensorSpec) -> Answering:
    answering = find_answering(schema(*given), samples(outputs, target_values))
    assert isinstance(answering, Answering), answering
    return answering


def test_labels_of_samples_of_which_nothing_is_said_make_classes():
    answering = found(NO_OUTPUTS, np.array([0, 2, -1, 1]), TensorSpec("box", (4, 2)), TensorSpec("scores", (3,)))
    assert answering.outputs == Outputs({"scores": Classes(("0", "1", "2"))})
    given = {"scores": np.eye(3, dtype=np.float32)}
    assert answering.answers(given)["scores"].tolist() == np.eye(3).tolist()


def test_a_tasks_classes_name_what_a_file_gives_under_another_name():
    answering = found(Outputs.of(KIND), np.array([0, 1, 2, 0]), TensorSpec("dense_3", (3,)))
    assert answering.outputs == Outputs({"dense_3": KIND})


def test_numbers_are_found_by_their_name_and_else_by_their_size():
    wanted = np.zeros((4, 2), np.float32)
    by_name = found(Outputs.of(LEVEL), wanted, TensorSpec("embedding", (2,)), TensorSpec("values", (2,)))
    assert by_name.of == {"values": "values"}
    by_size = found(Outputs.of(LEVEL), wanted, TensorSpec("dense_3", (1, 2)))
    assert by_size.of == {"values": "dense_3"}
    answers = by_size.answers({"dense_3": np.arange(8.0).reshape(4, 1, 2)})
    assert answers["values"].tolist() == np.arange(8.0).reshape(4, 2).tolist()


def test_several_outputs_are_found_in_the_order_of_the_task():
    outputs = Outputs({"kind": KIND, "level": LEVEL})
    wanted = {"kind": np.zeros(4, np.int64), "level": np.zeros((4, 2), np.float32)}
    answering = found(outputs, wanted, TensorSpec("first", (3,)), TensorSpec("second", (2,)))
    assert answering.of == {"kind": "first", "level": "second"}
    assert answering.renamed({"first": "kind", "second": "level"}).of == {"kind": "kind", "level": "level"}


def test_classes_are_read_of_what_their_output_is_called_now():
    answering = found(NO_OUTPUTS, np.array([0, 2, 1, 1]), TensorSpec("output_0", (3,)), TensorSpec("output_1", (4, 2)))
    now = answering.renamed({"output_0": "probabilities", "output_1": "output_1"})
    assert now.outputs == answering.outputs
    assert now.answers({"probabilities": np.eye(3, dtype=np.float32)})["output_0"].tolist() == np.eye(3).tolist()


@pytest.mark.parametrize(
    "given",
    [
        (TensorSpec("dense_3", (3,)),),
        (TensorSpec("dense_3", (2,), "int64"),),
        (TensorSpec("one", (2,)), TensorSpec("two", (2,))),
    ],
)
def test_what_does_not_give_what_a_task_asks_for_says_what_it_gives(given):
    answering = find_answering(schema(*given), samples(Outputs.of(LEVEL), np.zeros((4, 2), np.float32)))
    shapes = ", ".join(f"{spec.name} of {spec.dtype}{list(spec.shape)}" for spec in given)
    assert answering == f"the file does not give what the task asks for, values of float32[2]: {shapes}"


def test_all_samples_of_an_anomaly_detector_are_measured_and_steps_without_a_class_are_not():
    unjudged = samples(Outputs.of(Reconstruction()), None)
    assert unjudged.classes is None
    assert unjudged.scored.tolist() == [0, 1, 2, 3]
    assert samples(NO_OUTPUTS, np.array([-1, 0, -1, 1])).scored.tolist() == [1, 3]
