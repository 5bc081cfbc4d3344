"""Tests of hedgerow.server.grids.cohort: any strategy, on cohorts instead of messages."""

import dataclasses
import gc
import random

import numpy as np
import pytest

from hedgerow.server.cohort.clients import ClientSlices, RepeatedClients
from hedgerow.server.cohort.null import NullEngine
from hedgerow.server.cohort.sequential import SequentialEngine
from hedgerow.server.cohort.vectorized import VectorizedEngine
from hedgerow.server.flower import array_record, numpy_arrays
from hedgerow.server.grids.cohort import CohortGrid
from hedgerow.server.grids.in_process import InProcessGrid
from hedgerow.server.grids.judging import reply_kind
from hedgerow.server.local_steps import torch_threads
from hedgerow.server.privacy import PRIVACY
from hedgerow.server.strategies import STRATEGIES, build_strategy, mean_suffices
from hedgerow.server.training import initial_weights

pytestmark = pytest.mark.heavy

CLIENTS = 13
PRIVATE = [f"fedavg+{kind}:clip=0.1,noise=0.3" for kind in PRIVACY]


@pytest.fixture(autouse=True)
def one_thread_and_cheap_collections():
    """Models this small only wait for further threads; and some strategies collect garbage with each update."""
    gc.freeze()
    with torch_threads(1):
        yield
    gc.unfreeze()


@pytest.fixture
def data(tiny_task):
    return tiny_task.load_data()


@pytest.fixture
def clients(tiny_task, data):
    """Return unequal clients."""
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.choice(np.arange(1, len(data.train)), CLIENTS - 1, replace=False))
    return ClientSlices.of_shards(np.split(rng.permutation(len(data.train)), cuts))


def in_process(task, data, clients):
    """Return the grid that everything here must equal: our ClientApp, one client after the other."""
    from hedgerow.server.client_app import make_client_app

    class Same(type(task.partition)):
        def split(self, *_args):
            return [clients.indices(client) for client in range(len(clients))]

    object.__setattr__(task, "partition", Same())
    return InProcessGrid(make_client_app(task, data), len(clients))


def train(grid, strategy, weights, rounds=3, evaluate=True, **config):
    """Train as ``rounds.Run`` does, without a disk; return the weights and metrics after each round."""
    from flwr.app import ConfigRecord

    history = []
    for number in range(1, rounds + 1):
        random.seed(number)
        strategy.generator = np.random.default_rng(number)  # of noise, if there is any
        messages = strategy.configure_train(number, array_record(weights), ConfigRecord(config), grid)
        arrays, metrics = strategy.aggregate_train(number, grid.send_and_receive(messages))
        weights = {name: value.astype(np.float32) for name, value in numpy_arrays(arrays).items()}
        measured = None
        if evaluate:
            random.seed(number)
            asked = strategy.configure_evaluate(number, array_record(weights), ConfigRecord(config), grid)
            measured = strategy.aggregate_evaluate(number, grid.send_and_receive(asked))
        history.append((weights, metrics, measured))
    return history


@pytest.mark.parametrize("name", [*STRATEGIES, *PRIVATE])
def test_every_strategy_gives_what_it_gives_client_after_client(name, tiny_task, data, clients):
    start = initial_weights(tiny_task, 0)
    grids = [in_process(tiny_task, data, clients)]
    for engine in (SequentialEngine, VectorizedEngine):
        made = engine(tiny_task, data.train, clients)
        grids.append(CohortGrid(tiny_task, data, clients, made))
        if mean_suffices(name):
            grids.append(CohortGrid(tiny_task, data, clients, made, partial_sums=True))
    wanted, *found = (
        train(grid, build_strategy(name, clients=11, learning_rate=0.3, fraction=0.85), start, epochs=2)
        for grid in grids
    )
    assert any(np.abs(wanted[-1][0][key] - start[key]).max() > 1e-3 for key in start)
    for history in found:
        for (weights, trained, measured), (want, want_trained, want_measured) in zip(history, wanted, strict=True):
            for key, value in weights.items():
                np.testing.assert_allclose(value, want[key], atol=1e-5, rtol=0)
            assert dict(trained) == pytest.approx(dict(want_trained), abs=1e-5)
            assert dict(measured) == pytest.approx(dict(want_measured), abs=1e-5)


