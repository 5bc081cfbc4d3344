"""A round over a broker in memory: the service runs in its thread, devices answer in theirs."""

import hashlib
import threading

import numpy as np
import pytest

from hedgerow.fleet.errors import TrainingRoundError
from hedgerow.fleet.retrain.wire_round import TrainingExchange, WireRoundTransport
from hedgerow.local_work import LocalWork
from hedgerow.manifest.content import Blob
from hedgerow.server.grids.transport import RoundWork
from hedgerow.weights import decode_arrays, encode_arrays
from hedgerow.wire.training import TrainUpdate
from tests.fleet.virtual_fleet import TARGETS, VirtualFleet

WEIGHTS = {"w": np.arange(4, dtype=np.float32)}


def make_work(devices, *, number=1, deadline_s=5.0):
    return RoundWork(
        run="run-1",
        weights=WEIGHTS,
        devices=tuple(devices),
        local=LocalWork(epochs=1, learning_rate=0.1, batch_size=16, round=number),
        deadline_s=deadline_s,
    )


class TrainingFleet:
    """Devices whose rounds are scripted, by name."""

    def __init__(self, folder, scripts, deliver=None):
        self.exchange = TrainingExchange()
        self.tasks = []
        self.fleet = VirtualFleet(folder, devices=0, tick_s=0.01, deliver=deliver)
        for name, script in scripts.items():
            self.fleet.add_device(
                name, TARGETS[0], release="toy@1", train=lambda t, n=name, s=script: self._train(t, n, s)
            )
        self.fleet.settle()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live)

    def __enter__(self):
        self.fleet.service.start()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self.fleet.service.stop()

    def _live(self):
        while not self._stop.is_set():
            for device in list(self.fleet.devices.values()):
                device.turn()
            self._stop.wait(0.005)

    def _train(self, task, name, script):
        self.tasks.append((name, task))
        return script(self.exchange, task, name)

    def transport(self):
        return WireRoundTransport(self.fleet.service, self.exchange, "toy@1")


def trains(exchange, task, name, *, announced=None, changed=None):
    weights = decode_arrays(exchange.weights(task.run, task.round, task.token), "weights", limit_bytes=10**6)
    payload = encode_arrays(changed or {key: value + 1 for key, value in weights.items()})
    exchange.accept(task.run, task.round, name, task.token, payload)
    blob = Blob(announced or hashlib.sha256(payload).hexdigest(), len(payload))
    return TrainUpdate(run=task.run, round=task.round, state="done", examples=7, metrics={"loss": 0.5}, weights=blob)


def declines(_exchange, task, _name):
    return TrainUpdate(run=task.run, round=task.round, state="declined", reason="3 samples, 10 wanted")


def test_a_round_brings_one_answer_for_each_device_sorted_by_name(tmp_path):
    with TrainingFleet(tmp_path, {"c": declines, "a": trains, "b": trains}) as fleet:
        transport = fleet.transport()
        assert transport.devices() == ["a", "b", "c"]
        updates = transport.run_round(make_work(["a", "b", "c"]))
    assert [(update.device, update.state) for update in updates] == [("a", "done"), ("b", "done"), ("c", "declined")]
    np.testing.assert_array_equal(updates[0].weights["w"], WEIGHTS["w"] + 1)
    assert (updates[0].examples, updates[0].metrics, updates[2].reason) == (7, {"loss": 0.5}, "3 samples, 10 wanted")
    assert fleet.tasks[0][1].weights.length_bytes == len(encode_arrays(WEIGHTS))
    assert not fleet.exchange._rounds


def test_only_online_devices_that_run_the_release_take_part(tmp_path):
    with TrainingFleet(tmp_path, {"a": trains, "b": trains}) as fleet:
        fleet.fleet.add_device("other", TARGETS[0], release="toy@2")
        fleet.fleet.broker.break_link("b")
        transport = fleet.transport()
        for _ in range(500):
            if transport.devices() == ["a"] and len(fleet.fleet.service.devices()) == 3:
                break
            threading.Event().wait(0.01)
        assert transport.devices() == ["a"]


