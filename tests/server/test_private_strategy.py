"""Tests of hedgerow.server.private_strategy: the noise that reaches the mean, and how far one client can move it."""

import logging

import numpy as np
import pytest

from hedgerow.server.cohort.clients import ClientSlices
from hedgerow.server.cohort.sequential import SequentialEngine
from hedgerow.server.cohort.vectorized import VectorizedEngine
from hedgerow.server.cohort.workers import WorkersEngine
from hedgerow.server.flower import array_record, numpy_arrays
from hedgerow.server.grids.cohort import CohortGrid
from hedgerow.server.grids.fleet import FleetGrid
from hedgerow.server.grids.in_process import InProcessGrid
from hedgerow.server.grids.processes import ProcessGrid
from hedgerow.server.grids.transport import DeviceUpdate, SimulatedTransport
from hedgerow.server.privacy import PRIVACY
from hedgerow.server.strategies import STRATEGIES, build_strategy
from hedgerow.server.training import initial_weights, train_task

pytestmark = pytest.mark.heavy

SIZE = 40_000
AVERAGING = [name for name, spec in STRATEGIES.items() if spec.mean]


def private(name, clients=10, **rest):
    strategy = build_strategy(name, clients=clients, learning_rate=0.1, **rest)
    strategy.generator = np.random.default_rng(1)
    return strategy


def take_round(strategy, grid, start, number=1):
    from flwr.app import ConfigRecord

    messages = list(strategy.configure_train(number, array_record(start), ConfigRecord({}), grid))
    arrays, metrics = strategy.aggregate_train(number, grid.send_and_receive(messages))
    return None if arrays is None else numpy_arrays(arrays), metrics


def ten_clients(*, failing=frozenset(), update=1.0, first=1.0, claims=91, bit=None):
    """Return a grid; client 1 moves the first number by *first* and claims many samples, the others move nothing."""
    from flwr.app import Message, MetricRecord, RecordDict

    def app(message, context):
        if context.node_id in failing:
            raise ValueError("gone")
        weights = np.zeros(SIZE, np.float32)
        weights[0] = first if context.node_id == 1 else update * 1e-6
        metrics = {"loss": 1.0, "num-examples": claims if context.node_id == 1 else 1}
        if bit is not None:
            metrics["norm_bit"] = bit(context.node_id)
        arrays = array_record({"w": weights})
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=message)

    return InProcessGrid(app, 10)


PROCESS_APP = """
import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from hedgerow.server.flower import array_record

def app(message, context):
    weights = np.zeros(40_000, np.float32)
    weights[0] = 50.0 if context.node_id == 1 else 0.0
    if context.node_id == 3:
        raise SystemExit(1)
    metrics = MetricRecord({"loss": 1.0, "num-examples": 91 if context.node_id == 1 else 1})
    return Message(RecordDict({"arrays": array_record({"w": weights}), "metrics": metrics}), reply_to=message)
"""


START = {"w": np.zeros(SIZE, np.float32)}


@pytest.mark.parametrize("kind", PRIVACY)
def test_one_client_moves_the_mean_by_its_share_of_the_norm_whatever_it_claims(kind):
    grid = ten_clients(first=50.0, bit=lambda node: int(node == 1))
    found, _metrics = take_round(private(f"fedavg+{kind}:clip=2,noise=0"), grid, START)
    assert found["w"][0] == pytest.approx(2 / 10, rel=1e-4)


@pytest.mark.parametrize("kind", ["server-fixed", "client-fixed"])
@pytest.mark.parametrize(("gone", "answered"), [(frozenset(), 10), (frozenset({10}), 9), (frozenset(range(2, 10)), 2)])
def test_noise_is_as_stated_for_those_who_answered(kind, gone, answered):
    strategy = private(f"fedavg+{kind}:clip=2,noise=0.5")
    found, _metrics = take_round(strategy, ten_clients(failing=gone), START)
    assert found["w"][1:].std() == pytest.approx(0.5 * 2 / answered, rel=0.02)
    (mean,) = strategy.means
    assert (mean.nodes, mean.asked, mean.answered, mean.clip) == (10, 10, answered, 2.0)
    assert mean.noise_std == 0.5 * 2 / answered


