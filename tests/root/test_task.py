"""A task is checked before any work starts, and every mistake in it is told at once."""

import sys
from contextlib import suppress
from dataclasses import fields, replace

import numpy as np
import pytest

from hedgerow.errors import ExtraNotInstalledError, TaskError
from hedgerow.outputs import Classes, Custom, Labels, Reconstruction, Tokens, Values
from hedgerow.partition import Partition
from hedgerow.schema import TensorSpec
from hedgerow.state import State
from hedgerow.task import Dataset, LocalTraining, Task, TaskData, load_attribute, load_task

IMAGE = TensorSpec("image", (2,), minimum=0.0, maximum=16.0)


def dataset(n: int = 4, **changes) -> Dataset:
    parts = {
        "inputs": {"image": np.full((n, 2), 3, np.float32)},
        "target_values": np.arange(n) % 2,
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


def accuracy(given, wanted) -> float:
    """A metric of a user's own."""
    return float((given.argmax(axis=1) == wanted).mean())


def test_a_sound_task_has_a_schema():
    sound = task()

    assert sound.inputs == (IMAGE,)
    assert dict(sound.metrics) == {}
    (output,) = sound.schema.outputs
    assert (output.name, output.shape, output.minimum, output.maximum) == ("probabilities", (2,), 0.0, 1.0)
    assert dict(sound.answers) == {"probabilities": Classes(("no", "yes"))}
    assert sound.schema.answers == sound.answers


def test_labels_are_short_for_classes():
    assert task(labels=(), outputs=Classes(["no", "yes"])).schema == task().schema
    assert task(labels=(), outputs={"probabilities": Classes(["no", "yes"])}).answers == task().answers


def test_a_task_of_labels_can_be_changed_like_any_other():
    changed = replace(task(), name="other", labels=["a", "b", "c"], postprocess="none")

    assert dict(changed.answers) == {"probabilities": Classes(("a", "b", "c"), softmax=False)}
    assert replace(task(), name="other").answers == task().answers
    with pytest.raises(TaskError, match="it has outputs and labels"):
        replace(task(), outputs=Values(["level"], tolerance=1.0))


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
        ({"labels": ["only"]}, "its output: it needs at least 2 class names, found 1 ('only'); give a list of them"),
        ({"labels": ["a", "a"]}, "its output: each class needs a name of its own; found several of 'a'"),
        ({"labels": 10}, "labels must be a sequence"),
        ({"labels": "ab"}, "labels must be a sequence of class names, found str"),
        ({"subgroup": 3}, "subgroup must be the name of a column of the data, found 3"),
        (
            {"model": None},
            "model must be a function that makes a module, such as lambda: nn.Linear(4, 2), found NoneType",
        ),
        (
            {"data": 3},
            "data must be a function that returns a TaskData, such as lambda: TaskData(train, held_out), found int",
        ),
        ({"preprocess": "scale"}, "preprocess must be a torch function of the inputs, found str"),
        ({"student": "small"}, "student must be a function that makes a module, found str"),
        ({"loss": "hinge"}, "the loss 'hinge'"),
        ({"postprocess": "sigmoid"}, "the postprocess 'sigmoid'"),
        ({"metrics": {"f1": 3}}, "the metric 'f1' is not callable"),
        (
            {"metrics": {"accuracy": accuracy}},
            "a metric must not be called 'accuracy', which is measured of every task",
        ),
        ({"metrics": {"loss": accuracy}}, "a metric must not be called 'loss'"),
        ({"metrics": {"baseline_accuracy": accuracy}}, "a metric must not be called 'baseline_accuracy'"),
        ({"metrics": accuracy}, "metrics must be a mapping"),
        ({"local": LocalTraining(learning_rate=0)}, "learning_rate must lie between"),
        ({"local": LocalTraining(batch_size=0)}, "batch_size must lie between"),
        ({"local": LocalTraining(epochs=0)}, "epochs must lie between"),
        ({"local": LocalTraining(epochs=1.5)}, "local: epochs must be a whole number, found 1.5"),
        ({"local": LocalTraining(learning_rate="0.1")}, "local: learning_rate must be a number, found '0.1'"),
        ({"inputs": [TensorSpec("image", (2,), minimum="0")]}, "image: the minimum must be a number, found '0'"),
        ({"inputs": [TensorSpec("image", (2,), maximum=float("nan"))]}, "the maximum must be a number, found nan"),
        ({"inputs": [TensorSpec("image", (2,), missing=0)]}, "image: missing must be True or False, found 0"),
        ({"local": None}, "local must be a LocalTraining"),
        ({"partition": Partition("dirichlt")}, "did you mean 'dirichlet'?"),
        ({"partition": "dirichlet"}, "partition must be a Partition"),
        ({"inputs": [TensorSpec("image", (2,), missing=True)]}, "image may be missing: write a preprocess"),
        ({"labels": (), "outputs": [Classes(("a", "b"))]}, "outputs must be one output, such as Values("),
        ({"labels": (), "outputs": Classes}, "a mapping of names to outputs, found ABCMeta"),
        ({"labels": (), "outputs": "classes"}, "a mapping of names to outputs, found str"),
        ({"loss": ["cross_entropy"]}, "the loss ['cross_entropy'] is none of cross_entropy, bce"),
        ({"loss": {"probabilities": []}}, "the loss [] is none of cross_entropy, bce"),
        ({"inputs": [TensorSpec("labels", (2,))]}, "must not be called 'labels', as target values are in files"),
        ({"inputs": [TensorSpec("target_values", (2,))]}, "must not be called 'target_values', as target values are"),
    ],
)
def test_each_mistake_is_one_sentence(changes, mistake):
    assert [mistake in sentence for sentence in mistakes(**changes)] == [True]


