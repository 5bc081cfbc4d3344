"""Local training, against gradient descent written down once more."""

from dataclasses import replace

import numpy as np
import pytest

from hedgerow.batches import batch_indices
from hedgerow.client.errors import TrainingError
from hedgerow.client.runtimes.linear import LinearRuntime
from hedgerow.client.trainer import train
from hedgerow.manifest.content import Tensor
from hedgerow.manifest.train_graph import Extra

RNG = np.random.default_rng(3)
X = RNG.normal(size=(10, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


class InMemory:
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def read(self, indices):
        return {"x": X[indices]}, {"probabilities": Y[indices]}


@pytest.fixture
def graph(release):
    return release(1).manifest.train_graphs[0]


@pytest.fixture
def step(graph, tmp_path):
    (tmp_path / "g").write_bytes(b"")
    return LinearRuntime().load_train_graph(tmp_path / "g", graph)


def start() -> dict[str, np.ndarray]:
    return {
        "weight": np.zeros((4, 3), np.float32),
        "bias": np.zeros(3, np.float32),
        "mean": np.asarray([7.0], np.float32),
        "batches": np.asarray(3, np.int64),
    }


def run(step, graph, samples, weights, *, seed=0, **changes):
    settings = {"epochs": 3, "learning_rate": 0.2, "rng": np.random.default_rng(seed), **changes}
    return train(step, graph, samples, weights, **settings)


def test_training_is_gradient_descent_over_the_agreed_batches(step, graph):
    result = run(step, graph, InMemory(10), start())
    weight, bias, rng = np.zeros((4, 3)), np.zeros(3), np.random.default_rng(0)
    for _ in range(3):
        for chosen in batch_indices(10, 4, rng):
            powers = np.exp(X[chosen] @ weight + bias)
            gradient = (powers / powers.sum(axis=1, keepdims=True) - np.eye(3)[Y[chosen]]) / 4
            weight, bias = weight - 0.2 * X[chosen].T @ gradient, bias - 0.2 * gradient.sum(axis=0)
    np.testing.assert_allclose(result.weights["weight"], weight, atol=1e-5)
    np.testing.assert_allclose(result.weights["bias"], bias, atol=1e-5)
    assert result.examples == 10
    assert 0 < result.loss < np.log(3)


def test_buffers_pass_through_and_inputs_stay(step, graph):
    weights = start()
    result = run(step, graph, InMemory(10), weights)
    assert result.weights["mean"].tolist() == [7]
    assert result.weights["batches"] == 3
    assert not weights["weight"].any()
    assert {name: value.dtype for name, value in result.weights.items()} == {n: v.dtype for n, v in weights.items()}


def test_the_same_seed_gives_the_same_weights(step, graph):
    first, second = (run(step, graph, InMemory(10), start(), seed=5) for _ in range(2))
    assert first.weights["weight"].tobytes() == second.weights["weight"].tobytes()
    assert (
        run(step, graph, InMemory(10), start(), seed=6).weights["weight"].tobytes() != first.weights["weight"].tobytes()
    )


def test_fewer_samples_than_a_batch_are_repeated_in_it(step, graph):
    assert run(step, graph, InMemory(1), start(), epochs=1).examples == 1


def test_no_samples_other_weights_and_divergence_are_refused(step, graph):
    with pytest.raises(TrainingError, match="labelled samples"):
        run(step, graph, InMemory(0), start())
    with pytest.raises(TrainingError, match="weight bias"):
        run(step, graph, InMemory(10), {"weight": np.zeros((4, 3), np.float32)})
    with pytest.raises(TrainingError, match="shape"):
        run(step, graph, InMemory(10), {**start(), "bias": np.zeros(4, np.float32)})
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="learning rate"):
        run(step, graph, InMemory(10), start(), learning_rate=np.inf)


def test_training_can_be_ended_between_steps(step, graph):
    calls = []

    def proceed() -> None:
        calls.append(1)
        if len(calls) == 4:
            raise TrainingError("enough")

    with pytest.raises(TrainingError, match="enough"):
        run(step, graph, InMemory(10), start(), proceed=proceed)
    assert len(calls) == 4


def extra(kind, name, shape=(2,), **facts) -> Extra:
    return Extra(kind=kind, tensor=Tensor(name, name, shape, "float32"), **facts)


def recording(step):
    """Wrap a plain step so that it counts in the state ``steps``, and keep what each step was given."""
    given = []

    def stepped(inputs, labels, rate, parameters):
        given.append({name: value.copy() for name, value in parameters.items()})
        own = {name: parameters[name] for name in ("weight", "bias")}
        loss, after = step(inputs, labels, rate, own)
        return loss, {**after, "steps": parameters["steps"] + 1}

    return stepped, given


def test_extra_inputs_reach_each_step_and_only_parameters_leave(step, graph):
    extras = (
        extra("state", "steps", (1,), updated="steps_after"),
        extra("proximal_mu", "proximal_mu", (1,)),
        extra("anchor", "anchor:bias", (3,), parameter="bias"),
        extra("control", "control:bias", (3,), parameter="bias"),
        extra("mask", "mask:0", (50, 10), keep=0.75),
    )
    stepped, given = recording(step)
    weights = {**start(), "bias": np.asarray([1, 2, 3], np.float32)}
    control = {"bias": np.asarray([0.1, 0.2, 0.3], np.float32)}
    result = run(stepped, replace(graph, extras=extras), InMemory(10), weights, proximal_mu=0.5, control=control)
    assert [values["steps"].tolist() for values in given] == [[count] for count in range(9)]
    for values in given:
        assert values["proximal_mu"].tolist() == [0.5]
        assert values["anchor:bias"].tolist() == [1, 2, 3]
        np.testing.assert_array_equal(values["control:bias"], control["bias"])
        assert set(np.unique(values["mask:0"])) == {0, 1}
        assert values["mask:0"].mean() == pytest.approx(0.75, abs=0.1)
    assert not np.array_equal(given[0]["mask:0"], given[1]["mask:0"])
    assert set(result.weights) == set(weights)
    plain = run(step, graph, InMemory(10), weights)
    assert result.weights["bias"].tobytes() == plain.weights["bias"].tobytes()


def test_terms_that_the_graph_lacks_are_refused(step, graph):
    with pytest.raises(TrainingError, match="proximal_mu"):
        run(step, graph, InMemory(10), start(), proximal_mu=0.1)
    with pytest.raises(TrainingError, match="control"):
        run(step, graph, InMemory(10), start(), control={"bias": np.zeros(3, np.float32)})
    controlled = replace(graph, extras=(extra("control", "control:bias", (3,), parameter="bias"),))
    with pytest.raises(TrainingError, match="shape"):
        run(step, controlled, InMemory(10), start(), control={"bias": np.zeros(4, np.float32)})


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        ((Tensor("probabilities", "y", (4, 3), "float32"),), r"float32\[4, 3\] for probabilities .* int64\[4\]"),
        ((Tensor("probabilities", "y", (4,), "float32"),), r"float32\[4\] for probabilities .* int64\[4\]"),
        ((Tensor("level", "y", (4,), "int64"),), r"int64\[4\] for level where the samples have none"),
    ],
)
def test_a_graph_that_wants_other_target_values_than_the_outputs_have_is_refused(step, graph, targets, found):
    with pytest.raises(TrainingError, match=found):
        run(step, replace(graph, targets=targets), InMemory(10), start())
