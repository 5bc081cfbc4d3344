"""The agent end to end: a broker in memory, a signed repository on loopback, a linear model."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hedgerow.client.agent import Agent
from hedgerow.client.errors import InstallError
from hedgerow.client.presence import presence_will
from hedgerow.client.runtimes.linear import LINEAR, LinearRuntime, load_linear
from hedgerow.client.settings import AgentSettings
from hedgerow.client.slot_folders import SlotFolders
from hedgerow.client.slots import Slots
from hedgerow.client.source import Sample, SourceContext
from hedgerow.client.start_up import load_active
from hedgerow.client.state_folder import StateFile
from hedgerow.client.trial import DirectTrials
from hedgerow.link import Message
from hedgerow.manifest.content import Blob
from hedgerow.memory_link import MemoryBroker, MemoryLink
from hedgerow.weights import decode_arrays, encode_arrays
from hedgerow.wire.device import Desired, Presence, Reported
from hedgerow.wire.execution import Execution, ExecutionState
from hedgerow.wire.telemetry import Telemetry
from hedgerow.wire.topics import Channel, device_topic, parse_topic
from hedgerow.wire.training import TrainTask, TrainUpdate
from tests.client.deadly_runtimes import load_deadly
from tests.processes import wait_until
from tests.scores import compared, known_and_right

KINDS = {
    Channel.REPORTED: Reported,
    Channel.PRESENCE: Presence,
    Channel.EXECUTION: Execution,
    Channel.TELEMETRY: Telemetry,
    Channel.UPDATE: TrainUpdate,
}


class Bench:
    """A fleet side that listens to everything, and agents to start and stop."""

    def __init__(self, folder: Path, url: str, root: Path) -> None:
        self.folder, self.url, self.root = folder, url, root
        self.broker = MemoryBroker()
        self.ear = self.broker.connect("fleet")
        self.ear.subscribe("hedgerow/v1/f/#")
        self.heard: list = []

    def settings(self, **changes) -> AgentSettings:
        values = {
            "device": "d1",
            "fleet": "f",
            "target": "bench",
            "broker_host": "localhost",
            "broker_port": 1883,
            "server": self.url,
            "trusted_root": self.root,
            "state_folder": self.folder / "state",
            "window_samples": 10,
            "healthy_after_s": 0.05,
        }
        return AgentSettings(**{**values, **changes})

    @contextlib.contextmanager
    def running(self, source=None, *, sinks=(), clocks=None, **changes) -> Iterator[tuple[Agent, MemoryLink]]:
        settings = self.settings(**changes)
        link = self.broker.connect("d1", will=presence_will(settings, "boot"))
        trials = DirectTrials(load_linear)
        agent = Agent(settings, link, source, sinks=sinks, runtimes=load_linear, trials=trials, **(clocks or {}))
        thread = threading.Thread(target=agent.run)
        thread.start()
        try:
            yield agent, link
        finally:
            agent.stop()
            started = time.monotonic()
            thread.join(5)
            assert time.monotonic() - started < 2, "stopping takes less than two seconds"

    def send(self, channel: Channel, message, *, retain: bool = False) -> None:
        self.broker.route(device_topic("f", "d1", channel), message.encode(), retain=retain)

    def want(self, version: int, release: str | None, *, rollout: str | None = "r1", compare: bool = False) -> None:
        desired = Desired(version=version, release=release, rollout=rollout, attempt=1, compare=compare)
        self.send(Channel.DESIRED, desired, retain=True)

    def listen(self, timeout_s: float = 0.0) -> None:
        while (event := self.ear.receive(timeout_s)) is not None:
            timeout_s = 0.0
            place = parse_topic(event.topic) if isinstance(event, Message) else None
            if place is not None and place[2] in KINDS:
                self.heard.append(KINDS[place[2]].decode(event.payload))

    def wait(self, condition: Callable[[object], bool], timeout_s: float = 5.0):
        """Return the first message that fulfils *condition* and forget those before it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.listen(0.02)
            for index, message in enumerate(self.heard):
                if condition(message):
                    del self.heard[: index + 1]
                    return message
        pytest.fail(f"not heard; heard {self.heard}")

    def slots(self) -> Slots:
        """What the device's disk says of its slots."""
        return SlotFolders(self.folder / "state", "bench").state

    def windows_kept(self) -> int:
        """How many windows lie on the device's disk and wait."""
        return len(list((self.folder / "state" / "spool").glob("*.json")))

    def wait_for(self, kind: type, **facts):
        return self.wait(
            lambda message: isinstance(message, kind) and all(getattr(message, k) == v for k, v in facts.items())
        )