class Module:
    """As torch's: it can be called, and has weights."""

    def state_dict(self):
        return {}

    def __call__(self, given):
        return given


@pytest.mark.parametrize("attribute", ["model", "student"])
def test_a_module_is_not_what_makes_one_and_a_class_of_modules_is(attribute):
    (sentence,) = mistakes(**{attribute: Module()})

    assert sentence.startswith(f"{attribute} must be a function that makes a module")
    assert sentence.endswith("found a Module that is made already")
    assert task(**{attribute: Module}).name == "toy"


ODD = [
    None,
    "x",
    "5",
    b"x",
    (),
    [],
    {},
    [None],
    ["a"],
    [[1]],
    0,
    -1,
    1.5,
    10**400,
    float("nan"),
    float("inf"),
    object(),
]
FIELDS = {
    TensorSpec: ({"name": "image", "shape": (2,)}, lambda made: {"inputs": [made]}),
    Classes: ({"names": ["a", "b"]}, lambda made: {"outputs": made, "labels": ()}),
    Labels: ({"names": ["a", "b"]}, lambda made: {"outputs": made, "labels": ()}),
    Values: ({"names": ["a", "b"], "tolerance": 1.0}, lambda made: {"outputs": made, "labels": ()}),
    Reconstruction: ({}, lambda made: {"outputs": made, "labels": ()}),
    Tokens: ({"vocabulary": ["a", "b"], "positions": 2}, lambda made: {"outputs": made, "labels": ()}),
    Custom: ({"shape": (2,), "loss": len, "score": len}, lambda made: {"outputs": made, "labels": ()}),
    LocalTraining: ({}, lambda made: {"local": made}),
    Partition: ({}, lambda made: {"partition": made}),
    State: ({"shape": (1, 2)}, lambda made: {"state": {"memory": made}}),
    dict: ({}, lambda made: {"labels": ()} | made if "outputs" in made else made),
}
"""What is made -> its fields that must be given, and how a task has it; a dict: the task's own fields."""


