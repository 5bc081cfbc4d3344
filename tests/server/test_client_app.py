"""Tests of hedgerow.server.client_app."""

import numpy as np
import pytest

from hedgerow.local_work import LocalWork
from hedgerow.server.client_app import Partitions, make_client_app
from hedgerow.server.flower import array_record, numpy_arrays, set_message_id
from hedgerow.server.local_steps import LocalTrainer
from hedgerow.server.training import initial_weights

pytestmark = pytest.mark.heavy


def send(app, kind, arrays, partition=1, partitions=4, **config):
    """Send one message to a node and return its reply's content."""
    from flwr.app import ConfigRecord, Context, Message, RecordDict

    content = RecordDict({"arrays": array_record(arrays), "config": ConfigRecord(config)})
    message = Message(content, 2, kind)
    set_message_id(message, "1")
    node_config = {"partition-id": partition, "num-partitions": partitions}
    context = Context(run_id=1, node_id=2, node_config=node_config, state=RecordDict(), run_config={})
    return app(message, context).content


def test_shards_share_all_samples_and_are_the_same_for_the_same_seed(tiny_task):
    data = tiny_task.load_data()
    shards = [Partitions(tiny_task, data, 3).shard(i, 4) for i in range(4)]
    assert sum(len(shard) for shard in shards) == len(data.train)
    again = Partitions(tiny_task, data, 3).shard(2, 4)
    np.testing.assert_array_equal(again.inputs["point"], shards[2].inputs["point"])


def test_a_train_message_is_answered_with_the_steps_it_asks_for(tiny_task):
    data, weights = tiny_task.load_data(), initial_weights(tiny_task, 0)
    app = make_client_app(tiny_task, data, seed=3)
    content = send(app, "train", weights, epochs=2, **{"learning-rate": 0.05, "seed": 3, "server-round": 4})
    shard = Partitions(tiny_task, data, 3).shard(1, 4)
    work = LocalWork(epochs=2, learning_rate=0.05, batch_size=8, seed=3, round=4, client="1")
    wanted, loss = LocalTrainer(tiny_task).train(weights, shard, work)

    for name, value in numpy_arrays(content["arrays"]).items():
        np.testing.assert_array_equal(value, wanted[name])
    assert dict(content["metrics"]) == {"loss": loss, "num-examples": 50}


def test_an_evaluate_message_is_answered_with_metrics_of_the_clients_samples(tiny_task):
    app = make_client_app(tiny_task, tiny_task.load_data())
    metrics = send(app, "evaluate", initial_weights(tiny_task, 0))["metrics"]
    assert set(metrics) == {"loss", "accuracy", "num-examples"}
    assert 0 <= metrics["accuracy"] <= 1


def test_a_clipping_norm_is_kept_and_answered(tiny_task):
    data, weights = tiny_task.load_data(), initial_weights(tiny_task, 0)
    app = make_client_app(tiny_task, data)
    free = numpy_arrays(send(app, "train", weights)["arrays"])
    norm = np.sqrt(sum(((free[name] - weights[name]) ** 2).sum() for name in weights))
    for share, bit in ((0.5, 1), (2.0, 0)):
        content = send(app, "train", weights, clipping_norm=float(norm * share))
        assert content["metrics"]["norm_bit"] == bit
        clipped = numpy_arrays(content["arrays"])
        for name, value in clipped.items():
            wanted = weights[name] + (free[name] - weights[name]) * min(1.0, share)
            np.testing.assert_allclose(value, wanted, atol=1e-6)


def test_settings_of_simulations_reach_the_steps(tiny_task):
    data, weights = tiny_task.load_data(), initial_weights(tiny_task, 0)
    app = make_client_app(tiny_task, data)
    config = {"optimizer": "adam", "batch-size": 4, "weight-decay": 0.1, "seed": 0, "server-round": 1}
    content = send(app, "train", weights, **config)
    shard = Partitions(tiny_task, data, 0).shard(1, 4)
    work = LocalWork(epochs=1, learning_rate=0.3, batch_size=4, seed=0, client="1", optimizer="adam", weight_decay=0.1)
    wanted, _loss = LocalTrainer(tiny_task).train(weights, shard, work)
    for name, value in numpy_arrays(content["arrays"]).items():
        np.testing.assert_array_equal(value, wanted[name])
