"""Every kind of output is trained, measured and simulated by the same code, with the same weights in every engine."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hedgerow import Classes, Custom, Dataset, LocalTraining, Partition, TaskData
from hedgerow.errors import PartitionError
from hedgerow.local_work import LocalWork
from hedgerow.server.cohort.clients import ClientSlices
from hedgerow.server.cohort.engines import build_engine
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.outcome import shown_metrics
from hedgerow.server.simulation.plan import SimulationPlan
from hedgerow.server.simulation.simulate import Simulator, simulate_task
from hedgerow.server.simulation.sweep import run_sweep
from hedgerow.server.simulation.variations import parse_variations
from hedgerow.server.training import data_fingerprint, initial_weights, train_task
from hedgerow.task_module import predict
from tests.output_tasks import STREAMING, TASKS, anomaly_data, dataset_of, numbers, tokens_of

pytestmark = pytest.mark.heavy

KINDS = sorted(TASKS)
SIZES = (13, 8, 21, 5)


def padded() -> TaskData:
    """Return sequences of tokens of which every third ends in padding."""
    parts = []
    for samples, seed in ((200, 1), (60, 2)):
        x = numbers(samples, seed)
        wanted = tokens_of(x)
        wanted[::3, 2:] = -1
        parts.append(dataset_of(x, wanted))
    return TaskData(*parts)


WITH_OTHER_LOSSES = {
    **{
        f"{name}, {loss}": replace(task, loss=loss)
        for name, task in TASKS.items()
        if task.answers.alone is not None
        for loss in task.answers.alone.losses[1:]
    },
    "several, a loss each": replace(TASKS["several"], loss={"state": "focal", "level": "mae"}),
    "tokens, with padding": replace(TASKS["tokens"], data=padded),
}


def updates_of(engine: str, task, *, momentum: float = 0.0):
    """Return the weights of four unequal clients after a round, and their losses."""
    data = task.load_data()
    clients = ClientSlices.of_shards(np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1]))
    weights = {name: torch.from_numpy(array) for name, array in initial_weights(task, 3).items()}
    work = replace(LocalWork.of_training(task.local, seed=5), momentum=momentum)
    with build_engine(engine, task, data.train, clients, workers=2) as made:
        updates = list(made.train(weights, [0, 1, 2, 3], work, each=True))
    each = {name: torch.cat([update.each[name] for update in updates]).clone() for name in weights}
    return each, np.concatenate([update.losses for update in updates])


@pytest.mark.parametrize("engine", ["vectorized", "workers"])
@pytest.mark.parametrize("name", [*KINDS, *sorted(WITH_OTHER_LOSSES)])
def test_every_engine_trains_every_kind_as_the_plain_loop_does(name, engine, one_thread):
    task = {**TASKS, **WITH_OTHER_LOSSES}[name]
    plain, plain_losses = updates_of("sequential", task)

    found, losses = updates_of(engine, task)

    for tensor in plain:
        torch.testing.assert_close(found[tensor], plain[tensor], rtol=1e-4, atol=1e-5)
        assert not torch.equal(plain[tensor][0], plain[tensor][1])  # they have learned
    np.testing.assert_allclose(losses, plain_losses, rtol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_sequences_of_every_kind_are_trained_by_workers_as_by_the_plain_loop(name, one_thread):
    plain, plain_losses = updates_of("sequential", STREAMING[name], momentum=0.5)

    found, losses = updates_of("workers", STREAMING[name], momentum=0.5)

    for tensor in plain:
        torch.testing.assert_close(found[tensor], plain[tensor], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses, plain_losses, rtol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_a_few_rounds_beat_what_does_not_look_at_the_input(name, tmp_path):
    task = TASKS[name]
    result = train_task(task, tmp_path, rounds=6, clients=4)

    metrics, key = result.checkpoint.metrics, task.answers.score_key
    assert metrics[key] > metrics[f"baseline_{key}"] + 0.05
    assert result.history[-1].score == metrics[key]
    assert result.history[-1].loss == metrics["loss"]
    last = json.loads((tmp_path / "rounds.jsonl").read_text().splitlines()[-1])
    assert last[key] == metrics[key]
    assert ("accuracy" in last) == (name == "classes")


@pytest.mark.parametrize("name", KINDS)
def test_sequences_of_every_kind_beat_what_does_not_look_at_the_input(name, tmp_path):
    task = STREAMING[name]
    result = simulate_task(
        task, tmp_path, SimulationPlan(clients=8, cohort=4, rounds=10, seed=1), engine="sequential", device="cpu"
    )

    metrics, key = result.checkpoint.metrics, task.answers.score_key
    assert metrics[key] > metrics[f"baseline_{key}"] + 0.05


@pytest.mark.parametrize("name", KINDS)
def test_a_simulation_has_the_same_weights_and_scores_in_both_engines(name, tmp_path):
    plan = SimulationPlan(clients=6, cohort=3, rounds=3, seed=2)
    plain, stacked = (
        simulate_task(TASKS[name], tmp_path / engine, plan, engine=engine, device="cpu")
        for engine in ("sequential", "vectorized")
    )

    for tensor, array in plain.checkpoint.weights.items():
        np.testing.assert_allclose(stacked.checkpoint.weights[tensor], array, rtol=1e-3, atol=1e-4)
    key = TASKS[name].answers.score_key
    assert stacked.checkpoint.metrics[key] == pytest.approx(plain.checkpoint.metrics[key], abs=0.01)
    assert plain.lines()[0].endswith("; " + shown_metrics(TASKS[name], plain.checkpoint.metrics)[0])
    assert TASKS[name].answers.score_name in plain.lines()[0]


def test_anomalies_are_measured_by_a_threshold_of_normal_held_out_samples_and_are_no_part_of_the_loss():
    from sklearn.metrics import roc_auc_score

    task = TASKS["reconstruction"]
    data = task.load_data()
    weights = initial_weights(task, 0)

    found = Evaluator(task, data.held_out, train=data.train).report(weights)

    model = task.model()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    x = torch.from_numpy(data.held_out.inputs["x"]) / 2
    errors = ((model(x) - x) ** 2).mean(dim=1).detach().numpy()
    wanted = data.held_out.target_values
    normal = np.sort(errors[wanted == 0])
    flagged = errors >= normal[-int(0.05 * len(normal))]
    assert found["loss"] == pytest.approx(errors[wanted == 0].mean(), rel=1e-5)
    assert found["auc"] == pytest.approx(roc_auc_score(wanted, errors))
    assert found["false_alarm_rate"] == 0.05
    assert found["detection_rate"] == flagged[wanted == 1].mean()
    assert found["score"] == (flagged == wanted).mean()
    assert found["baseline_score"] == 0.75


def test_anomalous_steps_of_sequences_are_no_part_of_the_loss():
    task = STREAMING["reconstruction"]
    held_out = task.load_data().held_out
    weights = initial_weights(task, 0)

    found = Evaluator(task, held_out).measure(weights)

    model = task.model()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    errors = predict(task, model.eval(), held_out.inputs)["anomaly"][..., 0]
    assert found["loss"] == pytest.approx(errors[held_out.target_values == 0].mean(), rel=1e-5)


def test_values_in_sequences_are_held_against_the_last_value():
    task = STREAMING["values"]
    data = task.load_data()

    found = Evaluator(task, data.held_out, train=data.train).report(initial_weights(task, 0))

    before, after = data.held_out.target_values[:, :-1], data.held_out.target_values[:, 1:]
    worth = 1 - np.minimum(1, np.abs(before.astype(np.float64) - after) / [1.0, 2.0])
    assert found["last_value_score"] == pytest.approx(worth.mean())
    assert f"always the last value worth of the values {worth.mean():.3f}" in " ".join(shown_metrics(task, found))
    plain = TASKS["values"]
    held_out = plain.load_data().held_out
    assert "last_value_score" not in Evaluator(plain, held_out).report(initial_weights(plain, 0))


def test_without_judged_samples_there_is_a_loss_and_no_score(tmp_path):
    def data() -> TaskData:
        known = anomaly_data()
        return TaskData(known.train, replace(known.held_out.take(np.arange(80)), target_values=None))

    task = replace(TASKS["reconstruction"], data=data)
    result = train_task(task, tmp_path, rounds=2, clients=4)

    assert set(result.checkpoint.metrics) == {"loss"}
    assert [record.score for record in result.history] == [None, None]
    assert shown_metrics(task, result.checkpoint.metrics) == (f"loss {result.checkpoint.metrics['loss']:.3f}",)


def test_trials_without_a_score_are_ranked_by_their_loss(tmp_path):
    def data() -> TaskData:
        known = anomaly_data()
        return TaskData(known.train, replace(known.held_out, target_values=None))

    task = replace(TASKS["reconstruction"], data=data)
    with Simulator(task, engine="sequential", device="cpu") as simulator:
        varied = parse_variations(["learning-rate=0.0001,0.2"])
        plan = SimulationPlan(clients=6, cohort=3, rounds=4)
        result = run_sweep(simulator, plan, varied, tmp_path)

    assert [trial.choices["learning-rate"] for trial in result.trials] == [0.2, 0.0001]
    assert result.best is result.trials[0]
    assert (result.best.score, result.best.worth) == (None, -result.best.loss)


def test_an_output_without_a_score_function_trains_all_the_same(tmp_path):
    custom = TASKS["custom"].answers["output"]
    task = replace(TASKS["custom"], outputs=Custom((2,), loss=custom.loss))

    result = train_task(task, tmp_path, rounds=2, clients=4)

    assert set(result.checkpoint.metrics) == {"loss"}


@pytest.mark.parametrize("partition", [Partition("dirichlet"), Partition("shards")])
@pytest.mark.parametrize("name", ["labels", "values", "reconstruction", "tokens", "custom"])
def test_what_has_no_classes_is_not_cut_by_them(name, partition, tmp_path):
    task = replace(TASKS[name], partition=partition)
    said = f"expected an output with classes, by which the partition {partition} cuts, found none; use iid"

    with pytest.raises(PartitionError, match=said):
        train_task(task, tmp_path / "train", rounds=1, clients=4)
    with pytest.raises(PartitionError, match=said):
        simulate_task(task, tmp_path / "simulate", SimulationPlan(clients=4, cohort=2, rounds=1), engine="sequential")


def test_several_outputs_are_cut_by_the_classes_of_the_first_that_has_some(tmp_path):
    task = replace(TASKS["several"], partition=Partition("shards", shards_per_client=1))
    train = task.load_data().train
    cuts = task.partition.split(task.strata_or_count(train), 3, np.random.default_rng(0))

    assert min(len(set(train.target_values["state"][cut])) for cut in cuts) == 1
    assert train_task(task, tmp_path, rounds=1, clients=3).updates == 3


def test_the_fingerprint_of_data_tells_every_target_value():
    x = numbers(6, 0)
    classes = np.arange(6)

    def of(wanted) -> str:
        part = Dataset({"x": x}, wanted)
        return data_fingerprint(TaskData(part, part))

    found = {
        of(classes), of(classes[::-1].copy()), of(None), of({"a": classes}), of({"b": classes}),
        of({"a": classes, "b": classes}), of(classes.astype(np.float32)),
    }  # fmt: skip
    assert len(found) == 7


def test_accuracy_of_classes_that_are_one_of_two_outputs_is_told_under_its_name(tmp_path):
    task = TASKS["several"]
    metrics = train_task(task, tmp_path, rounds=1, clients=4, local=LocalTraining(learning_rate=0.2)).checkpoint.metrics

    assert "accuracy" not in metrics
    assert metrics["score"] == pytest.approx((metrics["state.accuracy"] + 2 * metrics["level.score"]) / 3)
    assert isinstance(task.answers["state"], Classes)
