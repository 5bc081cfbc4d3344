"""A task is checked before any work starts, and every mistake in it is told at once."""

import sys

import numpy as np
import pytest

from hedgerow.errors import ExtraNotInstalledError, TaskError
from hedgerow.partition import Partition
from hedgerow.schema import TensorSpec
from hedgerow.state import State
from hedgerow.task import Dataset, LocalTraining, Task, TaskData, accuracy, load_attribute, load_task

IMAGE = TensorSpec("image", (2,), minimum=0.0, maximum=16.0)


def dataset(n: int = 4, **changes) -> Dataset:
    parts = {
        "inputs": {"image": np.full((n, 2), 3, np.float32)},
        "labels": np.arange(n) % 2,
        "columns": {"site": np.array(["a", "b"] * n)[:n]},
    }
    return Dataset(**{**parts, **changes})


def task(**changes) -> Task:
    parts = {
        "name": "toy",
        "inputs": [IMAGE],
        "labels": ("no", "yes"),
        "model": lambda: None,
        "data": lambda: TaskData(dataset(), dataset()),
    }
    return Task(**{**parts, **changes})


def mistakes(**changes) -> list[str]:
    with pytest.raises(TaskError) as caught:
        task(**changes)
    return list(caught.value.mistakes)


def test_a_sound_task_has_accuracy_and_a_schema():
    sound = task()

    assert sound.inputs == (IMAGE,)
    assert list(sound.metrics) == ["accuracy"]
    (output,) = sound.schema.outputs
    assert (output.name, output.shape, output.minimum, output.maximum) == ("probabilities", (2,), 0.0, 1.0)
    assert sound.schema.labels == ("no", "yes")


def test_an_output_without_softmax_has_no_range():
    (output,) = task(postprocess="none").schema.outputs

    assert (output.minimum, output.maximum) == (None, None)


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"name": "Toy task"}, "the name 'Toy task'"),
        ({"name": None}, "the name None"),
        ({"inputs": []}, "it has no inputs"),
        ({"inputs": IMAGE}, "inputs must be a sequence"),
        ({"inputs": ["image"]}, "the input 'image' is no TensorSpec"),
        ({"inputs": [IMAGE, IMAGE]}, "the input 'image' occurs twice"),
        ({"inputs": [TensorSpec("image", 2)]}, "positive whole numbers"),
        ({"labels": ["only"]}, "it needs at least two labels, found 1"),
        ({"labels": ["a", "a"]}, "its labels repeat"),
        ({"labels": 10}, "labels must be a sequence"),
        ({"model": None}, "model must be callable"),
        ({"data": 3}, "data must be callable"),
        ({"preprocess": "scale"}, "preprocess must be callable"),
        ({"student": "small"}, "student must be callable"),
        ({"loss": "hinge"}, "the loss 'hinge'"),
        ({"postprocess": "sigmoid"}, "the postprocess 'sigmoid'"),
        ({"metrics": {"f1": 3}}, "the metric 'f1' is not callable"),
        ({"metrics": accuracy}, "metrics must be a mapping"),
        ({"local": LocalTraining(learning_rate=0)}, "learning_rate must lie between"),
        ({"local": LocalTraining(batch_size=0)}, "batch_size must lie between"),
        ({"local": LocalTraining(epochs=0)}, "epochs must lie between"),
        ({"local": None}, "local must be a LocalTraining"),
        ({"partition": Partition("dirichlt")}, "did you mean 'dirichlet'?"),
        ({"partition": "dirichlet"}, "partition must be a Partition"),
        ({"inputs": [TensorSpec("image", (2,), missing=True)]}, "image may be missing: write a preprocess"),
    ],
)
def test_each_mistake_is_one_sentence(changes, mistake):
    assert [mistake in sentence for sentence in mistakes(**changes)] == [True]


def test_all_mistakes_are_told_at_once():
    assert len(mistakes(name="", inputs=[], labels=["a"], model=None, loss="x", partition=Partition(alpha=0))) == 6


