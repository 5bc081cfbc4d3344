"""Tests of hedgerow.server.strategies."""

import shutil

import numpy as np
import pytest

from hedgerow.errors import UnknownNameError
from hedgerow.server.errors import LocalTermError, StrategyOptionError
from hedgerow.server.flower import array_record
from hedgerow.server.grids.fleet import FleetGrid
from hedgerow.server.grids.transport import DeviceUpdate, SimulatedTransport
from hedgerow.server.privacy import PRIVACY
from hedgerow.server.strategies import (
    STRATEGIES,
    build_strategy,
    check_strategy,
    mean_suffices,
    restore_state,
    strategy_state,
)
from hedgerow.server.training import train_task

pytestmark = pytest.mark.heavy


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean 'fedavg'"):
        build_strategy("fedavgg", clients=8, learning_rate=0.1)


def test_the_default_is_in_the_table_and_all_summaries_are_one_line():
    assert "fedavg" in STRATEGIES
    assert all(spec.summary and "\n" not in spec.summary for spec in STRATEGIES.values())


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_learns_and_resumes_to_the_same_weights(name, tiny_task, tmp_path):
    whole = train_task(tiny_task, tmp_path / "whole", strategy=name, rounds=4)
    train_task(tiny_task, tmp_path / "parts", strategy=name, rounds=2)
    parts = train_task(tiny_task, tmp_path / "parts", strategy=name, rounds=4)

    assert whole.history[-1].loss < whole.history[0].loss
    assert all(value.dtype == np.float32 for value in whole.checkpoint.weights.values())
    for key, value in whole.checkpoint.weights.items():
        np.testing.assert_array_equal(value, parts.checkpoint.weights[key])


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_runs_under_flowers_own_loop_over_a_fleet(name):
    def step(change):
        return lambda work, device: DeviceUpdate(
            device=device,
            state="done",
            examples=2,
            metrics={"loss": 0.5},
            weights={key: value + np.float32(change) for key, value in work.weights.items()},
        )

    if name in {"fedprox", "scaffold"}:
        pytest.skip("train graphs take plain SGD steps; FleetGrid refuses it (test_fleet)")
    transport = SimulatedTransport({f"device-{i}": step(0.1 * i) for i in range(8)})
    strategy = build_strategy(name, clients=8, learning_rate=0.1)
    result = strategy.start(FleetGrid(transport), array_record({"w": np.zeros(3, np.float32)}), num_rounds=2)
    assert result.arrays["w"].numpy().shape == (3,)
    assert np.isfinite(result.arrays["w"].numpy()).all()


def test_state_of_a_new_strategy_is_empty_and_restoring_nothing_changes_nothing():
    strategy = build_strategy("fedavgm", clients=2, learning_rate=0.1)
    assert strategy_state("fedavgm", strategy) == {}
    restore_state("fedavgm", strategy, {})
    assert strategy.momentum_vector is None


def test_state_goes_into_named_arrays_and_back():
    strategy = build_strategy("fedavgm", clients=2, learning_rate=0.1)
    strategy.current_arrays = array_record({"a": np.ones(2), "b": np.zeros(1)})
    strategy.momentum_vector = [np.full(2, 3.0), np.full(1, 4.0)]
    saved = strategy_state("fedavgm", strategy)
    other = build_strategy("fedavgm", clients=2, learning_rate=0.1)
    restore_state("fedavgm", other, saved)

    assert sorted(saved) == [
        "current_arrays/a", "current_arrays/b", "momentum_vector/#000000", "momentum_vector/#000001",
    ]  # fmt: skip
    assert list(other.current_arrays) == ["a", "b"]
    assert [array.tolist() for array in other.momentum_vector] == [[3, 3], [4]]


PRIVATE = [f"fedavg+{kind}:clip=0.5,noise=0.02" for kind in sorted(PRIVACY)]


@pytest.mark.parametrize("name", [*PRIVATE, "fedadam+server-adaptive:clip=0.2,noise=0.02,quantile=0.7,rate=0.1"])
def test_every_privacy_wrapper_learns_and_resumes_to_the_same_weights(name, tiny_task, tmp_path):
    whole = train_task(tiny_task, tmp_path / "whole", strategy=name, rounds=4)
    (tmp_path / "parts").mkdir()
    shutil.copy(tmp_path / "whole" / "noise.key", tmp_path / "parts")
    train_task(tiny_task, tmp_path / "parts", strategy=name, rounds=2)
    parts = train_task(tiny_task, tmp_path / "parts", strategy=name, rounds=4)

    assert whole.history[-1].loss < whole.history[0].loss
    assert whole.checkpoint.strategy == name
    for key, value in whole.checkpoint.weights.items():
        np.testing.assert_array_equal(value, parts.checkpoint.weights[key])
    assert parts.privacy.to_record() == whole.privacy.to_record() == whole.checkpoint.privacy
    assert parts.privacy.rounds == 4


def test_the_adapted_norm_is_saved_with_the_inner_strategys_state():
    name = "fedavgm+client-adaptive:clip=0.3,noise=0"
    strategy = build_strategy(name, clients=20, learning_rate=0.1)
    strategy.clipping_norm = 0.7
    strategy.strategy.momentum_vector = [np.ones(2)]
    saved = strategy_state(name, strategy)
    other = build_strategy(name, clients=20, learning_rate=0.1)
    assert other.clipping_norm == 0.3
    restore_state(name, other, saved)
    assert other.clipping_norm == 0.7
    assert other.strategy.momentum_vector[0].tolist() == [1, 1]


def test_the_mean_suffices_for_strategies_that_average_and_wrap_nothing():
    assert {name for name in STRATEGIES if mean_suffices(name)} == {
        "fedavg", "fedavgm", "fedprox", "fedadam", "fedyogi", "fedadagrad",
    }  # fmt: skip
    assert not any(mean_suffices(name) for name in PRIVATE)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("fedav+client-fixed", UnknownNameError, "did you mean 'fedavg'"),
        ("fedavg+client-fixd", UnknownNameError, "did you mean 'client-fixed'"),
        ("fedavg+client-fixed:clop=1", StrategyOptionError, "an option 'clop'"),
        ("fedavg+client-fixed:quantile=0.5", StrategyOptionError, "an option 'quantile'"),
        ("fedavg+client-fixed:clip=much", StrategyOptionError, "no number"),
        ("fedavg+", UnknownNameError, "privacy wrapper"),
        ("krum+server-fixed", StrategyOptionError, "krum, in which one client can count for more than its share"),
        ("fedmedian+server-fixed", StrategyOptionError, "these average: fedavg, fedavgm, fedprox"),
        ("scaffold+client-fixed:noise=1", StrategyOptionError, "scaffold"),
        ("qfedavg+client-adaptive", StrategyOptionError, "qfedavg"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_loaded(name, error, words):
    with pytest.raises(error, match=words):
        check_strategy(name)


def test_a_norm_of_zero_is_refused_in_one_sentence():
    with pytest.raises(StrategyOptionError, match="clip=0, which is not above 0"):
        build_strategy("fedavg+server-fixed:clip=0", clients=8, learning_rate=0.1)


def test_devices_refuse_to_clip_rather_than_leave_it_out():
    transport = SimulatedTransport({"a": lambda work, device: None})
    strategy = build_strategy("fedavg+client-fixed:clip=1", clients=1, learning_rate=0.1)
    with pytest.raises(LocalTermError, match="clipping_norm 1"):
        strategy.start(FleetGrid(transport), array_record({"w": np.zeros(3, np.float32)}), num_rounds=1)
