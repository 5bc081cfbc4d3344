"""A sweep is many runs, each of which is the run that the same settings alone would be."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hedgerow.server.simulation.device_model import DeviceModel
from hedgerow.server.simulation.plan import SimulationPlan
from hedgerow.server.simulation.simulate import Simulator, simulate_task
from hedgerow.server.simulation.sweep import Combination, run_sweep
from hedgerow.server.simulation.variations import parse_variations

pytestmark = pytest.mark.heavy

PLAN = SimulationPlan(clients=20, cohort=5, rounds=6)


@pytest.fixture
def simulator(tiny_task):
    with Simulator(tiny_task, engine="sequential") as made:
        yield made


def test_of_two_equal_trials_the_one_whose_loss_is_no_number_is_ranked_last():
    def trial(**metrics):
        run = SimpleNamespace(checkpoint=SimpleNamespace(metrics={"accuracy": 0.1, **metrics}))
        return Combination({"learning-rate": 1.0}, "accuracy", {0: run})

    fine, lost = trial(loss=50.0), trial()
    assert lost.merit() == (0.1, -math.inf)
    assert max([lost, fine], key=Combination.merit) is fine


def settings_of(result):
    return [trial["settings"] for trial in result.to_record()["trials"]]


def test_lists_are_tried_in_every_combination_for_each_seed(simulator, tiny_task, tmp_path):
    seen = []
    varied = parse_variations(["learning-rate=0.001,0.5", "strategy=fedavg,fedadam", "seed=0..1"])
    result = run_sweep(simulator, PLAN, varied, tmp_path / "sweep", report=seen.append)

    assert len(result.trials) == 4
    assert all(sorted(trial.runs) == [0, 1] for trial in result.trials)
    accuracies = [trial.score for trial in result.trials]
    assert accuracies == sorted(accuracies, reverse=True)
    assert result.best.choices["learning-rate"] == 0.5
    assert [(p.done, p.total) for p in seen if p.work == "sweep"][-1] == (8, 8)
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["best"]["accuracy"] == result.best.score
    assert {path.name for path in result.plots} == {"sweep.png", "sweep.svg"}

    alone = simulate_task(
        tiny_task,
        tmp_path / "alone",
        SimulationPlan(clients=20, cohort=5, rounds=6, learning_rate=0.5, strategy="fedadam", seed=1),
        engine="sequential",
    )
    (trial,) = (t for t in result.trials if t.choices == {"learning-rate": 0.5, "strategy": "fedadam"})
    for name, array in alone.checkpoint.weights.items():
        assert np.array_equal(trial.runs[1].checkpoint.weights[name], array)


def test_a_stopped_sweep_goes_on_and_values_can_be_added(simulator, tmp_path):
    def stop(progress):
        if progress.work == "sweep" and progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(simulator, PLAN, parse_variations(["epochs=1,2,3"]), tmp_path, report=stop)
    first = sorted(path.name for path in (tmp_path / "trials").iterdir())
    seen = []
    result = run_sweep(simulator, PLAN, parse_variations(["epochs=1,2,3,4"]), tmp_path, report=seen.append)

    assert first == ["epochs=1", "epochs=2"]
    assert sorted(trial.choices["epochs"] for trial in result.trials) == [1, 2, 3, 4]
    assert sum(progress.work == "simulate" for progress in seen) == 12
    run_sweep(simulator, PLAN, parse_variations(["epochs=5"]), tmp_path, fresh=True)
    assert [path.name for path in (tmp_path / "trials").iterdir()] == ["epochs=5"]


def test_a_run_that_diverges_is_a_result(make_task, tmp_path):
    task = make_task(loss=lambda logits, labels: (logits**4).mean())
    with Simulator(task, engine="sequential") as simulator:
        result = run_sweep(simulator, PLAN, parse_variations(["learning-rate=900,0.0001"]), tmp_path)

    assert [(trial.choices["learning-rate"], trial.state) for trial in result.trials] == [
        (0.0001, "done"),
        (900.0, "diverged"),
    ]
    assert result.best.choices == {"learning-rate": 0.0001}


def test_a_trial_that_trains_nobody_is_a_failed_one_and_no_diverged_one(tiny_task, tmp_path):
    plan = replace(PLAN, devices=DeviceModel(mix="phones", drop_out=1.0))
    with Simulator(tiny_task) as simulator:
        result = run_sweep(simulator, plan, parse_variations(["epochs=1,2"]), tmp_path)
    assert [trial.state for trial in result.trials] == ["failed", "failed"]
    assert result.best is None


def test_a_range_is_searched_and_the_search_goes_on_as_if_it_had_not_been_stopped(simulator, tmp_path):
    varied = parse_variations(["learning-rate=log:0.0001..10", "momentum=0,0.9", "epochs=1..3"])

    def stop(progress):
        if progress.work == "simulate" and progress.done == 4 and len(list((tmp_path / "b" / "trials").iterdir())) == 7:
            raise KeyboardInterrupt

    whole = run_sweep(simulator, PLAN, varied, tmp_path / "a", trials=9, prune=False)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(simulator, PLAN, varied, tmp_path / "b", trials=9, prune=False, report=stop)
    parts = run_sweep(simulator, PLAN, varied, tmp_path / "b", trials=9, prune=False)

    assert len(whole.trials) == 9
    assert settings_of(whole) == settings_of(parts)
    assert all(0.0001 <= trial.choices["learning-rate"] <= 10 for trial in whole.trials)
    assert (tmp_path / "a" / "study.sqlite").exists()


def test_runs_that_do_badly_are_given_up(simulator, tmp_path):
    plan = SimulationPlan(clients=20, cohort=5, rounds=20)
    result = run_sweep(simulator, plan, parse_variations(["learning-rate=log:0.00001..1"]), tmp_path, trials=12)

    states = [trial.state for trial in result.trials]
    assert states.count("given up") >= 1
    assert states[0] == "done"
    again = run_sweep(simulator, plan, parse_variations(["learning-rate=log:0.00001..1"]), tmp_path, trials=12)
    assert [(t.choices, t.state) for t in again.trials] == [(t.choices, t.state) for t in result.trials]