@pytest.mark.parametrize("kind", ["fixed", "adaptive"])
def test_clipping_is_what_flowers_own_mods_do(kind, tiny_task, data, clients):
    from flwr.clientapp import ClientApp
    from flwr.clientapp.mod import adaptiveclipping_mod, fixedclipping_mod

    inner = in_process(tiny_task, data, clients)._client_app
    app = ClientApp(mods=[adaptiveclipping_mod if kind == "adaptive" else fixedclipping_mod])

    @app.train()
    def unclipped(message, context):
        message.content["config"] = message.content["config"].copy()
        del message.content["config"]["clipping_norm"]
        return inner(message, context)

    app.evaluate()(inner)
    engine = SequentialEngine(tiny_task, data.train, clients)
    name, start = f"fedavg+client-{kind}:clip=0.1,noise=0.3", initial_weights(tiny_task, 0)
    wanted, found = (
        train(grid, strategy := build_strategy(name, clients=CLIENTS, learning_rate=0.3), start)[-1]
        + (strategy.clipping_norm,)
        for grid in (InProcessGrid(app, CLIENTS), CohortGrid(tiny_task, data, clients, engine))
    )
    for key, value in found[0].items():
        np.testing.assert_allclose(value, wanted[0][key], atol=1e-5)
    assert found[-1] == pytest.approx(wanted[-1])
    assert (found[-1] == 0.1) == (kind == "fixed")


@pytest.mark.parametrize("slices", [1, 3, 0])
@pytest.mark.parametrize("name", [name for name, spec in STRATEGIES.items() if spec.mean])
def test_fewer_replies_than_messages_weigh_as_much(name, slices, tiny_task, data, clients):
    def shifted(client):
        return 0.01 * client

    start = initial_weights(tiny_task, 0)
    whole, parts = (
        train(
            CohortGrid(
                tiny_task, data, clients, NullEngine(clients, slices=width, shift=shifted), partial_sums=partial
            ),
            build_strategy(name, clients=11, learning_rate=0.3, fraction=0.85),
            start,
        )[-1][0]
        for partial, width in ((False, 0), (True, slices))
    )
    for key, value in parts.items():
        np.testing.assert_allclose(value, whole[key], atol=1e-5)


def test_messages_with_one_content_are_one_call_of_the_engine(tiny_task, data, clients):
    engine = NullEngine(clients)
    train(
        CohortGrid(tiny_task, data, clients, engine),
        build_strategy("fedavg", clients=13, learning_rate=1),
        start(tiny_task),
        2,
    )
    assert [asked for asked, _work in engine.asked] == [tuple(range(CLIENTS))] * 2
    assert [work.round for _asked, work in engine.asked] == [1, 2]


def start(task):
    return initial_weights(task, 0)


def messages(task, nodes, kind="train", configs=None, weights=None):
    """Return one message for each node, with a content of its own around the same weights."""
    from flwr.app import ConfigRecord, Message, RecordDict

    arrays = array_record(start(task) if weights is None else weights)
    return [
        Message(RecordDict({"arrays": arrays, "config": ConfigRecord(configs[i] if configs else {})}), node, kind)
        for i, node in enumerate(nodes)
    ]