@pytest.fixture
def bench(tmp_path, repository, fleet) -> Bench:
    return Bench(tmp_path, fleet.url, repository.trusted_root)


def zeros(context: SourceContext) -> Iterator[Sample]:
    """Serve zeros labelled 0, forever, a thousand a second."""
    while True:
        yield Sample({"x": np.zeros(4, dtype=np.float32)}, 0)
        time.sleep(0.001)


def learner(context: SourceContext) -> Iterator[Sample]:
    """Forty samples to learn from."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        label = int(rng.integers(3))
        yield Sample({"x": (np.eye(4, dtype=np.float32)[label] * 2)}, label, "learn")
        yield Sample({"x": rng.normal(size=4).astype(np.float32)}, label, "learn")


def test_a_desired_release_is_installed_reported_and_served(bench, repository, release):
    repository.add(release(1))
    with bench.running(zeros):
        assert bench.wait_for(Presence).online
        assert bench.wait_for(Reported).release is None
        bench.want(1, "demo@1")
        steps = []
        while True:
            message = bench.wait_for(Execution)
            if message.state is not ExecutionState.IN_PROGRESS:
                break
            steps.append(message.step)
        assert message.state is ExecutionState.SUCCEEDED
        assert steps == ["", "verify", "download", "unpack", "load", "replay", "swap", "commit"]
        window = bench.wait_for(Telemetry).window
        assert (window.release, window.samples, *known_and_right(window.scores)) == ("demo@1", 10, 10, 10)


def test_an_agent_goes_by_the_clocks_that_it_is_given(bench, repository, release):
    repository.add(release(1))
    repository.add(release(2))
    told = SimpleNamespace(unix=float(int(time.time())), rising=100.0)
    clocks = {"clock": lambda: told.unix, "timer": lambda: told.rising}
    with bench.running(zeros, clocks=clocks, healthy_after_s=5.0) as (agent, _):
        bench.want(1, "demo@1")
        for _ in range(3):
            window = bench.wait_for(Telemetry).window
            assert (window.started_at, window.ended_at, window.latency[0]) == (told.unix, told.unix, 10)
        told.rising += 4.9
        bench.wait_for(Telemetry)
        assert [m for m in bench.heard if isinstance(m, Execution) and m.state is ExecutionState.SUCCEEDED] == []
        told.rising += 0.1
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)

        told.unix += 2 * 86400
        bench.want(2, "demo@2", rollout="r2")
        failed = bench.wait_for(Execution, rollout="r2", state=ExecutionState.FAILED)
        assert "expired" in failed.reason
        assert agent.active.release == "demo@1"


def test_a_rollback_goes_back_without_the_server(bench, repository, fleet, release):
    repository.add(release(1))
    repository.add(release(2))
    with bench.running():
        bench.want(1, "demo@1")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)
        bench.want(2, "demo@2", rollout="r2")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED, rollout="r2")
        asked = len(fleet.requests)
        bench.want(3, "demo@1", rollout=None)
        reported = bench.wait_for(Reported, release="demo@1", desired_version=3)
        assert reported.previous == "demo@2"
        assert len(fleet.requests) == asked


def test_the_model_before_is_compared_on_the_same_inputs(bench, repository, release):
    repository.add(release(1))
    repository.add(release(2))
    with bench.running(zeros):
        bench.want(1, "demo@1")
        bench.wait_for(Telemetry)
        bench.want(2, "demo@2", compare=True)
        window = bench.wait(lambda m: isinstance(m, Telemetry) and m.window.paired.change.samples > 0).window
        assert window.release == "demo@2"
        _, disagreed, only_new, only_old = compared(window.paired)
        assert (only_old, only_new) == (disagreed, 0) == (window.paired.change.samples, 0)


def test_the_active_release_is_served_without_broker_and_server(bench, repository, release):
    repository.add(release(1))
    with bench.running():
        bench.want(1, "demo@1")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)
    with bench.running(zeros, server="http://127.0.0.1:9") as (agent, link):
        bench.broker.break_link("d1")
        wait_until(lambda: agent.active.release == "demo@1" and bench.windows_kept() > 0)
        bench.listen()
        bench.heard.clear()
        bench.broker.mend_link(link)
        assert bench.wait_for(Presence).online
        assert bench.wait_for(Reported).release == "demo@1"
        assert bench.wait_for(Execution).state is ExecutionState.SUCCEEDED
        assert bench.wait_for(Telemetry).window.release == "demo@1"


def test_wrong_hardware_is_rejected_and_a_corrupted_artifact_fails(bench, repository, release, corrupt):
    repository.add(release(1, target="other"))
    corrupted = release(2)
    repository.add(corrupted)
    corrupt(repository, corrupted)
    with bench.running():
        bench.want(1, "demo@1")
        rejected = bench.wait(lambda m: isinstance(m, Execution) and m.state.is_terminal)
        assert rejected.state is ExecutionState.REJECTED
        assert "bench" in rejected.reason
        bench.want(2, "demo@2")
        failed = bench.wait(lambda m: isinstance(m, Execution) and m.state.is_terminal)
        assert failed.state is ExecutionState.FAILED
        assert "SHA-256" in failed.reason


def test_versions_that_were_seen_are_ignored_also_after_a_restart(bench, repository, fleet, release):
    repository.add(release(1))
    repository.add(release(2))
    with bench.running():
        bench.want(5, "demo@1")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)
    asked = len(fleet.requests)
    with bench.running():
        bench.want(4, "demo@2")
        bench.want(5, "demo@1")
        assert bench.wait_for(Reported).desired_version == 5
        # Messages are taken in order: who answers this one has taken those before.
        bench.send(Channel.TRAIN, train_task(1, b""))
        assert bench.wait_for(TrainUpdate).state == "declined"
    assert len(fleet.requests) == asked


def test_messages_that_are_not_ours_or_not_messages_change_nothing(bench, repository, release):
    repository.add(release(1))
    with bench.running() as (_, link):
        bench.wait_for(Reported)
        link.put(Message(device_topic("f", "d2", Channel.DESIRED), Desired(version=9, release="demo@9").encode()))
        link.put(Message("something/else", b"x"))
        link.put(Message(device_topic("f", "d1", Channel.DESIRED), b"{"))
        link.put(Message(device_topic("f", "d1", Channel.TRAIN), b"\xff"))
        bench.want(1, "demo@1")
        assert bench.wait_for(Reported).release == "demo@1"
        assert len(link.acknowledged) == 5


def test_serving_goes_on_while_a_release_is_fetched(bench, repository, fleet, release):
    repository.add(release(1))
    repository.add(release(2))
    with bench.running(zeros):
        bench.want(1, "demo@1")
        bench.wait_for(Telemetry)
        fleet.is_open.clear()
        bench.want(2, "demo@2", rollout="r2")
        bench.wait_for(Execution, rollout="r2", step="verify")
        for _ in range(3):
            assert bench.wait_for(Telemetry).window.release == "demo@1"
        fleet.is_open.set()
        bench.wait_for(Execution, rollout="r2", state=ExecutionState.SUCCEEDED)
        partial = bench.wait(lambda m: isinstance(m, Telemetry) and m.window.release == "demo@2").window
        assert partial.samples == 10


def test_a_download_in_progress_does_not_hold_up_stopping(bench, repository, fleet, release):
    repository.add(release(1))
    fleet.is_open.clear()
    with bench.running(zeros):
        bench.want(1, "demo@1")
        bench.wait_for(Execution, step="verify")
    fleet.is_open.set()
    with bench.running():
        assert bench.wait_for(Execution, state=ExecutionState.SUCCEEDED).rollout == "r1"


def test_a_source_that_fails_is_named_to_the_fleet_and_called_again(bench, repository, release):
    calls = []

    def broken(context):
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise RuntimeError("the cable came off")
        yield from zeros(context)

    repository.add(release(1))
    with bench.running(broken):
        assert bench.wait_for(Reported, problems=("source: RuntimeError",)).release is None
        bench.want(1, "demo@1")
        assert bench.wait_for(Reported, release="demo@1", desired_version=1)
        assert bench.wait_for(Telemetry).window.scores.total == 10
    assert len(calls) == 2
    assert calls[1] - calls[0] >= 1


def test_a_sample_that_does_not_fit_is_named_to_the_fleet_and_the_next_ones_are_served(bench, repository, release):
    def odd(context):
        while True:
            for _ in range(3):
                yield Sample({"x": np.zeros(5, dtype=np.float32)})
            yield Sample({"x": np.zeros(4, dtype=np.float32)}, 0)
            time.sleep(0.001)

    repository.add(release(1))
    with bench.running(odd):
        bench.want(1, "demo@1")
        reported = bench.wait(lambda m: isinstance(m, Reported) and m.problems)
        assert reported.problems == ("sample: x: expected the shape (batch, 4), found (1, 5)",)
        assert bench.wait_for(Telemetry).window.samples == 10


def test_answers_reach_the_source_and_the_sinks(bench, repository, release):
    answers, sunk = [], []

    def asking(context):
        while True:
            answers.append((yield Sample({"x": np.zeros(4, dtype=np.float32)}, 0)))
            time.sleep(0.001)

    repository.add(release(1))
    with bench.running(asking, sinks=[sunk.append]):
        bench.want(1, "demo@1")
        bench.wait_for(Telemetry)
    given = [answer for answer in answers if answer is not None]
    assert answers[0] is None, "nothing was installed yet"
    assert {(answer.release, answer.label) for answer in given} == {("demo@1", "a")}
    assert sunk[: len(given) - 1] == given[: len(sunk)][: len(given) - 1]


def test_a_disk_that_fills_up_costs_windows_and_nothing_else(bench, repository, release, monkeypatch):
    repository.add(release(1))
    with bench.running(zeros) as (agent, _):
        bench.want(1, "demo@1")
        bench.wait_for(Telemetry)

        def full(_message):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(agent._spool, "put", full)
        reported = bench.wait(lambda m: isinstance(m, Reported) and m.problems)
        assert reported.problems == ("windows: OSError: No space left on device",)
        monkeypatch.undo()
        before = bench.wait_for(Telemetry)
        assert before.window.release == "demo@1"
        close = agent._buffer.close
        monkeypatch.setattr(agent._buffer, "close", lambda: (close(), full(None)))
    # And an orderly stop stays one.
    assert bench.wait_for(Presence, online=False)
    with bench.running(zeros):
        assert bench.wait_for(Reported).release == "demo@1"


def test_a_state_that_could_not_be_written_is_written_when_there_is_room(bench, repository, release, monkeypatch):
    monkeypatch.setattr("hedgerow.client.state_keeper._SAVE_AGAIN_S", 0.05)
    repository.add(release(1))
    with bench.running(zeros) as (agent, _):
        agent.health._timer = lambda: 100 * time.monotonic()
        save, is_full = StateFile.save, [True]

        def limited(file, state):
            if is_full:
                raise OSError(28, "No space left on device")
            return save(file, state)

        monkeypatch.setattr(StateFile, "save", limited)
        bench.want(1, "demo@1")
        bench.wait_for(Reported, problems=("state: OSError: No space left on device",))
        bench.wait_for(Telemetry)
        assert not (bench.folder / "state" / "agent.json").exists()
        is_full.clear()
        bench.wait_for(Reported, problems=(), release="demo@1")
    assert b"demo@1" in (bench.folder / "state" / "agent.json").read_bytes()


def test_no_release_wanted_stops_serving_and_keeps_the_slot(bench, repository, release):
    repository.add(release(1))
    with bench.running(zeros) as (agent, _):
        bench.want(1, "demo@1")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)
        bench.want(2, None, rollout=None)
        reported = bench.wait_for(Reported, release=None)
        assert reported.previous == "demo@1"
        assert agent.active.release is None


def train_task(round_number: int, weights: bytes, **changes) -> TrainTask:
    values = {
        "run": "run-1",
        "round": round_number,
        "release": "demo@1",
        "weights": Blob(hashlib.sha256(weights).hexdigest(), len(weights)),
        "token": "t0ken",
        "epochs": 2,
        "learning_rate": 0.5,
        "seed": 0,
        "minimum_samples": 3,
        "deadline_s": 30.0,
    }
    return TrainTask(**{**values, **changes})


def test_a_round_is_trained_once_and_answered_as_often_as_asked(bench, repository, fleet, release):
    repository.add(release(1))
    given = {"weight": np.zeros((4, 3), np.float32), "bias": np.zeros(3, np.float32), "steps": np.arange(2)}
    weights = encode_arrays(given)
    fleet.weights["/v1/training/run-1/1/weights"] = weights
    with bench.running(learner):
        bench.want(1, "demo@1")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)
        bench.send(Channel.TRAIN, train_task(1, weights))
        first = bench.wait_for(TrainUpdate)
        bench.send(Channel.TRAIN, train_task(1, weights))
        assert bench.wait_for(TrainUpdate) == first
        bench.send(Channel.TRAIN, train_task(2, weights, minimum_samples=5000))
        declined = bench.wait_for(TrainUpdate, round=2)
        bench.send(Channel.TRAIN, train_task(3, weights, release="demo@7"))
        unknown = bench.wait_for(TrainUpdate, round=3)
    # Forty of the eighty samples are repeats of three.
    assert (first.state, first.examples) == ("done", 43)
    assert 0 < first.metrics["loss"] < 5
    assert (declined.state, unknown.state) == ("declined", "declined")
    assert "5000" in declined.reason
    assert fleet.paths("PUT") == ["/v1/training/run-1/1/updates/d1"]
    body = fleet.updates["/v1/training/run-1/1/updates/d1"]
    assert first.weights == Blob(hashlib.sha256(body).hexdigest(), len(body))
    update = decode_arrays(body, "update", limit_bytes=10**6)
    assert set(update) == set(given)
    assert (update["steps"] == given["steps"]).all()
    assert np.abs(update["weight"]).max() > 0.1


def test_a_train_graph_that_ends_its_process_fails_the_round_and_the_model_serves_on(bench, repository, fleet, release):
    repository.add(release(1, runtime="train.abort"))
    weights = encode_arrays({"weight": np.zeros((4, 3), np.float32), "bias": np.zeros(3, np.float32)})
    fleet.weights["/v1/training/run-1/1/weights"] = weights
    agent = Agent(bench.settings(), bench.broker.connect("d1"), learner, runtimes=load_deadly)
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        bench.want(1, "demo@1")
        bench.wait(lambda m: isinstance(m, Execution) and m.state is ExecutionState.SUCCEEDED, 30)
        bench.send(Channel.TRAIN, train_task(1, weights))
        update = bench.wait(lambda m: isinstance(m, TrainUpdate), 30)
        assert update.state == "failed"
        assert "train graph of demo@1" in update.reason
        assert "SIGABRT" in update.reason
        assert agent.active.predict({"x": np.zeros((1, 4), np.float32)}) is not None
    finally:
        agent.stop()
        thread.join(5)
    assert fleet.paths("PUT") == []


def test_labels_from_before_the_change_are_not_trained_on(bench, repository, fleet, release):
    repository.add(release(1))
    weights = encode_arrays({"weight": np.zeros((4, 3), np.float32), "bias": np.zeros(3, np.float32)})
    for number in (1, 2):
        fleet.weights[f"/v1/training/run-1/{number}/weights"] = weights
    has_learned = threading.Event()

    def source(context: SourceContext) -> Iterator[Sample]:
        yield from learner(context)
        has_learned.set()

    with bench.running(source):
        bench.want(1, "demo@1")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)
        assert has_learned.wait(5)
        bench.send(Channel.TRAIN, train_task(1, weights, maximum_age_s=0.0))
        declined = bench.wait_for(TrainUpdate)
        bench.send(Channel.TRAIN, train_task(2, weights, maximum_age_s=3600.0))
        done = bench.wait_for(TrainUpdate, round=2)
    assert declined.state == "declined"
    assert "3 or more labelled samples of the last 0 s, after the world changed here, found 0" in declined.reason
    assert (done.state, done.examples) == ("done", 43)


def test_the_wrong_weights_fail_the_round(bench, repository, fleet, release):
    repository.add(release(1))
    weights = encode_arrays({"weight": np.zeros((4, 3), np.float32), "bias": np.zeros(3, np.float32)})
    fleet.weights["/v1/training/run-1/1/weights"] = b"x" * len(weights)
    with bench.running(learner):
        bench.want(1, "demo@1")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)
        bench.send(Channel.TRAIN, train_task(1, weights))
        update = bench.wait_for(TrainUpdate)
    assert update.state == "failed"
    assert "SHA-256" in update.reason
    assert fleet.paths("PUT") == []


class Squeamish(LinearRuntime):
    """Weights whose first class wins are answered with; others fail on zeros, which no golden sample is."""

    def load(self, path, artifact):
        model = super().load(path, artifact)

        class Model:
            def predict(self, inputs):
                outputs = model.predict(inputs)
                if not inputs["x"].any() and outputs["probabilities"].argmax() != 0:
                    raise RuntimeError("Node number 7 failed to invoke")
                return outputs

        return Model()


@pytest.mark.parametrize("numbers", [(1, 2), (2,)])
def test_a_release_that_fails_on_what_it_is_asked_is_given_up_after_its_health_period(
    bench, repository, release, numbers
):
    def runtimes(name: str):
        return Squeamish() if name == LINEAR else load_linear(name)

    settings = bench.settings(healthy_after_s=0.3)
    agent = Agent(settings, bench.broker.connect("d1"), zeros, runtimes=runtimes, trials=DirectTrials(runtimes))
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        for number in numbers:
            repository.add(release(number))
            bench.want(number, f"demo@{number}", rollout=f"r{number}")
            ended = bench.wait(lambda m: isinstance(m, Execution) and m.state.is_terminal)
        assert (ended.state, ended.rollout) == (ExecutionState.REJECTED, "r2")
        assert "demo@2 is refused: expected answers from demo@2" in ended.reason
        assert "Node number 7 failed to invoke" in ended.reason
        assert agent.active.release == ("demo@1" if len(numbers) == 2 else None)
        assert bench.slots().holds("demo@2") is None
    finally:
        agent.stop()
        thread.join(5)


def test_a_release_that_fails_is_not_healthy_because_another_is_about_to_take_its_place(bench, repository, release):
    repository.add(release(1))
    repository.add(release(2))
    is_going_back, may_go_back = threading.Event(), threading.Event()

    class Slow(Squeamish):
        def load(self, path, artifact):
            if is_going_back.is_set():
                may_go_back.wait(10)
                raise InstallError("loading the artifact", "memory for it", "none")
            return super().load(path, artifact)

    def runtimes(name: str):
        return Slow() if name == LINEAR else load_linear(name)

    settings = bench.settings(healthy_after_s=0.5)
    agent = Agent(settings, bench.broker.connect("d1"), zeros, runtimes=runtimes, trials=DirectTrials(runtimes))
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        bench.want(1, "demo@1")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)
        bench.want(2, "demo@2", rollout="r2")
        bench.wait_for(Reported, release="demo@2")
        is_going_back.set()
        bench.want(3, "demo@1", rollout="r3")
        time.sleep(1)
        assert not bench.slots().is_proved, "all that it was asked failed"
        may_go_back.set()
        assert bench.wait_for(Execution, rollout="r3", state=ExecutionState.FAILED)
        is_going_back.clear()
        assert bench.wait_for(Reported, release="demo@1")
        assert bench.slots().holds("demo@2") is None
    finally:
        may_go_back.set()
        agent.stop()
        thread.join(5)


def test_a_release_that_never_answers_is_no_success_and_does_not_hold_up_stopping(
    bench, repository, release, monkeypatch
):
    repository.add(release(1))
    may_answer, asked_at = threading.Event(), list[float]()

    def clock() -> float:
        """The health period does not pass before the model was asked, however busy the machine is."""
        return 1e6 + (time.monotonic() - asked_at[0] if asked_at else 0.0)

    monkeypatch.setattr("hedgerow.client.agent.time", SimpleNamespace(monotonic=clock, time=time.time))

    class Hanging(LinearRuntime):
        def load(self, path, artifact):
            model = super().load(path, artifact)

            class Model:
                def predict(self, inputs):
                    if not inputs["x"].any():
                        asked_at.append(time.monotonic())
                        may_answer.wait(20)
                    return model.predict(inputs)

            return Model()

    def runtimes(name: str):
        return Hanging() if name == LINEAR else load_linear(name)

    def run() -> tuple[Agent, threading.Thread]:
        settings = bench.settings(healthy_after_s=0.2)
        agent = Agent(settings, bench.broker.connect("d1"), zeros, runtimes=runtimes, trials=DirectTrials(runtimes))
        thread = threading.Thread(target=agent.run)
        thread.start()
        return agent, thread

    agent, thread = run()
    try:
        bench.want(1, "demo@1")
        problem = "model: expected demo@1 to answer, found it busy with one sample"
        assert bench.wait_for(Reported, problems=(problem,)).release == "demo@1"
        time.sleep(0.5)
        bench.listen()
        assert not any(isinstance(m, Execution) and m.state.is_terminal for m in bench.heard)
        assert not bench.slots().is_proved
    finally:
        began = time.monotonic()
        agent.stop()
        thread.join(5)
    assert time.monotonic() - began < 3
    asked_at.clear()
    agent, thread = run()
    try:
        bench.wait_for(Reported, problems=(problem,))
        may_answer.set()
        assert bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)
        # One that has proved itself is named too, after a minute.
        agent.health._timer = lambda: 1e6 + 100 * time.monotonic()
        assert bench.wait_for(Reported, problems=())
        monkeypatch.setattr("hedgerow.client.health_period._STUCK_S", 0.4)
        may_answer.clear()
        assert bench.wait_for(Reported, problems=(problem,))
    finally:
        may_answer.set()
        agent.stop()
        thread.join(5)


def test_an_agent_that_dies_of_an_exception_counts_as_crashed(bench, repository, release, monkeypatch):
    repository.add(release(1))
    with bench.running():
        bench.want(1, "demo@1")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)
    for starts in (1, 2):
        agent = Agent(bench.settings(), bench.broker.connect("d1"), runtimes=load_linear)
        monkeypatch.setattr(agent, "_turn", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            agent.run()
        assert bench.slots().starts == starts
    with bench.running():
        bench.wait_for(Reported, release="demo@1")
    assert bench.slots().starts == 0


def test_a_crash_loop_falls_back_to_the_release_before(bench, repository, release):
    repository.add(release(1))
    repository.add(release(2))
    with bench.running():
        bench.want(1, "demo@1")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)
        bench.want(2, "demo@2", rollout="r2")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED, rollout="r2")
    for _ in range(3):
        # A start that is never healthy and never stops in order.
        load_active(SlotFolders(bench.folder / "state", "bench"), load_linear, 3, DirectTrials(load_linear))
    bench.listen()
    bench.heard.clear()
    with bench.running():
        reported = bench.wait_for(Reported)
        assert (reported.release, reported.previous) == ("demo@1", None)
        failed = bench.wait_for(Execution)
        assert (failed.state, failed.rollout) == (ExecutionState.FAILED, "r2")
        assert "demo@2" in failed.reason


def test_a_damaged_slot_is_installed_again(bench, repository, release):
    made = release(1)
    repository.add(made)
    with bench.running():
        bench.want(1, "demo@1")
        bench.wait_for(Execution, state=ExecutionState.SUCCEEDED)
    artifact = made.manifest.artifacts[0].blob.sha256
    path = bench.folder / "state" / "slots" / "A" / "blobs" / artifact
    path.write_bytes(b"rust")
    bench.listen()
    bench.heard.clear()
    with bench.running(zeros):
        assert bench.wait_for(Reported, release="demo@1", desired_version=1)
        assert bench.wait_for(Telemetry).window.release == "demo@1"
    assert path.read_bytes() == made.blobs[artifact]


def test_windows_wait_for_the_link(bench, repository, release):
    repository.add(release(1))
    with bench.running(zeros) as (_, link):
        bench.want(1, "demo@1")
        first = bench.wait_for(Telemetry)
        bench.broker.break_link("d1")
        wait_until(lambda: bench.windows_kept() > 3)
        bench.listen()
        bench.heard.clear()
        bench.broker.mend_link(link)
        sequences = [first.sequence]
        while len(sequences) < 5:
            sequences.append(bench.wait_for(Telemetry).sequence)
    # What was on the wire when the link broke may be lost; what came after was kept.
    assert sequences[1:] == list(range(sequences[1], sequences[1] + 4))


def test_an_orderly_stop_says_so(bench, repository, release):
    with bench.running():
        assert bench.wait_for(Presence).online
    assert not bench.wait_for(Presence).online
