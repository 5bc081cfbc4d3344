import sqlite3
import threading
from dataclasses import replace

import pytest

from hedgerow.fleet.errors import RetrainError, UnknownReleaseError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.records import RunState, TrainingRun
from hedgerow.fleet.retrain.loop import RetrainLoop
from hedgerow.fleet.retrain.policy import RetrainPolicy, StartRetrain
from hedgerow.fleet.retrain.run import MANUAL, Retrainer
from hedgerow.fleet.retrain.wire_round import TrainingExchange
from hedgerow.fleet.rollout.gates import GatePlan
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.trust.catalogue import MemoryCatalogue
from tests.fleet.virtual_fleet import ONE_STAGE, VirtualFleet, make_window

GATED = replace(ONE_STAGE, gate=GatePlan(floor=0.8))


@pytest.fixture
def fleet(tmp_path):
    made = VirtualFleet(tmp_path)
    made.settle()
    made.roll_out("toy@1")
    yield made
    made.service.stop()


class Work:
    """Notes what it was called for; the first calls fail as often as told."""

    def __init__(self, failures=0, error=None):
        self.calls, self.failures, self.error = [], failures, error or RetrainError("no device answered")
        self.called = threading.Semaphore(0)

    def __call__(self, **call):
        self.calls.append((call["release"], call["trigger"], call["run_id"]))
        self.called.release()
        if len(self.calls) <= self.failures:
            raise self.error

    def wait(self):
        assert self.called.acquire(timeout=5)


class Looks:
    """The loop's clock, which counts how often the loop has asked for the time: it does when it finds nothing to do."""

    def __init__(self, now=2000.0):
        self.now, self.count = now, 0

    def __call__(self):
        if threading.current_thread().name == "retrain":
            self.count += 1
        return self.now

    def wait(self):
        """Wait until the loop has taken all that came, and has let time pass several times."""
        seen = self.count
        until(lambda: self.count >= seen + 10)


def until(is_true):
    for _ in range(1000):
        if is_true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come true in 10 s")


def drift(fleet):
    for _ in range(3):
        fleet.send_windows("toy@1", x=(98, 2))
    (alert,) = fleet.service.alerts()
    return alert


def test_an_alert_starts_the_work_once(fleet):
    work = Work()
    with RetrainLoop(fleet.service, RetrainPolicy(), work):
        alert = drift(fleet)
        work.wait()
        drift(fleet)
    assert work.calls == [("toy@1", alert.id, None)]


@pytest.mark.parametrize("error", [RetrainError("no device answered"), OSError("no device answered")])
def test_a_failure_is_logged_and_tried_again_after_the_cool_down(fleet, caplog, error):
    work = Work(failures=1, error=error)
    with RetrainLoop(fleet.service, RetrainPolicy(cool_down_s=0), work, look_s=0.02):
        drift(fleet)
        work.wait()
        work.wait()
    assert len(work.calls) == 2
    assert "no device answered" in caplog.text


def test_a_store_that_cannot_be_read_for_a_while_costs_no_alert(fleet, caplog, monkeypatch):
    caplog.set_level("INFO")
    work, left = Work(), [5, 5]
    devices, runs = fleet.service.devices, fleet.service.runs

    def unreadable(which, real):
        def read():
            if left[which]:
                left[which] -= 1
                raise sqlite3.OperationalError("disk I/O error")
            return real()

        return read

    monkeypatch.setattr(fleet.service, "devices", unreadable(0, devices))
    monkeypatch.setattr(fleet.service, "runs", unreadable(1, runs))
    with RetrainLoop(fleet.service, RetrainPolicy(), work, look_s=0.01):
        alert = drift(fleet)
        work.wait()
    assert work.calls == [("toy@1", alert.id, None)]
    assert left == [0, 0]
    rows = caplog.text.count("looking after retraining works again")
    assert caplog.text.count("looking after retraining failed") == rows, "a line for each row of failures, not for each"


def test_a_restart_resumes_the_run_that_was_interrupted_and_takes_up_no_alert_twice(fleet):
    alert = drift(fleet)
    run = TrainingRun(
        id="run-1", started_at=1.0, ended_at=None, state=RunState.RUNNING, trigger=alert.id, parent="toy@1"
    )
    fleet.service.save_run(run)
    work = Work()
    with RetrainLoop(fleet.service, RetrainPolicy(), work):
        work.wait()
    assert work.calls == [("toy@1", alert.id, "run-1")]


def test_an_alert_that_was_raised_while_the_loop_was_down_is_taken_up(fleet):
    alert = drift(fleet)
    work = Work()
    with RetrainLoop(fleet.service, RetrainPolicy(), work):
        work.wait()
    assert work.calls == [("toy@1", alert.id, None)]


def test_an_alert_about_a_release_that_nobody_runs_any_more_is_left_alone(fleet):
    drift(fleet)
    fleet.roll_out("toy@2")
    work = Work()
    looks = Looks()
    with RetrainLoop(fleet.service, RetrainPolicy(), work, look_s=0.01, clock=looks) as loop:
        assert not loop.approve()
        looks.wait()
    assert work.calls == []