def test_messages_with_equal_configuration_are_one_cohort_and_others_another(tiny_task, data, clients):
    engine = NullEngine(clients)
    grid = CohortGrid(tiny_task, data, clients, engine)
    configs = [{"epochs": 1, "learning-rate": 0.5}, {"epochs": 2}, {"learning-rate": 0.5, "epochs": 1}]
    grid.send_and_receive(messages(tiny_task, [3, 2, 1], configs=configs))
    assert [asked for asked, _work in engine.asked] == [(0, 2), (1,)]
    assert [(work.epochs, work.learning_rate) for _asked, work in engine.asked] == [(1, 0.5), (2, 0.3)]


def test_every_key_of_the_configuration_reaches_the_engine(tiny_task, data, clients):
    engine = NullEngine(clients)
    config = {
        "server-round": 4, "seed": 5, "epochs": 6, "learning-rate": 0.7, "batch-size": 8, "optimizer": "adam",
        "momentum": 0.9, "weight-decay": 0.01, "proximal-mu": 0.2, "clipping_norm": 1.5,
    }  # fmt: skip
    CohortGrid(tiny_task, data, clients, engine).send_and_receive(messages(tiny_task, [1], configs=[config]))
    work = engine.asked[0][1]
    assert (work.round, work.seed, work.epochs, work.learning_rate, work.batch_size) == (4, 5, 6, 0.7, 8)
    assert (work.optimizer, work.momentum, work.weight_decay) == ("adam", 0.9, 0.01)
    assert (work.proximal_mu, work.clip_norm) == (0.2, 1.5)


def test_replies_are_sorted_and_say_whom_they_stand_for(tiny_task, data, clients):
    each = CohortGrid(tiny_task, data, clients, NullEngine(clients))
    replies = each.send_and_receive(messages(tiny_task, [9, 4, 12]))
    assert [each.reply_names(reply) for reply in replies] == [("3",), ("8",), ("11",)]
    sums = CohortGrid(tiny_task, data, clients, NullEngine(clients, slices=2), partial_sums=True)
    replies = sums.send_and_receive(messages(tiny_task, [9, 4, 12]))
    assert [sums.reply_names(reply) for reply in replies] == [("3", "8"), ("11",)]
    examples = [reply.content["metrics"]["num-examples"] for reply in replies]
    assert examples == [clients.size(3) + clients.size(8), clients.size(11)]


def test_two_messages_to_one_client_get_two_replies(tiny_task, data, clients):
    grid = CohortGrid(tiny_task, data, clients, NullEngine(clients))
    sent = messages(tiny_task, [2, 2, 1])
    replies = grid.send_and_receive(sent)
    assert [reply.metadata.src_node_id for reply in replies] == [1, 2, 2]
    assert len({reply.metadata.reply_to_message_id for reply in replies}) == 3


def test_updates_are_views_of_the_stacked_tensors(tiny_task, data, clients):
    replies = CohortGrid(tiny_task, data, clients, NullEngine(clients)).send_and_receive(messages(tiny_task, [1, 2]))
    first, second = (reply.content["arrays"]["weight"].numpy() for reply in replies)
    assert first.base is not None
    assert np.shares_memory(first, replies[0].content["arrays"]["weight"].numpy())
    assert not np.shares_memory(first, second)
    first += 1  # as QFedAvg does
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("partial_sums", [True, False])
def test_a_client_that_diverged_is_left_out(partial_sums, tiny_task, data, clients):
    def shift(client):
        return float("nan") if client == 2 else 1.0

    engine = NullEngine(clients, slices=3, shift=shift)
    grid = CohortGrid(tiny_task, data, clients, engine, partial_sums=partial_sums)
    replies = grid.send_and_receive(messages(tiny_task, range(1, 6)))
    failed = [reply for reply in replies if reply.has_error()]
    assert [reply.metadata.src_node_id for reply in failed] == [3]
    assert "NaN" in failed[0].error.reason
    assert sorted(name for reply in replies if reply.has_content() for name in grid.reply_names(reply)) == list("0134")
    for reply in replies:
        if reply.has_content():
            np.testing.assert_allclose(reply.content["arrays"]["bias"].numpy(), start(tiny_task)["bias"] + 1)


