"""Tests of hedgerow.server.check: every mistake a user makes is named, all at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Partition, TaskData, TensorSpec
from hedgerow.decode import encode_json
from hedgerow.errors import TaskError
from hedgerow.outputs import Classes, Custom, Reconstruction
from hedgerow.server.check import check_task
from tests.output_tasks import STREAMING, TASKS, anomaly_data, class_of, dataset_of, numbers

pytestmark = pytest.mark.heavy


def test_a_good_task_is_described(tiny_task):
    report = check_task(tiny_task, clients=4)

    assert report.samples == {"train": 200, "held_out": 100, "calibration": 200}
    assert sum(report.class_counts["probabilities"]["train"]) == 200
    assert report.to_record()["class_counts"]["train"] == list(report.class_counts["probabilities"]["train"])
    assert report.partition == (50, 50, 50, 50)
    assert [(s.stage, s.name, s.shape, s.dtype) for s in report.stages] == [
        ("inputs", "point", (8, 2), "float32"),
        ("preprocessed", "argument 0", (8, 2), "float32"),
        ("model", "probabilities", (8, 3), "float32"),
        ("answers", "probabilities", (8, 3), "float32"),
    ]
    assert (report.parameters, report.parameter_bytes) == (9, 36)
    assert 0 < report.loss < 10
    assert report.warnings == ()
    assert encode_json(report.to_record())


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.forgotten = nn.Linear(2, 3), nn.Linear(2, 3)

    def forward(self, point):
        return self.used(point)


def raises(*_arguments):
    raise RuntimeError("broken")


def exits(*_arguments):
    raise SystemExit(3)


def data(labels=None, values=None):
    point = np.zeros((30, 2), np.float32) if values is None else values
    wanted = np.arange(30, dtype=np.int64) % 3 if labels is None else labels
    return lambda: TaskData(train=Dataset({"point": point}, wanted), held_out=Dataset({"point": point}, wanted))


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"data": raises}, "data() raised RuntimeError: broken"),
        ({"data": exits}, "data() raised SystemExit: 3"),
        ({"data": lambda: None}, "must return a TaskData"),
        ({"data": data(labels=np.full(30, 7, np.int64))}, "must lie in 0..2"),
        ({"data": data(values=np.zeros((30, 5), np.float32))}, "the task says float32[2]"),
        ({"data": data(values=np.full((30, 2), np.nan, np.float32))}, "NaN or infinity"),
        ({"model": raises}, "model() raised RuntimeError: broken"),
        ({"model": lambda: lambda x: x}, "must return a torch.nn.Module"),
        ({"model": lambda: nn.Linear(2, 3).double()}, "must be torch.float32"),
        (
            {"model": lambda: nn.Linear(5, 3), "data": data(values=np.full((30, 2), 0.5, np.float32))},
            "cannot be multiplied (8x2 and 5x3); it was given float32[8, 2] from 0.5 to 0.5",
        ),
        ({"model": lambda: nn.Linear(2, 4)}, "a tensor of shape (8, 3) for 8 samples of classes, found (8, 4)"),
        (
            {"model": lambda: nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=1))},
            "must return logits, found probabilities",
        ),
        ({"model": Unused}, "no gradient reaches the parameter forgotten.weight"),
        ({"model": lambda: nn.Linear(2, 3).requires_grad_(requires_grad=False)}, "no parameter that can be trained"),
        ({"preprocess": raises}, "preprocess raised RuntimeError: broken"),
        ({"preprocess": lambda point: point.numpy()}, "expected a tensor"),
        ({"preprocess": lambda point: point / 0}, "NaN or infinity"),
        ({"loss": raises}, "the loss raised RuntimeError: broken"),
        (
            {"loss": lambda logits, labels: logits.sum(1)},
            "the mean over the batch, found a tensor of shape (8,); take its mean",
        ),
        ({"loss": lambda logits, labels: 1.0}, "the mean over the batch, found float"),
        (
            {"preprocess": lambda point: torch.from_numpy(point.numpy() / 2)},
            "preprocess leaves torch for numpy, which no artifact does; write it in torch alone",
        ),
        ({"model": nn.Linear(2, 3)}, "must be a function that makes a module"),
        ({"student": raises}, "student() raised RuntimeError: broken"),
        ({"student": lambda: lambda x: x}, "student() must return a torch.nn.Module, found function"),
        ({"student": lambda: nn.Linear(5, 3)}, "the student's forward pass raised RuntimeError"),
        (
            {"student": lambda: nn.Linear(2, 7)},
            "the student must return a tensor of shape (8, 3) for 8 samples of",
        ),
        ({"loss": lambda logits, labels: (logits * 0).sum() / 0}, "the loss of the untrained model is nan"),
        ({"loss": lambda logits, labels: torch.tensor(1.0)}, "does not depend on the model's parameters"),
        ({"metrics": {"bad": raises}}, "the metric 'bad' raised RuntimeError: broken"),
        (
            {"metrics": {"rows": lambda answers, wanted: answers[:, 0]}},
            "the metric 'rows': expected one number, found an array of the shape (100,); return its mean",
        ),
    ],
)
def test_a_mistake_is_named(make_task, changes, mistake):
    with pytest.raises(TaskError) as caught:
        check_task(make_task(**changes))
    assert mistake in str(caught.value)


def test_pre_processing_in_place_or_without_gradients_stays_in_torch(make_task):
    def picky(point):
        if point.requires_grad:
            raise KeyError("no gradients here")
        return point

    for preprocess in (lambda point: point.clone().mul_(2).add_(1), lambda point: point.mul_(1), picky):
        assert check_task(make_task(preprocess=preprocess)).warnings == ()


@pytest.mark.parametrize(("rate", "is_told"), [(0.1, False), (500.0, True)])
def test_a_learning_rate_that_makes_the_first_steps_worse_is_told_and_the_model_stays_as_it_was(
    make_task, rate, is_told
):
    made = []

    def model():
        torch.manual_seed(3)
        made.append(nn.Linear(2, 3))
        return made[-1]

    report = check_task(make_task(model=model, loss="mse", local=LocalTraining(learning_rate=rate, batch_size=8)))

    told = [warning for warning in report.warnings if "the learning rate of" in warning]
    assert len(told) == is_told
    assert all(f"the loss from {report.loss:.3g} to " in warning and "of 500 may" in warning for warning in told)
    checked, fresh = made[0], model()
    assert all(torch.equal(a, b) for a, b in zip(checked.parameters(), fresh.parameters(), strict=True))


def test_the_line_of_the_users_that_raised_is_named(make_task):
    line = raises.__code__.co_firstlineno + 1
    with pytest.raises(TaskError) as caught:
        check_task(make_task(loss=raises))
    assert caught.value.mistakes == (f"the loss raised RuntimeError: broken (test_check.py, line {line})",)


def test_all_mistakes_are_reported_at_once(make_task):
    with pytest.raises(TaskError) as caught:
        check_task(make_task(data=data(labels=np.full(30, 7, np.int64)), model=Unused, metrics={"bad": raises}))
    text = " ".join(caught.value.mistakes)
    assert all(part in text for part in ("must lie in", "forgotten.weight", "forgotten.bias", "'bad' raised"))


def test_too_many_clients_are_a_mistake(tiny_task):
    with pytest.raises(TaskError, match="expected at least 300 samples for 300 clients"):
        check_task(tiny_task, clients=300)


def test_what_may_surprise_is_said(make_task):
    one_class = np.zeros(30, np.int64)
    model = lambda: nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3))  # noqa: E731
    values = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    report = check_task(make_task(model=model, data=data(labels=one_class, values=values)), clients=6)
    text = " ".join(report.warnings)
    assert "train holds no sample of right, left" in text
    assert "6 of 6 clients have fewer samples than a batch (8)" in text
    assert "prefer GroupNorm" in text


def test_checking_leaves_torch_as_it_was(tiny_task):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_task(tiny_task)
    assert torch.equal(before, torch.get_rng_state())


def test_a_task_with_state_is_described_by_its_steps():
    from hedgerow.task import load_task

    report = check_task(load_task("hedgerow.examples.zoo.streaming:task"), clients=4)

    assert report.samples == {"train": 800, "held_out": 300, "calibration": 8}
    assert sum(report.class_counts["probabilities"]["held_out"]) == 300 * 30
    assert [stage.shape for stage in report.stages] == [(16, 30, 16), (16, 16), (16, 30, 2), (16, 30, 2)]
    assert report.partition == (200, 200, 200, 200)


def test_a_model_that_keeps_its_state_to_itself_is_a_mistake():
    from hedgerow.task import load_task

    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(16, 2)

        def forward(self, frame, _state):
            return self.head(frame)

    task = replace(load_task("hedgerow.examples.zoo.streaming:task"), model=Forgetful)
    with pytest.raises(TaskError, match=r"model\(\) must return \(probabilities, new state\), found Tensor"):
        check_task(task)


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("tasks", [TASKS, STREAMING], ids=["samples", "sequences"])
def test_every_kind_of_output_is_described_with_what_is_reached_without_looking_at_the_input(name, tasks):
    task = tasks[name]
    data = task.load_data()
    report = check_task(task, clients=4)

    held_out, train = (task.rows(task.wanted(part)) for part in (data.held_out, data.train))
    _words, answer = task.answers.baseline(train)
    rows = len(next(iter(held_out.values())))
    repeated = {key: np.repeat(value[None], rows, axis=0) for key, value in answer.items()}
    outputs = (
        task.answers.measured({"anomaly": np.ones((rows, 1))}, held_out) if name == "reconstruction" else task.answers
    )
    assert report.baseline.score == pytest.approx(outputs.scores(repeated, held_out).mean())
    assert 0 <= report.metrics[task.answers.score_key] <= 1
    assert list(report.class_counts) == {"classes": ["probabilities"], "several": ["state"]}.get(name, [])
    ends = [stage for stage in report.stages if stage.stage in {"model", "answers"}]
    assert [stage.name for stage in ends] == [*task.answers, *task.answers]
    leading = 2 if task.state else 1
    assert [stage.shape[leading:] for stage in ends[len(task.answers) :]] == [
        spec.shape for spec in task.answers.tensors()
    ]
    record = report.to_record()
    assert record["baseline"] == {"answer": report.baseline.answer, task.answers.score_key: report.baseline.score}
    assert encode_json(record)
    assert (report.last_value is not None) == (task.state != {} and name == "values")
    assert record["last_value"] == report.last_value
    assert report.warnings == ()


class Sigmoid(nn.Module):
    """Ends in a sigmoid, and then brings its numbers into another order."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 3)

    def forward(self, x):
        return torch.sigmoid(self.body(x)).reshape(-1, 3, 1).squeeze(2)