def test_approval_starts_what_waits_for_it(fleet):
    work = Work()
    with RetrainLoop(fleet.service, RetrainPolicy(needs_approval=True), work) as loop:
        drift(fleet)
        for _ in range(500):
            if loop.state.waiting:
                break
            threading.Event().wait(0.01)
        assert work.calls == []
        assert loop.approve()
        work.wait()
    assert len(work.calls) == 1


@pytest.fixture
def living(tmp_path):
    """A fleet whose service and devices live in threads, as the loop's own thread asks the service for changes."""
    made = VirtualFleet(tmp_path, tick_s=0.01)
    stop = threading.Event()

    def live():
        while not stop.wait(0.005):
            for device in made.devices.values():
                device.turn()

    thread = threading.Thread(target=live)
    made.service.start()
    thread.start()
    until(lambda: len([device for device in made.service.devices() if device.target]) == 8)
    finished(made, "toy@1", ONE_STAGE)
    yield made
    stop.set()
    thread.join()
    made.service.stop()


def finished(fleet, release, plan):
    rollout = fleet.service.start_rollout(release, plan)
    until(lambda: fleet.service.rollout(rollout.id).state is RolloutState.FINISHED)


def send(fleet, release, times=3, **window):
    """Let every device send windows, and wait until they are taken."""
    for _ in range(times):
        before = len(fleet.service.windows())
        for device in fleet.devices.values():
            device.send_window(make_window(release, now=fleet.now, **window))
        until(lambda before=before: len(fleet.service.windows()) == before + len(fleet.devices))


def alerts(fleet, kind):
    return [alert for alert in fleet.service.alerts() if alert.kind == kind]


def run(name, state, *, trigger="drift-1", started_at=1.0, release=None):
    ended_at = None if state is RunState.RUNNING else started_at + 0.5
    return TrainingRun(
        id=name,
        started_at=started_at,
        ended_at=ended_at,
        state=state,
        trigger=trigger,
        parent="toy@1",
        release=release,
    )


def test_a_hopeless_retraining_ends_in_one_alert_with_the_reason(living):
    work, policy, looks = Work(failures=99), RetrainPolicy(cool_down_s=0, most_failures=3), Looks()
    with RetrainLoop(living.service, policy, work, look_s=0.01, clock=looks):
        send(living, "toy@1", x=(98, 2))
        until(lambda: alerts(living, "retraining"))
        looks.wait()
    (alert,), (told,) = alerts(living, "drift"), alerts(living, "retraining")
    assert work.calls == [("toy@1", alert.id, None)] * 3
    assert (told.id, told.release) == (f"retraining-{alert.id}", "toy@1")
    assert "3 retrainings of toy@1 in a row brought no recovery" in told.reason
    assert "the last one: no device answered" in told.reason
    # And a restart neither tries again nor tells it twice.
    for number in range(3):
        living.service.save_run(run(f"run-{number}", RunState.FAILED, trigger=alert.id, started_at=float(number)))
    work = Work()
    with RetrainLoop(living.service, policy, work, look_s=0.01, clock=looks) as loop:
        until(lambda: loop.state.failures == 3)
        looks.wait()
    assert work.calls == []
    assert alerts(living, "retraining") == [told]


def test_a_score_below_the_floor_starts_a_retraining_too(living):
    work = Work()
    with RetrainLoop(living.service, RetrainPolicy(), work, look_s=0.02):
        send(living, "toy@1", times=1, correct=10)
        work.wait()
    (alert,) = alerts(living, "score")
    assert work.calls == [("toy@1", alert.id, None)]


def test_a_restart_goes_on_waiting_where_it_was(living):
    for number in range(2):
        living.service.save_run(run(f"run-{number}", RunState.FAILED, started_at=1000.0 + number))
    looks, work = Looks(1001.5 + 199.0), Work()
    with RetrainLoop(living.service, RetrainPolicy(cool_down_s=100), work, look_s=0.01, clock=looks) as loop:
        until(lambda: loop.state.failures == 2)
        looks.wait()
        assert work.calls == [], "the wait is 200 s after the second failure"
        looks.now += 1.0
        work.wait()
    assert work.calls == [("toy@1", "drift-1", None)]


def test_a_run_that_was_resumed_and_failed_is_tried_again(living):
    living.service.save_run(run("run-1", RunState.RUNNING))
    work = Work(failures=1)
    with RetrainLoop(living.service, RetrainPolicy(cool_down_s=0), work, look_s=0.02):
        work.wait()
        work.wait()
    assert work.calls == [("toy@1", "drift-1", "run-1"), ("toy@1", "drift-1", None)]


class Makes(Work):
    """Makes a release and begins to roll it out, as a retraining does."""

    def __init__(self, fleet):
        super().__init__()
        self.fleet = fleet

    def __call__(self, **call):
        super().__call__(**call)
        self.fleet.service.start_rollout("toy@2", GATED)
        self.fleet.service.save_run(run("run-1", RunState.DONE, trigger=call["trigger"], release="toy@2"))
        return "toy@2"