@pytest.mark.parametrize("slices", [0, 1, 3])
@pytest.mark.parametrize("partial_sums", [True, False])
def test_a_client_whose_update_is_absurd_is_left_out_of_the_mean_also_if_it_is_trained_alone(
    partial_sums, slices, tiny_task, data, clients
):
    engine = NullEngine(clients, slices=slices, shift=lambda client: 1e15 if client == 2 else 1.0)
    grid = CohortGrid(tiny_task, data, clients, engine, partial_sums=partial_sums)
    replies = grid.send_and_receive(messages(tiny_task, range(1, 6)))
    (failed,) = (reply for reply in replies if reply.has_error())
    assert (failed.metadata.src_node_id, reply_kind(failed)) == (3, "norm")
    assert "no longer than 300" in failed.error.reason  # a hundred medians: 100 x 1.0 x sqrt(9 numbers)
    for reply in replies:
        if reply.has_content():
            np.testing.assert_allclose(reply.content["arrays"]["bias"].numpy(), start(tiny_task)["bias"] + 1)


@pytest.mark.parametrize("partial_sums", [True, False])
def test_a_client_whose_loss_is_not_finite_is_left_out(partial_sums, tiny_task, data, clients):
    class Lossless(NullEngine):
        def _answer(self, weights, asked, *, each):
            update = super()._answer(weights, asked, each=each)
            return dataclasses.replace(update, losses=np.where(np.array(asked) == 2, np.nan, 1.0))

    grid = CohortGrid(tiny_task, data, clients, Lossless(clients), partial_sums=partial_sums)
    replies = grid.send_and_receive(messages(tiny_task, range(1, 6)))
    assert [(r.metadata.src_node_id, reply_kind(r)) for r in replies if r.has_error()] == [(3, "not finite")]
    assert all(r.content["metrics"]["loss"] == 1.0 for r in replies if r.has_content())


def test_what_cannot_be_answered_gets_a_reason(tiny_task, data, clients):
    grid = CohortGrid(tiny_task, data, clients, NullEngine(clients))

    def reason(*args, **kwargs):
        (reply,) = grid.send_and_receive(messages(tiny_task, *args, **kwargs))
        return reply.error.reason

    assert "they run no code that could answer a query" in reason([1], kind="query")
    assert reason([99]) == "there is no such client"
    assert "bias is (2,) instead of (3,)" in reason([1], weights={**start(tiny_task), "bias": np.zeros(2, np.float32)})
    assert "expected the weights of the model" in reason([1], weights={"other": np.zeros(2, np.float32)})


def test_a_client_without_samples_is_unavailable(tiny_task, data):
    empty = ClientSlices.of_shards([np.arange(5), np.arange(0)])
    replies = CohortGrid(tiny_task, data, empty, NullEngine(empty)).send_and_receive(messages(tiny_task, [1, 2]))
    assert [reply.has_error() for reply in replies] == [False, True]
    with pytest.raises(ValueError, match="at least one"):
        CohortGrid(
            tiny_task, data, ClientSlices.of_shards([]) if False else RepeatedClients(empty, 0), NullEngine(empty)
        )


def test_float64_weights_of_server_optimizers_are_narrowed(tiny_task, data, clients):
    wide = {name: value.astype(np.float64) for name, value in start(tiny_task).items()}
    (reply,) = CohortGrid(tiny_task, data, clients, NullEngine(clients)).send_and_receive(
        messages(tiny_task, [1], weights=wide)
    )
    assert reply.content["arrays"]["weight"].numpy().dtype == np.float32