def test_influence_and_noise_are_the_same_in_worker_processes(tmp_path):
    (tmp_path / "app.py").write_text(PROCESS_APP)
    with ProcessGrid(f"{tmp_path / 'app.py'}:app", 5, workers=2) as grid:
        plain, _metrics = take_round(private("fedavg+server-fixed:clip=2,noise=0", 5), grid, START)
        noisy, _metrics = take_round(private("fedavg+client-fixed:clip=2,noise=1", 5), grid, START)
    assert plain["w"][0] == pytest.approx(2 / 4)
    assert not plain["w"][1:].any()
    assert noisy["w"][1:].std() == pytest.approx(2 / 4, rel=0.02)


@pytest.mark.parametrize("kind", ["server-adaptive", "client-adaptive"])
def test_noise_of_adaptive_clipping_is_enlarged_by_what_the_count_takes(kind):
    strategy = private(f"fedavg+{kind}:clip=2,noise=0.5,count-noise=0.5")
    found, _metrics = take_round(strategy, ten_clients(bit=lambda node: 0), START)
    # 1/z_u^2 = 1/0.5^2 - 1/(2 * 0.5)^2 = 3
    assert found["w"][1:].std() == pytest.approx(2 / 10 / np.sqrt(3), rel=0.02)


@pytest.mark.parametrize("kind", PRIVACY)
def test_updates_of_zeros_and_absent_clients_do_not_end_a_run(kind):
    name = f"fedavg+{kind}:clip=1,noise=1"
    zeros = ten_clients(update=0.0, first=0.0, bit=lambda node: 0)
    found, _metrics = take_round(private(name), zeros, START)
    assert found["w"].std() == pytest.approx(0.1, rel=0.2)
    strategy = private(name)
    assert take_round(strategy, ten_clients(failing=frozenset(range(1, 11))), START)[0] is None
    assert strategy.means == []


@pytest.mark.parametrize("base", AVERAGING)
def test_noise_is_part_of_the_mean_before_the_server_takes_its_step(base):
    """What the strategy returns is what it makes of the noisy mean as its only update."""
    private_one, plain = private(f"{base}+server-fixed:clip=1,noise=1"), private(base)
    noisy, _metrics = take_round(private(f"fedavg+server-fixed:clip=1,noise=1"), ten_clients(), START)  # noqa: F541

    def app(message, context):
        from flwr.app import Message, MetricRecord, RecordDict

        metrics = MetricRecord({"loss": 1.0, "num-examples": 1})
        return Message(RecordDict({"arrays": array_record(noisy), "metrics": metrics}), reply_to=message)

    found, _metrics = take_round(private_one, ten_clients(), START)
    wanted, _metrics = take_round(plain, InProcessGrid(app, 1), START)
    np.testing.assert_allclose(found["w"], wanted["w"], rtol=1e-6, atol=1e-7)


def test_the_adaptive_norm_goes_to_the_quantile_and_not_away_from_it():
    sizes = np.linspace(0.1, 1.0, 10)

    def app(message, context):
        from flwr.app import Message, MetricRecord, RecordDict

        weights = numpy_arrays(message.content["arrays"])["w"].copy()
        weights[0] += sizes[context.node_id - 1]
        metrics = MetricRecord({"loss": 1.0, "num-examples": 1})
        return Message(RecordDict({"arrays": array_record({"w": weights}), "metrics": metrics}), reply_to=message)

    for first in (0.01, 30.0):
        strategy = private(f"fedavg+server-adaptive:clip={first},noise=0,quantile=0.7,rate=0.3")
        grid = InProcessGrid(app, 10)
        for number in range(1, 120):
            take_round(strategy, grid, {"w": np.zeros(4, np.float32)}, number)
        assert 0.65 <= strategy.clipping_norm <= 0.85


def test_whole_numbers_in_the_weights_say_nothing_of_clients():
    def app(message, context):
        from flwr.app import Message, MetricRecord, RecordDict

        arrays = array_record({"w": np.ones(3, np.float32), "batches": np.array(7 + context.node_id)})
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    start = {"w": np.zeros(3, np.float32), "batches": np.array(5)}
    found, _metrics = take_round(private("fedavg+server-fixed:noise=0"), InProcessGrid(app, 3), start)
    assert int(found["batches"]) == 5