def test_what_a_device_sent_is_brought_as_it_is_and_judged_by_the_grid(tmp_path):
    from hedgerow.server.replies import Kind, ReplyContents, ReplyLimits, judge_answers

    def other(exchange, task, name):
        return trains(exchange, task, name, changed={"w": np.full(4, np.nan, dtype=np.float32)})

    work = make_work(["a"])
    with TrainingFleet(tmp_path, {"a": other}) as fleet:
        (update,) = fleet.transport().run_round(work)
    assert update.state == "done"
    (refusal,) = judge_answers([ReplyContents([update.weights], [{"num-examples": 1}])], work.weights, ReplyLimits())
    assert refusal.kind == Kind.NOT_FINITE


def test_bytes_that_are_no_weights_are_a_failed_answer(tmp_path):
    def damaged(exchange, task, name):
        payload = b"no weights"
        exchange.accept(task.run, task.round, name, task.token, payload)
        blob = Blob(hashlib.sha256(payload).hexdigest(), len(payload))
        return TrainUpdate(run=task.run, round=task.round, state="done", examples=10, weights=blob)

    with TrainingFleet(tmp_path, {"a": damaged}) as fleet:
        (update,) = fleet.transport().run_round(make_work(["a"]))
    assert (update.state, update.weights) == ("failed", None)
    assert "a safetensors document" in update.reason


def test_a_device_whose_bytes_are_not_those_it_announced_times_out(tmp_path):
    def lies(exchange, task, name):
        return trains(exchange, task, name, announced="0" * 64)

    with TrainingFleet(tmp_path, {"a": lies, "b": trains}) as fleet:
        first, second = fleet.transport().run_round(make_work(["a", "b"], deadline_s=0.5))
    assert (first.state, first.weights, second.state) == ("timed out", None, "done")


def test_a_device_that_comes_back_gets_its_task_again(tmp_path):
    lost = threading.Event()

    def deliver(_to, topic, _payload):
        if topic.endswith("/a/train") and not lost.is_set():
            lost.set()
            return 0
        return 1

    with TrainingFleet(tmp_path, {"a": trains}, deliver=deliver) as fleet:
        work = make_work(["a"], deadline_s=4.0)

        def reboot():
            assert lost.wait(timeout=10)
            device = fleet.fleet.devices["a"]
            fleet.fleet.broker.break_link("a")
            fleet.fleet.broker.mend_link(device.link)

        rebooting = threading.Thread(target=reboot)
        rebooting.start()
        (update,) = fleet.transport().run_round(work)
        rebooting.join()
    assert lost.is_set()
    assert update.state == "done"
    assert len(fleet.tasks) == 1


@pytest.mark.parametrize("silent", [True, False])
def test_silence_ends_with_the_deadline(tmp_path, silent):
    deliver = (lambda _to, topic, _payload: 0 if topic.endswith("train") else 1) if silent else None
    with TrainingFleet(tmp_path, {"a": trains}, deliver=deliver) as fleet:
        (update,) = fleet.transport().run_round(make_work(["a"], deadline_s=0.3))
    assert update.state == ("timed out" if silent else "done")


def test_devices_whose_world_changed_are_told_how_old_a_label_may_be_in_every_round(tmp_path):
    changes = [{"a": 940.0}, {"a": 940.0, "b": 1100.0}]
    with TrainingFleet(tmp_path, {"a": trains, "b": trains}) as fleet:
        transport = WireRoundTransport(
            fleet.fleet.service, fleet.exchange, "toy@1", changes=lambda: changes.pop(0), wall_clock=lambda: 1000.0
        )
        transport.run_round(make_work(["a", "b"]))
        first = {name: task.maximum_age_s for name, task in fleet.tasks}
        fleet.tasks.clear()
        transport.run_round(make_work(["a", "b"], number=2))
    assert first == {"a": 60.0, "b": None}
    assert {name: task.maximum_age_s for name, task in fleet.tasks} == {"a": 60.0, "b": 0.0}