@pytest.mark.parametrize(
    ("made", "name"),
    [(made, field.name) for made in FIELDS for field in fields(Task if made is dict else made)],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_whatever_stands_in_a_field_is_taken_or_told_as_a_mistake_and_raises_nothing_else(made, name):
    needed, placed = FIELDS[made]
    refused = 0
    for odd in ODD:
        with suppress(TaskError):
            task(**placed(made(**{**needed, name: odd})))
            continue
        refused += 1
    assert refused or (made, name) == (Classes, "softmax")


def test_all_mistakes_are_told_at_once():
    assert len(mistakes(name="", inputs=[], labels=["a"], model=None, loss="x", partition=Partition(alpha=0))) == 6


@pytest.mark.parametrize(
    ("part", "mistake"),
    [
        ((np.zeros((4, 2)), np.zeros(4)), "expected a Dataset, found tuple"),
        (dataset(0), "it holds no samples"),
        (dataset(inputs=np.zeros((4, 2))), "must be mappings"),
        (dataset(inputs={"image": [[0.0, 1.0]] * 4}), "image must be a numpy array, found list"),
        (
            dataset(target_values=[0, 1, 0, 1]),
            "target_values must be a numpy array, found list; use numpy.asarray(...)",
        ),
        (dataset(inputs={"picture": np.zeros((4, 2), np.float32)}), "expected the inputs ['image'], found ['picture']"),
        (dataset(inputs={"image": np.zeros((3, 2), np.float32)}, columns={}), "the target values are 4 for 3 samples"),
        (
            dataset(inputs={"image": np.zeros((4, 2))}),
            "image is float64[2] a sample, the task says float32[2]; use .astype('float32')",
        ),
        (dataset(inputs={"image": np.zeros((4, 3), np.float32)}), "image is float32[3] a sample"),
        (
            dataset(inputs={"image": np.zeros((4, 1, 2), np.float32)}),
            "; reshape it to (n, 2), or say (1, 2) in the TensorSpec",
        ),
        (dataset(inputs={"image": np.zeros(4, np.float32)}), "; leave the batch out of the TensorSpec's shape"),
        (dataset(inputs={"image": np.full((4, 2), np.nan, np.float32)}), "image holds NaN or infinity"),
        (dataset(inputs={"image": np.full((4, 2), -1, np.float32)}), "image goes down to -1, the task says 0"),
        (dataset(inputs={"image": np.full((4, 2), 17, np.float32)}), "image goes up to 17, the task says 16"),
        (
            dataset(target_values=np.zeros(4, np.int32)),
            "the target values of classes must be int64[n], found int32[n]; use .astype('int64')",
        ),
        (dataset(target_values=np.zeros((4, 1), np.int64)), "found int64[n, 1]; reshape them to (n,)"),
        (dataset(target_values=np.eye(2)[[0, 1, 0, 1]]), "found float64[n, 2]; use .argmax(axis=-1)"),
        (dataset(target_values=np.full((4, 2), 0.5)), "must be int64[n], found float64[n, 2]"),
        (
            dataset(target_values=np.array(["a", "b", "a", "b"])),
            "found <U1[n]; give the place of each in the names, from 0",
        ),
        (
            dataset(target_values=np.array([0, 1, np.nan, 1])),
            "found float64[n]; leave out the samples of which none is known, and use .astype(...)",
        ),
        (dataset(target_values=np.array([1, 2, 1, 2])), "must lie in 0..1, found 1..2; they are counted from 0"),
        (
            dataset(target_values=np.array([1, -1, 1, 0])),
            "must lie in 0..1, found -1..1; leave out the samples whose class is not known",
        ),
        (dataset(target_values=np.full(4, 2)), "the target values: the classes must lie in 0..1, found 2..2"),
        (dataset(target_values=None), "it has no target values; give them as Dataset(inputs, target_values)"),
        (dataset(target_values={1: np.zeros(4, np.int64)}), "expected target values for probabilities, found 1"),
        (dataset(target_values=np.array(3)), "target_values must have its samples as the first dimension"),
        (dataset(inputs={"image": np.array(0.5)}), "image must have its samples as the first dimension"),
        (dataset(target_values={"state": np.zeros(4, np.int64)}), "expected target values for probabilities, found s"),
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

    assert found[0] == "train and held_out: the subgroup column 'region' is absent; found ['site']"


def test_data_of_another_type_is_refused_on_loading():
    with pytest.raises(
        TaskError, match=r"data\(\) must return a TaskData of two Datasets, train and held_out, found tuple"
    ):
        task(data=lambda: (dataset(), dataset())).load_data()


def test_good_data_is_loaded():
    assert len(task().load_data().train) == 4


def test_calibration_defaults_to_256_training_samples_from_the_first_to_the_last():
    data = TaskData(dataset(300), dataset())

    assert len(task().calibration(data)) == 256
    assert len(task().calibration(TaskData(dataset(3), dataset()))) == 3
    rows = {
        name: np.arange(1000, dtype=np.float32)[:, None] * np.ones(values.shape[1:], np.float32)
        for name, values in dataset().inputs.items()
    }
    # Data in an order, by class or by machine, would show quantizers a part of the world.
    sorted_data = TaskData(Dataset(rows, np.sort(np.arange(1000) % 2)), dataset())
    (found, *_others) = task().calibration(sorted_data).inputs.values()
    places = found.reshape(256, -1)[:, 0]
    assert (places[0], places[-1]) == (0, 999)
    assert set(np.diff(places)) == {3, 4}
    assert len(task().calibration(TaskData(dataset(300), dataset(), dataset(7)))) == 7


def test_samples_are_taken_in_the_order_asked_with_their_columns():
    taken = dataset(target_values=np.array([0, 1, 0, 1])).take([3, 0])

    assert taken.target_values.tolist() == [1, 0]
    assert taken.columns["site"].tolist() == ["b", "a"]
    assert taken.inputs["image"].shape == (2, 2)


def measured(given, wanted, **changes) -> dict[str, float]:
    sound = task(**changes)
    return sound.measure({"probabilities": np.array(given, np.float32)}, {"probabilities": np.array(wanted)})


def test_accuracy_is_the_share_of_samples_whose_best_class_is_the_wanted_one():
    assert measured([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], [0, 1, 1]) == {"accuracy": pytest.approx(2 / 3)}


def test_a_prediction_that_is_no_number_is_right_nowhere():
    nan, inf = float("nan"), float("inf")
    assert measured([[nan, nan], [nan, 0.9], [inf, 0.1], [0.9, 0.1]], [0, 0, 0, 0]) == {"accuracy": 0.25}


def test_only_samples_whose_target_value_is_known_have_a_score():
    assert measured([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], [0, -1, 1]) == {"accuracy": 0.5}
    assert measured([[0.9, 0.1]], [-1]) == {}


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
    path = write(tmp_path, "def of(n):\n    return 1 / n\n\n\nof(0)\n")
    with pytest.raises(
        TaskError, match=rf"raised ZeroDivisionError: division by zero \({path.name}, line 2\); correct it"
    ):
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
    sound = task(metrics={"spoils": spoils, "again": accuracy})
    found = sound.measure({"probabilities": probabilities}, {"probabilities": labels})

    assert found == {"accuracy": 1.0, "spoils": 7.0, "again": 1.0}
    assert probabilities.tolist() == np.array([[0.9, 0.1], [0.2, 0.8]], np.float32).tolist()
    assert labels.tolist() == [0, 1]


def streaming_task(**changes) -> Task:
    parts = {"state": {"h": State((2, 1, 8)), "c": State((1, 4))}}
    return task(**{**parts, **changes})


def sequences(n: int = 3, steps: int = 5, **changes) -> Dataset:
    parts = {
        "inputs": {"image": np.full((n, steps, 2), 3, np.float32)},
        "target_values": np.zeros((n, steps), np.int64),
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
        (dataset(), "train: the target values of classes must be int64[n, steps], found int64[n]"),
        (sequences(target_values=np.zeros(3, np.int64)), "must be int64[n, steps], found int64[n]"),
        (sequences(target_values=np.zeros((3, 5), np.int32)), "must be int64[n, steps], found int32[n, steps]"),
        (sequences(target_values=np.full((3, 5), 2)), "the classes must lie in 0..1, found 2..2"),
        (sequences(target_values=np.zeros((3, 4), np.int64)), "train: image has 5 steps, the target values 4"),
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

    found = streaming_task().measure({"probabilities": probabilities}, {"probabilities": labels})

    assert found == {"accuracy": 0.75}


def test_sequences_are_cut_into_shards_by_the_class_of_their_last_step():
    data = sequences(target_values=np.array([[0, 0, 0, 0, 1], [1, 1, 1, 1, 0], [0] * 5]))

    assert streaming_task().strata(data).tolist() == [1, 0, 0]
    assert task().strata(dataset()).tolist() == [0, 1, 0, 1]


def test_outputs_without_classes_are_cut_by_their_number_alone():
    values = task(labels=(), outputs=Values(["level"], tolerance=1.0))
    data = dataset(target_values=np.zeros((4, 1), np.float32))

    assert values.strata(data) is None
    assert values.strata_or_count(data) == 4
    assert task().strata_or_count(dataset()).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(("steps", "expected"), [(1, 256), (10, 25), (64, 8), (500, 8)])
def test_calibration_is_of_so_many_sequences_as_hold_256_steps_but_of_8_at_least(steps, expected):
    assert len(streaming_task().calibration(TaskData(sequences(300, steps), sequences()))) == expected


LEVEL = Values(["level"], tolerance=1.0)


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"labels": ()}, "it needs outputs, such as outputs=Values"),
        (
            {"outputs": LEVEL},
            "it has outputs and labels; labels are short for outputs=Classes(labels), so leave one out",
        ),
        (
            {"labels": (), "outputs": {"a": "classes"}},
            "the output 'a' must be an output, such as Classes([...]), found s",
        ),
        (
            {"labels": (), "outputs": Values(["a"], tolerance=0.0)},
            "its output: each tolerance must",
        ),
        (
            {"labels": (), "outputs": {"a": LEVEL, "b": Classes(["one"])}},
            "the output 'b': it needs at least 2 class names, found 1",
        ),
        ({"labels": (), "outputs": {"A": LEVEL}}, "the name 'A' of an output is not like"),
        ({"labels": (), "outputs": {"image": LEVEL}}, "the name 'image' of an output is an input's already"),
        ({"labels": (), "outputs": {f"o{n}": LEVEL for n in range(17)}}, "it needs one to 16 outputs, found 17"),
        ({"labels": (), "outputs": Values(["a"], tolerance=1.0, weight=0.0)}, "its weight must be a number above 0"),
        ({"labels": (), "outputs": LEVEL, "loss": "cross_entropy"}, "the loss 'cross_entropy' does not fit values"),
        (
            {"labels": (), "outputs": Custom((2,))},
            "needs a loss of your own: loss=a torch function (given, target values) -> one number",
        ),
        (
            {"labels": (), "outputs": {"a": LEVEL}, "loss": {"b": "mse"}},
            "the loss names the output 'b', which there is not",
        ),
    ],
)
def test_each_mistake_in_outputs_is_one_sentence(changes, mistake):
    assert [mistake in sentence for sentence in mistakes(**changes)] == [True]


