"""A simulation learns, says what it did, and ends with the same weights however often it was stopped."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from hedgerow.checkpoint import load_checkpoint
from hedgerow.errors import PartitionError, UnknownNameError
from hedgerow.partition import parse_partition
from hedgerow.server.errors import NoUpdateError, RoundFailedError, RunMismatchError
from hedgerow.server.privacy import PRIVACY
from hedgerow.server.simulation.device_model import DeviceModel
from hedgerow.server.simulation.errors import NoGpuError, SimulationError
from hedgerow.server.simulation.plan import SimulationPlan
from hedgerow.server.simulation.simulate import Simulator, resolve_device, simulate_task
from hedgerow.server.strategies import STRATEGIES
from hedgerow.server.training import train_task

pytestmark = pytest.mark.heavy

DEVICES = DeviceModel(diurnal=True, drop_out=0.2, deadline_s=2.0, wait_for=4)


class StopError(Exception):
    pass


def same(a, b) -> bool:
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def simulator():
    """Return one simulator for many runs, as a sweep has it."""
    from hedgerow.task import load_attribute
    from tests.test_layout import ROOT

    task = load_attribute(f"{ROOT}/tests/server/tiny_task.py:task")
    with Simulator(task, engine="vectorized") as made:
        yield made


def test_a_simulation_learns_and_leaves_a_run_folder(simulator, tmp_path):
    seen = []
    result = simulator.run(SimulationPlan(clients=20, cohort=5, rounds=20), tmp_path, report=seen.append)

    assert result.checkpoint.metrics["accuracy"] > 0.95
    assert load_checkpoint(tmp_path / "checkpoint").metrics == result.checkpoint.metrics
    assert (result.engine, result.device) == ("vectorized", "cpu")
    assert [len(record.participants) for record in result.history] == [5] * 20
    assert result.updates == 100
    assert {path.name for path in result.plots} == {"curves.png", "curves.svg"}
    assert all(path.stat().st_size > 1000 for path in result.plots)
    assert (seen[-1].done, seen[-1].total) == (20, 20)
    assert "clients/s" in seen[-1].note
    record = result.to_record()
    assert record["clients_per_s"] > 0
    assert record["partition"] == "iid"
    assert "20 rounds of fedavg, 5 of 20 clients each" in result.lines()[0]


def test_a_simulation_is_the_training_that_it_stands_for(simulator, tiny_task, tmp_path):
    trained = train_task(tiny_task, tmp_path / "train", rounds=5, clients=6)
    simulated = simulator.run(SimulationPlan(clients=6, cohort=6, rounds=5), tmp_path / "simulate")

    for name, array in trained.checkpoint.weights.items():
        np.testing.assert_allclose(simulated.checkpoint.weights[name], array, atol=1e-5)
    assert [record.examples for record in simulated.history] == [record.examples for record in trained.history]


@pytest.mark.parametrize(
    "settings",
    [{}, {"strategy": "fedadam", "momentum": 0.5}, {"strategy": "krum"}, {"devices": DEVICES}],
    ids=["fedavg", "fedadam", "krum", "devices"],
)
def test_a_stopped_simulation_goes_on_and_ends_with_the_same_bits(settings, simulator, tmp_path):
    plan = SimulationPlan(clients=30, cohort=6, rounds=15, checkpoint_every=4, evaluate_every=5, **settings)
    stops = [6, 7, 13]

    def stop(record):
        if record.round in stops:
            stops.remove(record.round)
            raise StopError

    whole = simulator.run(plan, tmp_path / "whole", plots=False)
    while stops:
        with pytest.raises(StopError):
            simulator.run(plan, tmp_path / "parts", watch=stop, plots=False)
    parts = simulator.run(plan, tmp_path / "parts", plots=False)

    assert same(whole.checkpoint.weights, parts.checkpoint.weights)
    assert [r.participants for r in whole.history] == [r.participants for r in parts.history]
    assert [r.score for r in whole.history] == [r.score for r in parts.history]
    assert [r.virtual_s for r in whole.history] == [r.virtual_s for r in parts.history]
    assert sorted(path.name for path in (tmp_path / "parts" / "rounds").iterdir()) == ["000012", "000015"]


@pytest.mark.parametrize("strategy", [*STRATEGIES, *(f"fedavg+{kind}:clip=1,noise=0.01" for kind in PRIVACY)])
def test_every_strategy_runs_and_goes_on_with_the_same_bits(strategy, simulator, tmp_path):
    plan = SimulationPlan(clients=20, cohort=7, rounds=4, checkpoint_every=2, strategy=strategy)

    def stop(record):
        if record.round == 3:
            raise StopError

    whole = simulator.run(plan, tmp_path / "whole", plots=False)
    (tmp_path / "parts").mkdir()
    for key in (tmp_path / "whole").glob("noise.key"):  # what a private run's noise and cohorts are drawn from
        shutil.copy(key, tmp_path / "parts")
    with pytest.raises(StopError):
        simulator.run(plan, tmp_path / "parts", watch=stop, plots=False)
    parts = simulator.run(plan, tmp_path / "parts", plots=False)

    assert (tmp_path / "whole" / "noise.key").exists() == ("+" in strategy)
    assert [len(record.participants) for record in whole.history] == [7] * 4
    assert same(whole.checkpoint.weights, parts.checkpoint.weights)


def test_more_rounds_can_be_asked_of_a_finished_run(simulator, tmp_path):
    whole = simulator.run(SimulationPlan(clients=10, cohort=3, rounds=7), tmp_path / "whole", plots=False)
    for rounds in (3, 7):
        parts = simulator.run(SimulationPlan(clients=10, cohort=3, rounds=rounds), tmp_path / "parts", plots=False)

    assert same(whole.checkpoint.weights, parts.checkpoint.weights)


def test_rounds_between_evaluations_have_no_accuracy_and_the_last_has(simulator, tmp_path):
    plan = SimulationPlan(clients=10, cohort=3, rounds=8, evaluate_every=3)
    result = simulator.run(plan, tmp_path, plots=False)

    assert [record.round for record in result.history if record.score is not None] == [3, 6, 8]
    assert result.checkpoint.metrics["accuracy"] == result.history[-1].score


def test_a_million_clients_share_a_small_data_set(simulator, tmp_path):
    plan = SimulationPlan(clients=1_000_000, cohort=200, rounds=3, partition=parse_partition("dirichlet:0.1"))
    result = simulator.run(plan, tmp_path, plots=False)

    assert result.updates == 600
    assert result.notes == ("1,000,000 clients share 200 samples: 25 shards of about 8 each",)
    assert max(record.seconds for record in result.history[1:]) < 5


def test_a_column_says_who_the_clients_are(simulator, tmp_path):
    plan = SimulationPlan(cohort=2, rounds=2, partition=parse_partition("column:half"))
    result = simulator.run(plan, tmp_path, plots=False)

    assert result.plan.clients == 2
    assert result.history[0].examples == 200


def test_a_device_model_gives_virtual_time_and_outcomes(simulator, tmp_path):
    result = simulator.run(SimulationPlan(clients=50, cohort=8, rounds=6, devices=DEVICES), tmp_path)

    times = [record.virtual_s for record in result.history]
    assert times == sorted(times)
    assert result.virtual_s == times[-1] > 0
    assert result.outcomes["done"] == result.updates == 4 * 6
    assert sum(result.outcomes.values()) == 8 * 6
    assert any("virtual time" in line for line in result.lines())


@pytest.mark.parametrize(
    ("plan", "error", "sentence"),
    [
        (SimulationPlan(clients=5, cohort=6), SimulationError, "at most the 5 clients that there are, found 6"),
        (SimulationPlan(strategy="fedavgg"), UnknownNameError, "did you mean 'fedavg'"),
        (SimulationPlan(partition=parse_partition("column:user")), PartitionError, "'user' in the data, found half"),
        (SimulationPlan(partition=parse_partition("column:half"), cohort=3), SimulationError, "the 2 clients"),
        (SimulationPlan(devices=DeviceModel(deadline_s=-1.0)), SimulationError, "a deadline above 0"),
        (SimulationPlan(samples=201), PartitionError, "1 to 200 samples for each client"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_the_data_are_refused_and_nothing_is_written(
    plan, error, sentence, simulator, tmp_path
):
    with pytest.raises(error, match=sentence):
        simulator.run(plan, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_run_is_refused(simulator, tiny_task, tmp_path):
    simulator.run(SimulationPlan(clients=10, cohort=3, rounds=2), tmp_path / "a", plots=False)
    with pytest.raises(RunMismatchError, match="cohort 3 instead of 4"):
        simulator.run(SimulationPlan(clients=10, cohort=4, rounds=2), tmp_path / "a")
    with pytest.raises(RunMismatchError, match="rounds 2 instead of 1"):
        simulator.run(SimulationPlan(clients=10, cohort=3, rounds=1), tmp_path / "a")
    train_task(tiny_task, tmp_path / "b", rounds=1, clients=2)
    with pytest.raises(RunMismatchError, match="grid 'in-process' instead of 'cohort'"):
        simulator.run(SimulationPlan(clients=10, cohort=3, rounds=2), tmp_path / "b")


def test_a_deadline_that_nobody_makes_ends_the_run(simulator, tmp_path):
    plan = SimulationPlan(clients=10, cohort=3, rounds=9, devices=DeviceModel(deadline_s=0.01))
    with pytest.raises(RoundFailedError, match="it was not done when the round ended"):
        simulator.run(plan, tmp_path)


def test_a_gpu_that_is_not_there_is_said():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(NoGpuError, match="expected a CUDA GPU that torch can use, found"):
        resolve_device("cuda")
    assert resolve_device("auto") == "cpu"


def test_the_function_is_one_run_of_a_simulator(tiny_task, tmp_path):
    plan = SimulationPlan(clients=12, cohort=4, rounds=2)
    sequential = simulate_task(tiny_task, tmp_path / "a", plan, engine="sequential")
    auto = simulate_task(tiny_task, tmp_path / "b", plan)

    assert (sequential.engine, sequential.reason) == ("sequential", "it was asked for")
    for name, array in sequential.checkpoint.weights.items():
        np.testing.assert_allclose(auto.checkpoint.weights[name], array, atol=1e-5)


def test_an_asynchronous_run_learns_in_less_virtual_time_and_goes_on_when_it_was_stopped(simulator, tmp_path):
    def stop(record):
        if record.round == 10:
            raise StopError

    trained = []
    plan = SimulationPlan(
        clients=60, cohort=8, rounds=30, buffer=4, strategy="fedbuff", devices=DeviceModel(drop_out=0.1), seed=2
    )
    plan = replace(plan, checkpoint_every=4)
    whole = simulator.run(plan, tmp_path / "whole")
    with pytest.raises(StopError):
        simulator.run(plan, tmp_path / "parts", watch=stop)
    parts = simulator.run(plan, tmp_path / "parts", plots=False, watch=lambda record: trained.append(record.round))
    again = simulator.run(plan, tmp_path / "parts", plots=False, watch=lambda record: trained.append(record.round))

    assert trained == list(range(9, 31))
    assert whole.checkpoint.metrics["accuracy"] > 0.9
    assert same(whole.checkpoint.weights, parts.checkpoint.weights)
    assert same(whole.checkpoint.weights, again.checkpoint.weights)
    assert parts.outcomes == again.outcomes == whole.outcomes
    simulator.run(replace(plan, rounds=20), tmp_path / "longer", plots=False)
    longer = simulator.run(plan, tmp_path / "longer", plots=False)
    assert same(whole.checkpoint.weights, longer.checkpoint.weights)
    assert whole.outcomes["done"] == 120
    assert whole.notes[0].startswith("updates were")
    assert [len(record.participants) for record in whole.history] == [4] * 30
    with pytest.raises(RunMismatchError, match="buffer 4 instead of 3"):
        simulator.run(replace(plan, buffer=3), tmp_path / "parts")
    with pytest.raises(RunMismatchError, match="rounds 30 instead of 29"):
        simulator.run(replace(plan, rounds=29), tmp_path / "parts")


def test_a_run_goes_on_with_the_engine_that_it_began_with(tiny_task, tmp_path):
    plan = SimulationPlan(clients=12, cohort=4, rounds=2)
    simulate_task(tiny_task, tmp_path, plan, engine="sequential")
    more = simulate_task(tiny_task, tmp_path, replace(plan, rounds=3))

    assert (more.engine, more.reason) == ("sequential", "the run began with it")
    with pytest.raises(RunMismatchError, match="engine 'sequential' instead of 'vectorized'"):
        simulate_task(tiny_task, tmp_path, replace(plan, rounds=4), engine="vectorized")


def test_a_run_whose_devices_never_answer_fails_with_the_kinds_and_leaves_no_result(simulator, tmp_path):
    plan = SimulationPlan(clients=20, cohort=5, rounds=6, devices=DeviceModel(mix="phones", drop_out=1.0))
    with pytest.raises(NoUpdateError, match="it dropped out") as caught:
        simulator.run(plan, tmp_path, plots=False)
    assert (caught.value.round_number, caught.value.kinds) == (3, {"dropped out": 15})
    assert not (tmp_path / "checkpoint").exists()
    assert not (tmp_path / "summary.json").exists()
    assert (tmp_path / "failed.json").exists()


@pytest.mark.parametrize("strategy", ["fedavg", "fedbuff"])
def test_a_run_whose_updates_all_diverge_fails_under_every_strategy(strategy, make_task, tmp_path):
    task = make_task(loss=lambda logits, labels: (logits**4).mean())
    plan = SimulationPlan(
        clients=20, cohort=4, rounds=6, strategy=strategy, learning_rate=900.0, devices=DeviceModel(mix="phones")
    )
    with pytest.raises(NoUpdateError, match="learning rate") as caught:
        simulate_task(task, tmp_path, plan, engine="sequential")
    assert set(caught.value.kinds) <= {"norm", "not finite"}
    assert caught.value.rounds == 3


def test_a_run_that_failed_goes_on_when_more_rounds_bring_updates(simulator, tmp_path, monkeypatch):
    from hedgerow.server.grids.cohort import CohortGrid

    plan = SimulationPlan(clients=20, cohort=5, rounds=3)
    train, gone = CohortGrid._train, [2, 3]

    def fail(self, waiting, weights, *, own_copies):
        message = next(iter(waiting.values()))[0]
        if next(iter(message.content.config_records.values()))["server-round"] in gone:
            return [self._refuse(message, "gone") for each in waiting.values() for message in each]
        return train(self, waiting, weights, own_copies=own_copies)

    monkeypatch.setattr(CohortGrid, "_train", fail)
    with pytest.raises(NoUpdateError):
        simulator.run(plan, tmp_path, plots=False)
    gone.remove(3)
    result = simulator.run(plan, tmp_path, plots=False)
    assert [record.used for record in result.history] == [5, 0, 5]
    assert load_checkpoint(tmp_path / "checkpoint").round == 3