@pytest.mark.parametrize(
    ("part", "mistake"),
    [
        ((np.zeros((4, 2)), np.zeros(4)), "expected a Dataset, found tuple"),
        (dataset(0), "it holds no samples"),
        (dataset(inputs=np.zeros((4, 2))), "must be mappings"),
        (dataset(inputs={"image": [[0.0, 1.0]] * 4}), "image must be a numpy array, found list"),
        (dataset(labels=[0, 1, 0, 1]), "labels must be a numpy array, found list"),
        (dataset(inputs={"picture": np.zeros((4, 2), np.float32)}), "expected the inputs ['image'], found ['picture']"),
        (dataset(inputs={"image": np.zeros((3, 2), np.float32)}), "image has 3 samples, the labels 4"),
        (dataset(inputs={"image": np.zeros((4, 2))}), "image is float64[2] a sample, the task says float32[2]"),
        (dataset(inputs={"image": np.zeros((4, 3), np.float32)}), "image is float32[3] a sample"),
        (dataset(inputs={"image": np.full((4, 2), np.nan, np.float32)}), "image holds NaN or infinity"),
        (dataset(inputs={"image": np.full((4, 2), -1, np.float32)}), "image goes down to -1, the task says 0"),
        (dataset(inputs={"image": np.full((4, 2), 17, np.float32)}), "image goes up to 17, the task says 16"),
        (dataset(labels=np.zeros(4, np.int32)), "the labels must be int64[n], found int32[4]"),
        (dataset(labels=np.zeros((4, 1), np.int64)), "the labels must be int64[n]"),
        (dataset(labels=np.full(4, 2)), "the labels must lie in 0..1, found 2..2"),
        (dataset(columns={"site": np.zeros(3)}), "the column 'site' has 3 values for 4 samples"),
    ],
)
def test_each_mistake_in_the_data_is_one_sentence(part, mistake):
    for data, place in ((TaskData(part, dataset()), "train"), (TaskData(dataset(), part), "held_out")):
        found = task().data_mistakes(data)

        assert [mistake in sentence for sentence in found] == [True]
        assert found[0].startswith(f"{place}: ")


def test_calibration_data_is_checked_too():
    (sentence,) = task().data_mistakes(TaskData(dataset(), dataset(), dataset(0)))

    assert sentence == "calibration: it holds no samples"


def test_a_subgroup_needs_its_column():
    found = task(subgroup="region").data_mistakes(TaskData(dataset(), dataset()))

    assert found[0] == "train: the subgroup column 'region' is absent; found ['site']"


def test_data_of_another_type_is_refused_on_loading():
    with pytest.raises(TaskError, match=r"data\(\) must return a TaskData, found tuple"):
        task(data=lambda: (dataset(), dataset())).load_data()


def test_good_data_is_loaded():
    assert len(task().load_data().train) == 4


def test_calibration_defaults_to_the_first_256_training_samples():
    data = TaskData(dataset(300), dataset())

    assert len(data.calibration_or_default()) == 256
    assert len(TaskData(dataset(3), dataset()).calibration_or_default()) == 3
    assert len(TaskData(dataset(300), dataset(), dataset(7)).calibration_or_default()) == 7


def test_samples_are_taken_in_the_order_asked_with_their_columns():
    taken = dataset(labels=np.array([0, 1, 0, 1])).take([3, 0])

    assert taken.labels.tolist() == [1, 0]
    assert taken.columns["site"].tolist() == ["b", "a"]
    assert taken.inputs["image"].shape == (2, 2)


def test_accuracy_is_the_share_of_samples_whose_best_class_is_the_label():
    assert accuracy(np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]]), np.array([0, 1, 1])) == pytest.approx(2 / 3)


def test_a_prediction_that_is_no_number_is_right_nowhere():
    nan, inf = float("nan"), float("inf")
    assert accuracy(np.array([[nan, nan], [nan, 0.9], [inf, 0.1], [0.9, 0.1]]), np.array([0, 0, 0, 0])) == 0.25