def form_mistakes(outputs, target_values, n: int = 4) -> list[str]:
    sound = task(labels=(), outputs=outputs)
    return sound.data_mistakes(
        TaskData(dataset(n, target_values=target_values), dataset(n, target_values=target_values))
    )


@pytest.mark.parametrize(
    ("outputs", "target_values", "mistake"),
    [
        (Classes(["a", "b"]), np.array([0.0, 1, 0, 1]), "found float64[n]; use .astype('int64')"),
        (
            Classes(["a", "b"]),
            np.array([0.5, 1, 0, 1]),
            "found float64[n]; those of classes are whole numbers, use outputs=Values(...) for others",
        ),
        (
            LEVEL,
            np.zeros((4, 1)),
            "the target values of values must be float32[n, 1], found float64[n, 1]; use .astype('float32')",
        ),
        (LEVEL, np.zeros(4, np.float32), "must be float32[n, 1], found float32[n]; reshape them to (n, 1)"),
        (LEVEL, np.zeros((4, 2), np.float32), "must be float32[n, 1], found float32[n, 2]"),
        (
            LEVEL,
            np.full((4, 1), np.nan, np.float32),
            "the target values: they hold NaN or infinity; leave out the samples of which it is not known",
        ),
        (Labels(["a", "b"]), np.zeros((4, 2), bool), "must be int64[n, 2], found bool[n, 2]; use .astype('int64')"),
        (Labels(["a", "b"]), np.full((4, 2), 2), "each label is 0 or 1, found 2"),
        (Tokens(["a", "b"], 3), np.zeros((4, 2), np.int64), "must be int64[n, 3], found int64[n, 2]"),
        (Reconstruction(), np.array([0, 1, 2, 0]), "a sample is 0 (normal), 1 (anomalous) or -1 (not judged), found 2"),
        (
            Reconstruction(),
            np.array([0, 1, 0, 0]),
            "1 of 4 samples are anomalous, from which a reconstruction does not learn; leave them out",
        ),
        (LEVEL, None, "it has no target values; give them as Dataset(inputs, target_values)"),
        (
            {"a": LEVEL, "b": LEVEL},
            np.zeros((4, 1), np.float32),
            "expected target values for each of a, b, found one array",
        ),
        ({"a": LEVEL, "b": LEVEL}, {"a": np.zeros((4, 1), np.float32)}, "expected target values for a, b, found a"),
        (
            {"a": LEVEL, "b": LEVEL},
            {"a": np.zeros((4, 1), np.float32), "b": np.zeros((4, 1))},
            "the target values of 'b' of values must be float32[n, 1], found float64[n, 1]; use .astype('float32')",
        ),
    ],
)
def test_target_values_of_another_form_are_told_in_one_sentence(outputs, target_values, mistake):
    found = [sentence for sentence in form_mistakes(outputs, target_values) if sentence.startswith("train")]

    assert [mistake in sentence for sentence in found] == [True], found