def test_partial_sums_are_refused_because_they_weigh_by_samples(tiny_task):
    data = tiny_task.load_data()
    clients = ClientSlices.of_shards(np.split(np.arange(200), [150]))
    grid = CohortGrid(tiny_task, data, clients, SequentialEngine(tiny_task, data.train, clients), partial_sums=True)
    from flwr.serverapp.exception import AggregationError

    with pytest.raises(AggregationError, match="partial sums"):
        take_round(private("fedavg+server-fixed", 2), grid, initial_weights(tiny_task, 0))


@pytest.mark.parametrize("kind", PRIVACY)
@pytest.mark.parametrize("engine", [SequentialEngine, VectorizedEngine, WorkersEngine])
def test_every_engine_gives_the_plain_mean_of_clipped_updates_and_the_stated_noise(engine, kind, make_task):
    from torch import nn

    # Unequal clients, of which the first has 90 % of the samples; enough weights to measure noise on.
    task = make_task(model=lambda: nn.Sequential(nn.Linear(2, 3000), nn.Linear(3000, 3)))
    data, clip = task.load_data(), 0.05
    clients = ClientSlices.of_shards(np.split(np.arange(200), [180, 185, 190, 195]))
    start = initial_weights(task, 0)
    made = engine(task, data.train, clients, **({"workers": 2} if engine is WorkersEngine else {}))
    try:
        grid = CohortGrid(task, data, clients, made)
        plain = {}
        for name in ("noise=0", "noise=1"):
            strategy = private(f"fedavg+{kind}:clip={clip},{name}", 5)
            plain[name], _metrics = take_round(strategy, grid, start)
        each = build_strategy("fedavg", clients=5, learning_rate=0.1)
        from flwr.app import ConfigRecord

        replies = grid.send_and_receive(each.configure_train(1, array_record(start), ConfigRecord({}), grid))
        updates = [
            {key: value.astype(np.float64) - start[key] for key, value in numpy_arrays(r.content["arrays"]).items()}
            for r in replies
        ]
        norms = [np.sqrt(sum(np.square(change).sum() for change in update.values())) for update in updates]
        assert max(norms) > clip
        for key, value in start.items():
            mean = sum(update[key] * min(1, clip / norm) for update, norm in zip(updates, norms, strict=True)) / 5
            np.testing.assert_allclose(plain["noise=0"][key], value + mean, atol=2e-6)
        noise = np.concatenate([(plain["noise=1"][key] - plain["noise=0"][key]).ravel() for key in start])
        assert noise.std() == pytest.approx(strategy.means[0].noise_std, rel=0.03)
        factor = 1.0 if kind.endswith("fixed") else np.sqrt(4 / 3)  # the count's noise takes a quarter
        assert strategy.means[0].noise_std == pytest.approx(factor * clip / 5)
    finally:
        made.close()


def test_it_holds_on_devices_whose_server_clips():
    def step(work, device):
        change = np.float32(0.9 if device == "a" else 0.0)
        weights = {name: array + change for name, array in work.weights.items()}
        return DeviceUpdate(
            device=device,
            state="done",
            examples=90_000 if device == "a" else 1,
            metrics={"loss": 1.0},
            weights=weights,
        )

    grid = FleetGrid(SimulatedTransport(dict.fromkeys("abcd", step)))
    found, _metrics = take_round(
        private("fedavg+server-fixed:clip=0.5,noise=0", 4), grid, {"w": np.zeros(1, np.float32)}
    )
    assert found["w"].tolist() == [0.125]


def test_noise_depends_on_a_key_that_only_the_owner_reads_and_not_on_the_seed(tiny_task, tmp_path):
    name = "fedavg+client-fixed:clip=0.5,noise=1"

    def train(folder, name=name):
        return train_task(tiny_task, tmp_path / folder, strategy=name, rounds=1).checkpoint.weights["weight"]

    plain = train("plain", "fedavg+client-fixed:clip=0.5,noise=0")
    one, other = train("one"), train("other")
    assert not np.array_equal(one, other)
    assert np.abs(one - plain).std() == pytest.approx(0.5 / 8, rel=0.9)
    key = tmp_path / "one" / "noise.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32
    assert key.read_bytes() != (tmp_path / "other" / "noise.key").read_bytes()
    assert not (tmp_path / "one" / "checkpoint" / "noise.key").exists()
    assert key.read_bytes().hex() not in (tmp_path / "one" / "checkpoint" / "checkpoint.json").read_text()


