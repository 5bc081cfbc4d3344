"""A task as torch modules: what is trained and what is served compute the same, and other weights are refused."""

import numpy as np
import pytest

from hedgerow.errors import TaskError
from hedgerow.schema import TensorSpec
from hedgerow.state import State
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


STEPS = np.random.default_rng(1).normal(size=(3, 4, 2)).astype(np.float32)


def make_adder():
    """A model whose logits are the sum of all that it saw, so that every answer is known by heart."""
    import torch
    from torch import nn

    class Adder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x, total, count):
            total = total + self.weight * x.unsqueeze(0)
            return torch.cat([total[0], count], dim=1), total, count + 1

    return Adder()


def adding_task(**changes) -> Task:
    state = {"total": State((1, 1, 2), batch_axis=1), "count": State((1, 1), batch_axis=0)}
    return make_task(**{"model": make_adder, "state": state, "postprocess": "none", **changes})


def test_logits_of_sequences_are_those_of_steps_with_the_state_carried(torch):
    from hedgerow.task_module import LogitsModule

    task = adding_task()
    logits = LogitsModule(task, task.model())(torch.from_numpy(STEPS)).detach().numpy()

    np.testing.assert_allclose(logits[..., :2], np.cumsum(STEPS / 2, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(logits[..., 2], np.tile(np.arange(4.0), (3, 1)))


def test_a_sequence_knows_nothing_of_another_and_the_state_of_each_step_is_told():
    from hedgerow.task_module import predict, predict_sequences

    task = adding_task()
    model = task.model()
    found = predict_sequences(task, model, {"x": STEPS})
    alone = predict_sequences(task, model, {"x": STEPS[1:2]})

    np.testing.assert_array_equal(predict(task, model, {"x": STEPS}), found.probabilities)
    np.testing.assert_array_equal(found.probabilities[1:2], alone.probabilities)
    assert found.state["total"].shape == (3, 4, 1, 1, 2)
    assert found.state["count"].shape == (3, 4, 1, 1)
    assert not found.state["total"][:, 0].any()
    np.testing.assert_allclose(found.state["total"][:, 1:, 0, 0], np.cumsum(STEPS / 2, axis=1)[:, :-1], rtol=1e-6)
    assert found.state["count"][2, :, 0, 0].tolist() == [0, 1, 2, 3]


def test_what_is_served_is_one_step_with_the_new_state(torch):
    from hedgerow.task_module import ServingModule

    task = adding_task()
    state = torch.full((1, 1, 2), 3.0), torch.full((1, 1), 5.0)
    probabilities, total, count = ServingModule(task, task.model()).eval()(torch.tensor([[2.0, 4.0]]), *state)

    assert probabilities.tolist() == [[4.0, 5.0, 5.0]]
    assert (total.tolist(), count.tolist()) == ([[[4.0, 5.0]]], [[6.0]])


def test_the_loss_of_sequences_is_the_mean_over_steps_and_its_gradient_goes_back_through_time(torch):
    from hedgerow.task_module import LogitsModule, loss_function

    task = adding_task()
    model = task.model()
    labels = torch.tensor([[0, 1, 0, 1]] * 3)
    logits = LogitsModule(task, model)(torch.from_numpy(STEPS))
    loss = loss_function(task)(logits, labels)
    loss.backward()

    # By hand: with the weight w, the first two logits of a step are w times the sum of all that came until then.
    sums = np.cumsum(STEPS.astype(np.float64) / 2, axis=1)
    values = np.concatenate([sums, np.tile(np.arange(4.0), (3, 1))[..., None]], axis=2)
    shares = np.exp(values) / np.exp(values).sum(axis=2, keepdims=True)
    picked = np.take_along_axis(shares, labels.numpy()[..., None], axis=2)
    gradient = ((shares - np.eye(3)[labels.numpy()])[..., :2] * sums).sum(axis=2).mean()
    assert loss.item() == pytest.approx(-np.log(picked).mean(), rel=1e-5)
    assert model.weight.grad.item() == pytest.approx(gradient, rel=1e-4)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda logits, total, count: logits, "found Tensor"),
        (lambda logits, total, count: (logits, total), "found a tuple of 2"),
        (lambda logits, total, count: (logits, total[0], count), r"float32\[1, 3, 2\] for total, found .*\[3, 2\]"),
        (lambda logits, total, count: (logits, total, count.double()), r"float32\[3, 1\] for count, found .*float64"),
        (lambda logits, total, count: (logits, total, 0), "for count, found"),
    ],
)
def test_a_model_that_does_not_give_its_state_back_is_refused(torch, returned, said):
    from hedgerow.task_module import LogitsModule

    class Wrong(torch.nn.Module):
        def forward(self, x, total, count):
            return returned(x, total, count)

    task = adding_task(preprocess=None)
    with pytest.raises(TaskError, match=r"model\(\) must return \(logits, new total, new count\).*" + said):
        LogitsModule(task, Wrong())(torch.from_numpy(STEPS))