def positions_softmax():
    return nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Linear(1, 3), nn.Softmax(dim=-1))


def two(state, level):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.state, self.level = state(), level()

        def forward(self, x):
            return self.state(x), self.level(x)

    return Two


@pytest.mark.parametrize(
    ("name", "model", "mistake"),
    [
        (
            "labels",
            Sigmoid,
            "must return logits, found probabilities; leave its sigmoid out, loss and artifact add one",
        ),
        ("tokens", positions_softmax, "must return logits, found probabilities; leave its softmax out, loss and art"),
        (
            "several",
            two(lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1)), lambda: nn.Linear(4, 2)),
            "the model must return logits for state, found probabilities; leave its softmax out",
        ),
        (
            "several",
            two(lambda: nn.Linear(4, 3), lambda: nn.Linear(4, 1)),
            "the model must return a tensor of shape (8, 2) for level for 8 samples of values, found (8, 1)",
        ),
        ("several", lambda: nn.Linear(4, 5), "model() must return (state, level), found Tensor"),
        ("values", lambda: nn.Linear(4, 3), "a tensor of shape (8, 2) for 8 samples of values, found (8, 3)"),
        ("values", lambda: nn.Sequential(nn.Linear(4, 2), nn.Flatten(0)), "of shape (8, 2) for 8 samples of values"),
        (
            "reconstruction",
            lambda: nn.Linear(4, 3),
            "model() must return its pre-processed input again for anomaly, of the shape [8, 4], found [8, 3]",
        ),
        ("custom", lambda: nn.Linear(4, 3), "of shape (8, 2) for 8 samples of custom, found (8, 3)"),
        ("tokens", lambda: nn.Linear(4, 3), "of shape (8, 4, 3) for 8 samples of tokens, found (8, 3)"),
    ],
)
def test_a_model_that_gives_something_else_is_told_in_one_sentence(name, model, mistake):
    with pytest.raises(TaskError) as caught:
        check_task(replace(TASKS[name], model=model))
    assert [mistake in sentence for sentence in caught.value.mistakes] == [True], caught.value.mistakes