def test_who_is_asked_depends_on_the_key_and_not_on_the_seed(tiny_task, tmp_path):
    def asked(folder, name):
        run = train_task(tiny_task, tmp_path / folder, strategy=name, rounds=6, clients=12, fraction=0.25)
        return [record.participants for record in run.history]

    assert asked("a", "fedavg+server-fixed:noise=0.01") != asked("b", "fedavg+server-fixed:noise=0.01")
    assert asked("c", "fedavg") == asked("d", "fedavg")


def test_a_run_states_what_it_promises_in_its_checkpoint_and_its_rounds_what_they_gave_away(tiny_task, tmp_path):
    pytest.importorskip("dp_accounting")
    result = train_task(tiny_task, tmp_path, strategy="fedavg+server-fixed:noise=4", rounds=3, clients=8, fraction=0.5)
    assert result.privacy.epsilon > 0
    assert result.checkpoint.privacy == result.privacy.to_record()
    assert result.checkpoint.privacy["asked"] == [4, 4]
    assert result.checkpoint.privacy["nodes"] == [8, 8]
    assert [record.privacy.answered for record in result.history] == [4, 4, 4]
    again = train_task(tiny_task, tmp_path, strategy="fedavg+server-fixed:noise=4", rounds=3, clients=8, fraction=0.5)
    assert again.privacy.to_record() == result.privacy.to_record()
    assert train_task(tiny_task, tmp_path / "plain", rounds=1).checkpoint.privacy is None


def test_a_round_that_is_taken_again_has_the_same_noise_for_the_same_updates_and_another_for_others():
    def noise(grid):
        strategy = private("fedavg+server-fixed:clip=1,noise=1")
        strategy.round_key = b"k" * 32
        return take_round(strategy, grid, START)[0]["w"]

    one, again, other = noise(ten_clients()), noise(ten_clients()), noise(ten_clients(first=0.9))
    np.testing.assert_array_equal(one, again)
    # Two independent draws: the difference has the deviation of one times the root of two.
    assert (one[1:] - other[1:]).std() == pytest.approx(0.1 * np.sqrt(2), rel=0.02)


def test_nan_that_no_border_stopped_is_left_out(caplog):
    class Unjudged(InProcessGrid):
        def judge(self, _messages, replies):
            return list(replies)

    grid = Unjudged(ten_clients(first=np.nan)._client_app, 10)
    with caplog.at_level(logging.WARNING, "hedgerow"):
        found, _metrics = take_round(private("fedavg+server-fixed:clip=1,noise=0"), grid, START)
    assert np.isfinite(found["w"]).all()
    assert "NaN or infinity of node 1 is not used" in caplog.text


def test_a_node_that_comes_while_the_cohort_is_drawn_makes_it_no_larger_a_crowd():
    class Growing(InProcessGrid):
        asked = 0

        def get_node_ids(self):
            self.asked += 1
            return list(range(1, 5 + self.asked))

    grid = Growing(ten_clients()._client_app, 20)
    strategy = private("fedavg+server-fixed", fraction=0.5)
    take_round(strategy, grid, START)
    (mean,) = strategy.means
    assert mean.nodes == 5
    assert mean.asked == mean.answered == 3


def test_who_is_left_out_of_a_private_mean_does_not_depend_on_how_long_others_updates_are(tiny_task, tmp_path):
    """A rule that looks at the median would let one client's data decide whether another's update counts."""
    from flwr.app import Message, MetricRecord, RecordDict

    def app(message, context):
        sent = numpy_arrays(message.content["arrays"])
        far = np.float32(1e9 if context.node_id == 1 else 1e-3)
        arrays = array_record({name: array + far for name, array in sent.items()})
        return Message(
            RecordDict({"arrays": arrays, "metrics": MetricRecord({"loss": 1.0, "num-examples": 1})}), reply_to=message
        )

    for strategy, used in (("fedavg", 4), ("fedavg+server-fixed:clip=1", 5)):
        grid = InProcessGrid(app, 5)
        result = train_task(tiny_task, tmp_path / str(used), rounds=1, grid=grid, minimum_devices=5, strategy=strategy)
        assert result.updates == used
    assert result.history[0].privacy.answered == 5
