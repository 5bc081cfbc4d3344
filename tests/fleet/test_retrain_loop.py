import sqlite3
import threading

import pytest

from hedgerow.fleet.errors import RetrainError
from hedgerow.fleet.retrain_loop import RetrainLoop
from hedgerow.fleet.retrain_policy import RetrainPolicy
from hedgerow.fleet.store_reader import TrainingRun
from tests.fleet.virtual_fleet import VirtualFleet


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
    assert caplog.text.count("looking after retraining failed") in {1, 2}, "ten failures, in one row or two"


def test_a_restart_resumes_the_run_that_was_interrupted_and_takes_up_no_alert_twice(fleet):
    alert = drift(fleet)
    run = TrainingRun(id="run-1", started_at=1.0, ended_at=None, state="running", trigger=alert.id, parent="toy@1")
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
    with RetrainLoop(fleet.service, RetrainPolicy(), work) as loop:
        assert not loop.approve()
        threading.Event().wait(0.1)
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