def test_a_million_clients_are_listed_without_being_made(tiny_task, data, clients):
    many = RepeatedClients(clients, 1_000_000)
    grid = CohortGrid(tiny_task, data, many, NullEngine(many), partial_sums=True)
    strategy = build_strategy("fedavg", clients=20, learning_rate=0.3, fraction=2e-5)
    weights = train(grid, strategy, start(tiny_task), rounds=1, evaluate=False)[-1][0]
    np.testing.assert_allclose(weights["weight"], start(tiny_task)["weight"], atol=1e-6)
    assert grid.get_node_ids() is grid.get_node_ids()
    assert (grid.kind, grid.node_name(1_000_000)) == ("cohort", "999999")


def test_a_message_may_correct_the_gradients_of_its_client_alone(tiny_task, data, clients):
    from flwr.app import Message, RecordDict

    sent = messages(tiny_task, [1, 2, 3])
    arrays = sent[0].content["arrays"]
    correction = array_record({name: np.full_like(value, 0.25) for name, value in start(tiny_task).items()})
    mixed = [sent[0], Message(RecordDict({**sent[1].content, "correction": correction}), 2, "train"), sent[2]]
    mixed = [Message(RecordDict({**m.content, "arrays": arrays}), m.metadata.dst_node_id, "train") for m in mixed]
    engine = SequentialEngine(tiny_task, data.train, clients)
    plain, corrected = (
        [reply.content for reply in CohortGrid(tiny_task, data, clients, engine).send_and_receive(each)]
        for each in (sent, mixed)
    )
    for row in (0, 2):
        np.testing.assert_array_equal(plain[row]["arrays"]["bias"].numpy(), corrected[row]["arrays"]["bias"].numpy())
    assert not np.allclose(plain[1]["arrays"]["bias"].numpy(), corrected[1]["arrays"]["bias"].numpy())
    assert corrected[1]["metrics"]["steps"] == -(-clients.size(1) // 8)
    assert "steps" not in corrected[0]["metrics"]


def test_cohorts_of_one_answer_do_not_write_over_each_other(tiny_task, data, clients):
    class Reusing(NullEngine):
        """As WorkersEngine, whose results lie in memory that the next call fills."""

        def __init__(self, clients):
            super().__init__(clients)
            self.memory = {}

        def train(self, weights, asked, work, *, each, corrections=None):
            for update in super().train(weights, asked, work, each=each, corrections=corrections):
                for name, stack in update.each.items():
                    held = self.memory.setdefault(name, stack)
                    held[: len(stack)] = stack + work.epochs
                yield dataclasses.replace(update, each={name: held[:1] for name, held in self.memory.items()})

    grid = CohortGrid(tiny_task, data, clients, Reusing(clients))
    replies = grid.send_and_receive(messages(tiny_task, [1, 2], configs=[{"epochs": 1}, {"epochs": 2}]))
    for reply, shift in zip(replies, (1, 2), strict=True):
        np.testing.assert_allclose(reply.content["arrays"]["bias"].numpy(), start(tiny_task)["bias"] + shift)


def test_a_metric_that_only_some_clients_have_is_the_mean_over_their_samples():
    from hedgerow.server.evaluation import Evaluator
    from hedgerow.task import TaskData
    from tests.output_tasks import TASKS

    task = TASKS["reconstruction"]
    known = task.load_data()
    judged = np.full(60, -1)
    judged[:20] = 0
    train = dataclasses.replace(known.train.take(np.arange(60)), target_values=judged)
    data = TaskData(train, known.held_out)
    shards = [np.arange(20), np.arange(20, 60)]
    two = ClientSlices.of_shards(shards)
    weights = initial_weights(task, 0)

    grid = CohortGrid(task, data, two, NullEngine(two), partial_sums=True)
    (reply,) = grid.send_and_receive(messages(task, [1, 2], kind="evaluate", weights=weights))

    one, other = (Evaluator(task, train.take(shard)).measure(weights) for shard in shards)
    assert set(other) == {"loss"}
    metrics = reply.content["metrics"]
    assert metrics["score"] == pytest.approx(one["score"])
    assert metrics["loss"] == pytest.approx((one["loss"] + 2 * other["loss"]) / 3)
