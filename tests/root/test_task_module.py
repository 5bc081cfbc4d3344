"""A task as torch modules: what is trained and what is served compute the same, and other weights are refused."""

import numpy as np
import pytest

from hedgerow.errors import TaskError
from hedgerow.schema import TensorSpec
from hedgerow.state import State
from hedgerow.task import Dataset, Task, TaskData
from hedgerow.weights import decode_arrays, encode_arrays
from tests.output_tasks import STREAMING, TASKS

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


def answers(task, model, inputs=INPUTS):
    """Return what the only output answers."""
    from hedgerow.task_module import predict

    (found,) = predict(task, model, inputs).values()
    return found


def test_served_probabilities_are_the_softmax_of_the_logits(torch):
    from hedgerow.task_module import LogitsModule

    task = make_task()
    model = make_model().eval()
    with torch.no_grad():
        logits = LogitsModule(task, model)(torch.from_numpy(INPUTS["x"]))
        by_hand = model(torch.from_numpy(INPUTS["x"]) / 2)

    assert torch.equal(logits, by_hand)
    np.testing.assert_allclose(answers(task, model), torch.softmax(logits, dim=1).numpy(), rtol=1e-6)
    np.testing.assert_array_equal(answers(make_task(postprocess="none"), model), logits.numpy())


def test_inputs_that_cannot_be_written_to_are_predicted_too():
    frozen = INPUTS["x"].copy()
    frozen.setflags(write=False)
    model = make_model().eval()

    np.testing.assert_array_equal(
        answers(make_task(), model, {"x": frozen[::-1]}), answers(make_task(), model, {"x": INPUTS["x"][::-1].copy()})
    )


def test_weights_with_buffers_survive_the_journey(torch):
    from hedgerow.task_module import load_weights, model_weights

    task = make_task()
    model = make_model()
    model(torch.from_numpy(INPUTS["x"]))  # moves the statistics of the batch norm
    weights = decode_arrays(encode_arrays(model_weights(model)), "weights", limit_bytes=10**6)

    loaded = load_weights(task, weights)

    assert not loaded.training
    assert weights["1.num_batches_tracked"].shape == ()
    np.testing.assert_array_equal(answers(task, loaded), answers(task, model.eval()))


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

    np.testing.assert_array_equal(predict(task, model, {"x": STEPS})["probabilities"], found.answers["probabilities"])
    np.testing.assert_array_equal(found.answers["probabilities"][1:2], alone.answers["probabilities"])
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
    from hedgerow.task_losses import loss_function
    from hedgerow.task_module import LogitsModule

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
    with pytest.raises(TaskError, match=r"model\(\) must return \(probabilities, new total, new count\).*" + said):
        LogitsModule(task, Wrong())(torch.from_numpy(STEPS))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_what_artifacts_answer_is_what_the_model_gives_with_the_outputs_activation(torch, name):
    from hedgerow.task_module import LogitsModule, parts_of, predict

    task = TASKS[name]
    model = task.model().eval()
    x = task.data().held_out.inputs["x"][:7]
    with torch.no_grad():
        raw = model(torch.from_numpy(x) / 2)
        given = parts_of(LogitsModule(task, model)(torch.from_numpy(x)))
    by_hand = {
        "softmax": lambda part: torch.softmax(part, dim=-1),
        "sigmoid": torch.sigmoid,
        "none": lambda part: part,
        "mean_square": lambda part: ((part - torch.from_numpy(x) / 2) ** 2).mean(dim=1, keepdim=True),
    }

    found = predict(task, model, {"x": x})

    assert list(found) == list(task.answers)
    for (output_name, output), part in zip(task.answers.items(), parts_of(raw), strict=True):
        expected = by_hand[output.activation](part).numpy()
        np.testing.assert_allclose(found[output_name], expected, rtol=1e-5, atol=1e-7)
        assert found[output_name].shape == (7, *output.tensor(output_name).shape)
    assert len(given) == len(task.answers)


@pytest.mark.parametrize("name", sorted(STREAMING))
def test_a_sequence_is_answered_as_its_steps_one_by_one(torch, name):
    from hedgerow.task_module import ServingModule, predict

    task = STREAMING[name]
    model = task.model().eval()
    x = task.data().held_out.inputs["x"][:1]
    serving, state = ServingModule(task, model).eval(), torch.zeros(1, 4)
    rows = []
    with torch.no_grad():
        for step in range(x.shape[1]):
            *given, state = serving(torch.from_numpy(x[:, step]), state)
            rows.append([part.numpy() for part in given])

    found = predict(task, model, {"x": x})

    for place, output_name in enumerate(task.answers):
        expected = np.stack([row[place] for row in rows], axis=1)
        np.testing.assert_allclose(found[output_name], expected, rtol=1e-5, atol=1e-7)


def test_target_values_are_one_tensor_or_one_for_each_output_in_their_order(torch):
    from hedgerow.task_module import as_given, parts_of, wanted_tensors

    data = TASKS["several"].data().train.take(range(5))
    swapped = Dataset(data.inputs, dict(reversed(data.target_values.items())))
    state, level = wanted_tensors(TASKS["several"], swapped)

    assert (state.dtype, level.dtype) == (torch.int64, torch.float32)
    assert np.array_equal(level.numpy(), data.target_values["level"])
    assert wanted_tensors(TASKS["values"], TASKS["values"].data().train).shape == (240, 2)
    assert wanted_tensors(TASKS["reconstruction"], TASKS["reconstruction"].data().train).tolist() == [-1] * 240
    assert parts_of(as_given([state])) == (state,)
    assert parts_of(as_given([state, level])) == (state, level)


@pytest.mark.parametrize(
    ("name", "model", "sentence"),
    [
        ("values", lambda x: (x, x), "model() must return one tensor for values, found a tuple of 2"),
        ("values", lambda x: [x], "model() must return one tensor for values, found list"),
        ("several", lambda x: x, "model() must return (state, level), found Tensor"),
        ("several", lambda x: (x, x, x), "model() must return (state, level), found a tuple of 3"),
        (
            "reconstruction",
            lambda x: x[:, :3],
            "model() must return its pre-processed input again for anomaly, of the shape [5, 4], found [5, 3]",
        ),
        ("reconstruction", lambda x: x[:, :1], "of the shape [5, 4], found [5, 1]"),  # which would broadcast
    ],
)
def test_a_model_that_gives_another_number_of_tensors_or_another_shape_is_refused(torch, name, model, sentence):
    from hedgerow.task_module import LogitsModule

    class Wrong(torch.nn.Module):
        def forward(self, x):
            return model(x)

    with pytest.raises(TaskError) as caught:
        LogitsModule(TASKS[name], Wrong())(torch.zeros(5, 4))
    assert sentence in caught.value.mistakes[0]