def write(folder, text):
    path = folder / "mine.py"
    path.write_text(text)
    return path


def test_a_task_is_loaded_from_a_file_once(tmp_path):
    path = write(tmp_path, "from tests.root.test_task import task\nTASK = task()\n")

    assert load_task(f"{path}:TASK").name == "toy"
    assert load_task(f"{path}:TASK") is load_task(f"{path}:TASK")


def test_an_attribute_is_loaded_from_a_module():
    assert load_attribute("math:pi") == pytest.approx(3.14159, abs=1e-5)


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("", "expected module:attribute or file.py:attribute"),
        ("math", "expected module:attribute"),
        ("math:", "expected module:attribute"),
        (":pi", "expected module:attribute"),
        ("math:pie", "math has no 'pie'; it has "),
        ("no_such_module:x", "No module named 'no_such_module'; correct the reference"),
        ("/nowhere/task.py:x", "there is no such file"),
    ],
)
def test_a_reference_that_leads_nowhere_is_told(reference, sentence):
    with pytest.raises(TaskError, match=sentence):
        load_attribute(reference)


def test_a_package_of_ours_that_is_absent_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    path = tmp_path / "task.py"
    path.write_text("import torch")
    # None: as if it were not installed.
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("hedgerow.task.is_installed", lambda module: module != "torch")

    with pytest.raises(ExtraNotInstalledError, match=r"task.py:task' needs .* the extra 'train', .*'torch'"):
        load_task(f"{path}:task")


def test_a_package_of_the_users_own_that_is_absent_is_named(tmp_path):
    path = tmp_path / "task.py"
    path.write_text("import no_such_package")

    with pytest.raises(TaskError, match=r"module that is absent \(No module named 'no_such_package'\)"):
        load_task(f"{path}:task")


def test_a_file_that_raises_is_told_and_can_be_mended(tmp_path):
    path = write(tmp_path, "1 / 0\n")
    with pytest.raises(TaskError, match="raised ZeroDivisionError: division by zero"):
        load_attribute(f"{path}:X")

    path.write_text("X = 1  # mended\n")
    assert load_attribute(f"{path}:X") == 1


def test_what_is_no_task_is_refused():
    with pytest.raises(TaskError, match=r"expected a hedgerow.Task, found float"):
        load_task("math:pi")


def test_an_error_of_ours_while_a_file_is_imported_is_told_with_its_own_advice_alone(tmp_path):
    path = tmp_path / "raises_ours.py"
    path.write_text(
        "from hedgerow.errors import PartitionError\nraise PartitionError('expected x, found y; mend it')\n"
    )
    with pytest.raises(TaskError) as caught:
        load_attribute(f"{path}:X")
    assert caught.value.mistakes == (f"importing {path} raised PartitionError: expected x, found y; mend it",)


def test_a_metric_cannot_change_what_the_next_is_measured_on():
    def spoils(probabilities, labels):
        probabilities[:] = 0
        labels[:] = 1
        return 7

    probabilities, labels = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), np.array([0, 1])
    measured = task(metrics={"spoils": spoils, "again": accuracy}).measure(probabilities, labels)

    assert measured == {"accuracy": 1.0, "spoils": 7.0, "again": 1.0}
    assert probabilities.tolist() == np.array([[0.9, 0.1], [0.2, 0.8]], np.float32).tolist()
    assert labels.tolist() == [0, 1]


def streaming_task(**changes) -> Task:
    parts = {"state": {"h": State((2, 1, 8)), "c": State((1, 4))}}
    return task(**{**parts, **changes})


def sequences(n: int = 3, steps: int = 5, **changes) -> Dataset:
    parts = {
        "inputs": {"image": np.full((n, steps, 2), 3, np.float32)},
        "labels": np.zeros((n, steps), np.int64),
        "columns": {"site": np.array(["a"] * n)},
    }
    return Dataset(**{**parts, **changes})