@pytest.fixture
def exchange():
    return TrainingExchange()


def came_whole(exchange, payload):
    """Whether the update of the device a in round 1 of the run r is this one."""
    return exchange.update("r", 1, "a", hashlib.sha256(payload).hexdigest()) == payload


def refusal(function, *arguments):
    with pytest.raises(TrainingRoundError) as caught:
        function(*arguments)
    return caught.value.status


def test_each_device_has_a_token_of_its_own_that_goes_with_the_round(exchange):
    came = []
    tokens = exchange.open_round("r", 1, b"weights", ["a", "b"], came.append)
    assert len(set(tokens.values())) == 2
    assert exchange.weights("r", 1, tokens["a"]) == b"weights"
    assert exchange.has_fetched("r", 1, "a")
    assert not exchange.has_fetched("r", 1, "b")
    exchange.accept("r", 1, "a", tokens["a"], b"new")
    assert came_whole(exchange, b"new")
    assert came == ["a"]
    exchange.close_round("r", 1)
    assert refusal(exchange.weights, "r", 1, tokens["a"]) == 404
    assert not came_whole(exchange, b"new")


def test_tokens_of_others_are_refused(exchange):
    tokens = exchange.open_round("r", 1, b"weights", ["a", "b"], lambda _device: None)
    later = exchange.open_round("r", 2, b"weights", ["a"], lambda _device: None)
    assert refusal(exchange.weights, "r", 1, "guess") == 401
    assert refusal(exchange.weights, "r", 1, later["a"]) == 401
    assert refusal(exchange.accept, "r", 1, "a", tokens["b"], b"x") == 401
    assert refusal(exchange.accept, "r", 1, "nobody", tokens["a"], b"x") == 401
    assert refusal(exchange.begin, "r", 1, "a", tokens["b"]) == 401


def test_an_update_is_not_much_longer_than_the_weights(exchange):
    tokens = exchange.open_round("r", 1, b"w" * 1000, ["a"], lambda _device: None)
    limit_bytes = exchange.begin("r", 1, "a", tokens["a"]).limit_bytes
    assert 1000 < limit_bytes < 100_000
    assert refusal(exchange.accept, "r", 1, "a", tokens["a"], b"x" * (limit_bytes + 1)) == 413


def test_no_token_is_kept(exchange):
    tokens = exchange.open_round("r", 1, b"weights", ["a"], lambda _device: None)
    kept = repr(exchange._rounds["r", 1])
    assert tokens["a"] not in kept


def test_half_an_update_gives_way_to_the_next_one_and_goes_with_the_round(exchange):
    tokens = exchange.open_round("r", 1, b"weights", ["a"], lambda _device: None)
    first = exchange.begin("r", 1, "a", tokens["a"])
    first.add(b"ha")
    second = exchange.begin("r", 1, "a", tokens["a"])
    assert refusal(first.add, b"lf") == 409
    second.add(b"whole")
    exchange.finish("r", 1, "a", second)
    assert came_whole(exchange, b"whole")
    assert refusal(exchange.finish, "r", 1, "a", first) == 409
    third = exchange.begin("r", 1, "a", tokens["a"])
    exchange.close_round("r", 1)
    assert refusal(third.add, b"late") == 409
    assert refusal(exchange.finish, "r", 1, "a", third) == 404


def test_an_update_keeps_nothing_once_it_was_refused(exchange):
    tokens = exchange.open_round("r", 1, b"weights", ["a"], lambda _device: None)
    upload = exchange.begin("r", 1, "a", tokens["a"])
    upload.add(b"x" * upload.limit_bytes)
    assert refusal(upload.add, b"x") == 413
    assert refusal(upload.take) == 409
    assert not came_whole(exchange, b"x" * upload.limit_bytes)