def test_numbers_between_nought_and_one_are_no_sigmoid_by_chance():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 3)

        def forward(self, x):
            return 0.5 + 0.01 * torch.tanh(self.body(x))

    assert check_task(replace(TASKS["labels"], model=Small)).stages[2].maximum < 1


@pytest.mark.parametrize(
    ("name", "target_values", "mistake"),
    [
        ("values", np.zeros((20, 2)), "found float64[n, 2]; use .astype('float32')"),
        ("classes", np.zeros(20, np.float32), "found float32[n]; use .astype('int64')"),
        ("classes", np.full(20, 0.5), "those of classes are whole numbers, use outputs=Values(...) for others"),
        ("several", {"state": np.zeros(20, np.int64)}, "expected target values for state, level, found state"),
        (
            "reconstruction",
            np.ones(20, np.int64),
            "20 of 20 samples are anomalous, from which a reconstruction does not",
        ),
    ],
)
def test_target_values_of_another_form_are_told_and_the_model_is_examined_all_the_same(name, target_values, mistake):
    task = TASKS[name]
    train = dataset_of(numbers(20, 0), target_values)
    wrong = replace(task, data=lambda: TaskData(train, task.data().held_out), metrics={"bad": raises})

    with pytest.raises(TaskError) as caught:
        check_task(wrong)
    assert [mistake in caught.value.mistakes[0], "the metric 'bad' raised" in caught.value.mistakes[1]] == [True, True]
    assert len(caught.value.mistakes) == 2