def test_state_stands_behind_the_inputs_and_the_output_in_pairs():
    schema = streaming_task().schema

    assert [(spec.name, spec.shape) for spec in schema.inputs] == [("image", (2,)), ("h", (2, 1, 8)), ("c", (1, 4))]
    assert [spec.name for spec in schema.outputs] == ["probabilities", "h_next", "c_next"]
    assert schema.state == {"h": "h_next", "c": "c_next"}
    assert schema.state_misfit() is None
    assert schema.given.inputs == (IMAGE,)


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"state": [State((1, 2))]}, 'state must be a mapping of names to State, such as {"h": State((2, 1, 128))}'),
        ({"state": {"h": (1, 2)}}, "the state 'h' must be a State"),
        ({"state": {"image": State((1, 2))}}, "the name 'image' of a state is taken already; name it otherwise"),
        ({"state": {"probabilities": State((1, 2))}}, "the name 'probabilities' of a state is taken already"),
        (
            {"state": {"h": State((1, 2)), "h_next": State((1, 2))}},
            "the name 'h_next' of a state is taken already; name it otherwise",
        ),
        ({"state": {"H": State((1, 2))}}, "the state 'H': the tensor name 'H' is not like"),
        ({"state": {"h" * 62: State((1, 2))}}, "the tensor name"),
        ({"state": {f"h{i}": State((1, 2)) for i in range(9)}}, "it has 9 state tensors, at most 8 are allowed"),
    ],
)
def test_each_mistake_in_state_is_told(changes, mistake):
    assert any(mistake in found for found in mistakes(**changes))


def test_data_of_a_task_with_state_are_sequences():
    sound = streaming_task()

    assert sound.data_mistakes(TaskData(sequences(), sequences(2, 7))) == []


@pytest.mark.parametrize(
    ("bad", "mistake"),
    [
        (dataset(), "train: the labels of a task with state must be int64[n, steps], a class for each step"),
        (sequences(labels=np.zeros(3, np.int64)), "a class for each step, found int64[3]"),
        (sequences(labels=np.zeros((3, 5), np.int32)), "a class for each step, found int32[3, 5]"),
        (sequences(labels=np.full((3, 5), 2)), "the labels must lie in 0..1, found 2..2"),
        (sequences(labels=np.zeros((3, 4), np.int64)), "train: image has 5 steps, the labels 4"),
        (sequences(3, 0), "train: its sequences hold no steps"),
        (
            sequences(inputs={"image": np.zeros((3, 5, 3), np.float32)}),
            "image is float32[3] a step, the task says float32[2], and sequences are (n, steps, ...)",
        ),
        (sequences(inputs={"image": np.zeros(3, np.float32)}), "image is float32[] a step, the task says float32[2]"),
        (sequences(inputs={"image": np.full((3, 5, 2), 99, np.float32)}), "image goes up to 99, the task says 16"),
    ],
)
def test_other_data_than_sequences_of_one_length_is_a_mistake(bad, mistake):
    found = streaming_task().data_mistakes(TaskData(bad, sequences()))

    assert any(mistake in each for each in found), found


def test_each_step_counts_as_a_sample_of_a_metric():
    labels = np.array([[0, 1], [1, 1]])
    probabilities = np.zeros((2, 2, 2))
    probabilities[..., 1] = 1

    assert streaming_task().measure(probabilities, labels) == {"accuracy": 0.75}


def test_sequences_are_cut_into_shards_by_the_class_of_their_last_step():
    data = sequences(labels=np.array([[0, 0, 0, 0, 1], [1, 1, 1, 1, 0], [0] * 5]))

    assert data.last_labels.tolist() == [1, 0, 0]
    assert dataset().last_labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(("steps", "expected"), [(1, 256), (10, 25), (64, 8), (500, 8)])
def test_calibration_is_of_so_many_sequences_as_hold_256_steps_but_of_8_at_least(steps, expected):
    assert len(TaskData(sequences(300, steps), sequences()).calibration_or_default()) == expected