@pytest.mark.parametrize(("correct", "state", "failures"), [(100, RunState.RECOVERED, 0), (0, RunState.FAILED, 1)])
def test_a_retraining_is_known_by_what_its_release_does_on_the_devices(living, correct, state, failures):
    work = Makes(living)
    with RetrainLoop(living.service, RetrainPolicy(cool_down_s=9999), work, look_s=0.02) as loop:
        send(living, "toy@1", x=(98, 2))
        until(lambda: loop.state.proving is not None)
        until(lambda: {device.release for device in living.service.devices()} == {"toy@2"})
        send(living, "toy@2", correct=correct)
        until(lambda: loop.state.proving is None)
        assert loop.state.failures == failures
    (known,) = living.service.runs()
    assert known.state == state
    assert known.reason.startswith("toy@2 was sent back: the gate stopped it: below the floor") == (failures == 1)
    assert living.service.is_proven("toy@2") == (failures == 0)


def test_what_became_of_a_release_while_nobody_listened_is_heard_at_the_next_start(living):
    living.service.save_run(run("run-1", RunState.DONE, release="toy@2"))
    living.service.start_rollout("toy@2", GATED)
    until(lambda: {device.release for device in living.service.devices()} == {"toy@2"})
    send(living, "toy@2", correct=0)
    with RetrainLoop(living.service, RetrainPolicy(cool_down_s=9999), Work(), look_s=0.02) as loop:
        until(lambda: loop.state.failures == 1)
    assert living.service.runs()[0].state is RunState.FAILED


def test_a_retraining_that_waits_for_a_release_that_nobody_runs_any_more_is_dropped(living):
    living.service.save_run(run("run-1", RunState.FAILED))
    finished(living, "toy@3", ONE_STAGE)
    work, looks = Work(), Looks()
    with RetrainLoop(living.service, RetrainPolicy(cool_down_s=0), work, look_s=0.01, clock=looks) as loop:
        until(lambda: loop.state.waiting is None and loop.state.failures == 1)
        looks.wait()
    assert work.calls == []


@pytest.mark.parametrize(
    ("release", "proven_at", "failures"),
    [("toy@2", 60.0, 0), ("toy@2", 45.0, 1), ("toy@2", 5.0, 5), ("toy@1", 60.0, 5)],
)
def test_a_restart_forgets_the_failures_before_another_release_proved_itself(fleet, release, proven_at, failures):
    """As the loop does while it runs; else no alert would ever start a retraining again."""
    for number in range(1, 6):
        ended_at = number * 10.0
        fleet.service.save_run(
            TrainingRun(
                id=f"run-{number}",
                started_at=ended_at - 5,
                ended_at=ended_at,
                state=RunState.FAILED,
                trigger=f"alert-{number}",
                parent="toy@1",
                reason="no device answered",
            )
        )
    fleet.service.store.save_proof(release, proven_at, "97 %")
    with RetrainLoop(fleet.service, RetrainPolicy(cool_down_s=10**9), Work(), look_s=0.01) as loop:
        until(lambda: "alert-5" in loop.state.answered)
        assert loop.state.failures == failures
    told = [alert for alert in fleet.service.alerts() if alert.kind == "retraining"]
    assert len(told) == (failures == 5)


class BrokenCatalogue(MemoryCatalogue):
    """A catalogue whose disk cannot be read any more."""

    def manifest(self, release):
        raise OSError(5, f"Input/output error: {release}")


def test_a_retraining_that_ends_in_a_bug_is_over_and_not_begun_again_at_the_next_start(fleet, tmp_path):
    fleet.service.catalogue = BrokenCatalogue()
    retrainer = Retrainer(
        service=fleet.service, exchange=TrainingExchange(), folder=FleetFolder(tmp_path), task="task", clock=lambda: 9.0
    )
    with pytest.raises(OSError, match="Input/output"):
        retrainer.retrain("toy@1", trigger="drift-1")
    (run,) = fleet.service.runs()
    assert (run.state, run.ended_at, run.reason) == (
        RunState.FAILED,
        9.0,
        "OSError: [Errno 5] Input/output error: toy@1",
    )
    work = Work()
    with RetrainLoop(fleet.service, RetrainPolicy(cool_down_s=1e9), work, look_s=0.01, clock=lambda: 10.0) as loop:
        until(lambda: loop.state.failures == 1)
    # It is to be answered still, after the wait that follows a failure; nothing is resumed.
    assert loop.state.waiting == StartRetrain("drift-1", "toy@1")
    assert work.calls == []


def test_a_retraining_that_was_refused_is_recorded_with_the_reason_alone(fleet, tmp_path):
    retrainer = Retrainer(service=fleet.service, exchange=TrainingExchange(), folder=FleetFolder(tmp_path), task="task")
    with pytest.raises(UnknownReleaseError):
        retrainer.retrain("toy@9")
    (run,) = fleet.service.runs()
    assert (run.state, run.trigger) == (RunState.FAILED, MANUAL)
    assert run.reason.startswith("expected a signed release, found 'toy@9'")