def test_a_partition_by_classes_that_are_not_there_is_a_mistake():
    task = replace(TASKS["values"], partition=Partition("dirichlet"))

    with pytest.raises(TaskError) as caught:
        check_task(task)
    (sentence,) = caught.value.mistakes
    assert sentence == (
        "partition: expected an output with classes, by which the partition dirichlet:0.5 cuts, found none; use iid, "
        "quantity:ALPHA or column:NAME"
    )


@pytest.mark.parametrize(
    ("task", "warning"),
    [
        (
            replace(TASKS["reconstruction"], outputs=Reconstruction(0.002)),
            "held_out holds 120 normal samples, of which a false-alarm rate of 0.002 flags none; of 500 it flags one",
        ),
        (
            replace(TASKS["reconstruction"], data=lambda: TaskData(anomaly_data().train, anomaly_data().train)),
            "training shows no score, for no held-out sample has all its target values",
        ),
        (
            replace(TASKS["custom"], outputs=Custom((2,), loss=TASKS["custom"].answers["output"].loss)),
            "training shows no score, for output has no score function",
        ),
        (
            replace(
                TASKS["several"],
                outputs={**TASKS["several"].answers, "state": Classes(["a", "b", "c", "d"])},
                model=two(lambda: nn.Linear(4, 4), lambda: nn.Linear(4, 2)),
            ),
            "held_out, state: holds no sample of d",
        ),
    ],
)
def test_what_may_surprise_in_an_output_is_said(task, warning):
    report = check_task(task, clients=4)

    assert warning in report.warnings
    assert (report.baseline is None) == ("no score" in warning)


def test_a_score_that_cannot_bear_zeros_is_told_before_any_training():
    def cosine(given, wanted):
        length = given.square().sum(dim=-1).sqrt()
        return (1 + (given[:, 0] * wanted.cos() + given[:, 1] * wanted.sin()) / length) / 2

    custom = TASKS["custom"].answers["output"]
    with pytest.raises(TaskError) as caught:
        check_task(replace(TASKS["custom"], outputs=Custom((2,), loss=custom.loss, score=cosine)))
    assert caught.value.mistakes == ("the score of the baseline: expected scores in [0, 1], found nan to nan",)


def test_of_many_held_out_samples_some_are_measured_which_are_spread_evenly():
    x = numbers(5111, 5)
    wanted = np.sort(class_of(x))
    task = TASKS["classes"]
    report = check_task(replace(task, data=lambda: TaskData(task.data().train, dataset_of(x, wanted))))

    most = np.bincount(task.data().train.target_values).argmax()
    assert report.baseline.score == (wanted[::10] == most).mean()


def gaps(share=0.3):
    values = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    values[10:, 0][np.random.default_rng(1).random(20) < share] = np.nan
    return data(values=values)


POINT = (TensorSpec("point", (2,), missing=True),)


def zero_filled(point):
    return torch.where(torch.isnan(point), torch.zeros_like(point), point)


def test_missing_values_that_preprocess_takes_care_of_are_no_mistake(make_task):
    report = check_task(make_task(inputs=POINT, data=gaps(), preprocess=zero_filled))

    stages = {stage.stage: stage for stage in report.stages}
    assert np.isfinite([stages["inputs"].minimum, stages["inputs"].maximum]).all()
    encode_json(report.to_record())
    assert not any("missing" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"preprocess": lambda point: point}, "preprocess gives NaN or infinity where point is missing"),
        ({"preprocess": torch.nan_to_num}, None),
        ({"preprocess": lambda point: zero_filled(point) / point.isnan().logical_not()}, "gives NaN or infinity"),
        ({"inputs": (TensorSpec("point", (2,)),)}, "point holds NaN or infinity; where values may be missing say"),
        ({"loss": lambda logits, labels: logits.sum() * torch.nan}, "the loss of the untrained model is nan"),
    ],
)
def test_a_nan_on_its_way_to_the_loss_is_named(make_task, changes, mistake):
    task = make_task(**{"inputs": POINT, "data": gaps(), "preprocess": zero_filled, **changes})
    if mistake is None:
        check_task(task)
        return
    with pytest.raises(TaskError) as caught:
        check_task(task)
    assert mistake in str(caught.value)


def test_values_that_may_be_missing_and_never_are_surprise(make_task):
    report = check_task(make_task(inputs=POINT, data=gaps(0.0), preprocess=zero_filled))

    assert "point may be missing, but is nowhere in train: the model learns nothing of it" in report.warnings