@pytest.mark.parametrize("state", [{}, {"h": State((1, 2))}], ids=["samples", "sequences"])
def test_of_several_outputs_one_that_learns_alone_needs_no_target_values(state):
    outputs = {"state": Classes(["a", "b"]), "anomaly": Reconstruction()}
    both = task(labels=(), outputs=outputs, state=state)
    data = sequences if state else dataset
    shape = (3, 5) if state else (3,)
    given = data(3, target_values={"state": np.zeros(shape, np.int64)})

    assert both.data_mistakes(TaskData(given, given)) == []
    wanted = both.wanted(given)
    assert list(wanted) == ["state", "anomaly"]
    assert wanted["anomaly"].tolist() == np.full(shape, -1).tolist()
    without = data(3, target_values={"anomaly": np.zeros(shape, np.int64)})
    assert "train: expected target values for state, anomaly, found anomaly" in both.data_mistakes(
        TaskData(without, given)
    )


def test_anomalous_samples_are_welcome_where_a_reconstruction_is_measured_but_not_alone():
    sound = task(labels=(), outputs=Reconstruction())
    mixed, anomalous = (dataset(target_values=np.array(values)) for values in ([0, 1, -1, 1], [1, 1, 1, 1]))

    assert sound.data_mistakes(TaskData(dataset(target_values=None), mixed)) == []
    assert sound.data_mistakes(TaskData(dataset(target_values=None), dataset(target_values=None))) == []
    assert sound.data_mistakes(TaskData(dataset(target_values=None), anomalous)) == [
        "held_out: all its samples are anomalous; add others, which a reconstruction is measured on"
    ]


def test_with_several_outputs_a_metric_takes_mappings_and_a_sample_counts_where_all_are_known():
    both = task(
        labels=(),
        outputs={"state": Classes(["a", "b"]), "level": Values(["level"], tolerance=1.0, weight=3.0)},
        metrics={"names": lambda given, wanted: len(given) * 10 + len(wanted)},
    )
    given = {"state": np.array([[0.9, 0.1], [0.9, 0.1]], np.float32), "level": np.array([[1.0], [1.0]], np.float32)}
    wanted = {"state": np.array([0, 0]), "level": np.array([[1.5], [np.nan]], np.float32)}

    # One of four parts for the class, which is right, three for the level, half of a tolerance off.
    assert both.measure(given, wanted) == {"score": 0.25 + 0.75 * 0.5, "names": 22.0}


def test_what_was_measured_scores_what_could_not_be_scored():
    sound = task(labels=(), outputs=Reconstruction(false_alarm_rate=0.4))
    given = {"anomaly": np.array([[1.0], [2.0], [5.0]], np.float32)}
    wanted = {"anomaly": np.array([0, 0, 1])}

    assert sound.measure(given, wanted) == {}
    assert sound.measure(given, wanted, sound.answers.measured(given, wanted)) == {"score": 1.0}
