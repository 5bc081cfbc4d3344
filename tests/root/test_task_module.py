"""A task as torch modules: what is trained and what is served compute the same, and other weights are refused."""

import numpy as np
import pytest

from hedgerow.errors import TaskError
from hedgerow.schema import TensorSpec
from hedgerow.task import Dataset, Task, TaskData
from hedgerow.weights import decode_arrays, encode_arrays

pytestmark = pytest.mark.heavy


@pytest.fixture(name="torch")
def imported_torch():
    import torch

    return torch


def make_model():
    from torch import nn

    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def make_task(**changes) -> Task:
    parts = {
        "name": "toy",
        "inputs": [TensorSpec("x", (2,))],
        "labels": ("a", "b", "c"),
        "model": make_model,
        "data": lambda: TaskData(Dataset({}, np.zeros(0, np.int64)), Dataset({}, np.zeros(0, np.int64))),
        "preprocess": lambda x: x / 2,
    }
    return Task(**{**parts, **changes})


INPUTS = {"x": np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)}


def test_served_probabilities_are_the_softmax_of_the_logits(torch):
    from hedgerow.task_module import LogitsModule, predict

    task = make_task()
    model = make_model().eval()
    with torch.no_grad():
        logits = LogitsModule(task, model)(torch.from_numpy(INPUTS["x"]))
        by_hand = model(torch.from_numpy(INPUTS["x"]) / 2)

    assert torch.equal(logits, by_hand)
    np.testing.assert_allclose(predict(task, model, INPUTS), torch.softmax(logits, dim=1).numpy(), rtol=1e-6)
    np.testing.assert_array_equal(predict(make_task(postprocess="none"), model, INPUTS), logits.numpy())


def test_inputs_that_cannot_be_written_to_are_predicted_too():
    from hedgerow.task_module import predict

    frozen = INPUTS["x"].copy()
    frozen.setflags(write=False)
    model = make_model().eval()

    np.testing.assert_array_equal(
        predict(make_task(), model, {"x": frozen[::-1]}), predict(make_task(), model, {"x": INPUTS["x"][::-1].copy()})
    )


def test_weights_with_buffers_survive_the_journey(torch):
    from hedgerow.task_module import load_weights, model_weights, predict

    task = make_task()
    model = make_model()
    model(torch.from_numpy(INPUTS["x"]))  # moves the statistics of the batch norm
    weights = decode_arrays(encode_arrays(model_weights(model)), "weights", limit_bytes=10**6)

    loaded = load_weights(task, weights)

    assert not loaded.training
    assert weights["1.num_batches_tracked"].shape == ()
    np.testing.assert_array_equal(predict(task, loaded, INPUTS), predict(task, model.eval(), INPUTS))


def test_extracted_weights_do_not_change_with_the_model(torch):
    from hedgerow.task_module import model_weights

    model = make_model()
    weights = model_weights(model)
    before = weights["0.weight"].copy()
    with torch.no_grad():
        model[0].weight.add_(1)

    np.testing.assert_array_equal(weights["0.weight"], before)


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop("0.bias"),
        lambda weights: weights.update(extra=np.zeros(1)),
        lambda weights: weights.update({"0.weight": np.zeros((5, 2), np.float32)}),
    ],
)
def test_weights_of_another_model_are_refused(change):
    from hedgerow.errors import CheckpointMismatchError
    from hedgerow.task_module import load_weights, model_weights

    weights = model_weights(make_model())
    change(weights)

    with pytest.raises(CheckpointMismatchError, match="expected the weights of the model of task 'toy'"):
        load_weights(make_task(), weights)


def test_a_model_that_cannot_be_made_is_the_tasks_mistake():
    from hedgerow.task_module import load_weights

    with pytest.raises(TaskError, match=r"model\(\) raised ZeroDivisionError"):
        load_weights(make_task(model=lambda: 1 / 0), {})


def test_the_loss_is_cross_entropy_or_the_tasks_own(torch):
    from hedgerow.task_module import loss_function

    def own(logits, labels):
        return logits.sum() + labels.sum()

    logits, labels = torch.zeros(2, 3), torch.tensor([0, 1])
    assert loss_function(make_task())(logits, labels).item() == pytest.approx(np.log(3))
    assert loss_function(make_task(loss=own)) is own
