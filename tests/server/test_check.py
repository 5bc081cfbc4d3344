"""Tests of hedgerow.server.check: every mistake a user makes is named, all at once."""

import numpy as np
import pytest
import torch
from torch import nn

from hedgerow import Dataset, TaskData, TensorSpec
from hedgerow.decode import encode_json
from hedgerow.errors import TaskError
from hedgerow.server.check import check_task

pytestmark = pytest.mark.heavy


def test_a_good_task_is_described(tiny_task):
    report = check_task(tiny_task, clients=4)

    assert report.samples == {"train": 200, "held_out": 100, "calibration": 200}
    assert sum(report.class_counts["train"]) == 200
    assert report.partition == (50, 50, 50, 50)
    assert [(s.stage, s.name, s.shape, s.dtype) for s in report.stages] == [
        ("inputs", "point", (8, 2), "float32"),
        ("preprocessed", "argument 0", (8, 2), "float32"),
        ("logits", "logits", (8, 3), "float32"),
        ("probabilities", "probabilities", (8, 3), "float32"),
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
        ({"model": lambda: nn.Linear(5, 3)}, "the model's forward pass raised RuntimeError"),
        ({"model": lambda: nn.Linear(2, 4)}, "logits of shape (8, 3)"),
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
        ({"loss": lambda logits, labels: logits}, "the loss must return one number"),
        ({"loss": lambda logits, labels: (logits * 0).sum() / 0}, "the loss of the untrained model is nan"),
        ({"loss": lambda logits, labels: torch.tensor(1.0)}, "does not depend on the model's parameters"),
        ({"metrics": {"bad": raises}}, "the metric 'bad' raised RuntimeError: broken"),
    ],
)
def test_a_mistake_is_named(make_task, changes, mistake):
    with pytest.raises(TaskError) as caught:
        check_task(make_task(**changes))
    assert mistake in str(caught.value)


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
    assert sum(report.class_counts["held_out"]) == 300 * 30
    assert [stage.shape for stage in report.stages] == [(16, 30, 16), (16, 16), (16, 30, 2), (16, 30, 2)]
    assert report.partition == (200, 200, 200, 200)


def test_a_model_that_keeps_its_state_to_itself_is_a_mistake():
    from dataclasses import replace

    from hedgerow.task import load_task

    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(16, 2)

        def forward(self, frame, _state):
            return self.head(frame)

    task = replace(load_task("hedgerow.examples.zoo.streaming:task"), model=Forgetful)
    with pytest.raises(TaskError, match=r"model\(\) must return \(logits, new state\), found Tensor"):
        check_task(task)


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
