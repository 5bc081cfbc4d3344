"""`hedgerow rollout` against a service in this process, over loopback."""

import json
import threading

import pytest

from hedgerow.cli import main
from hedgerow.fleet.commands.rollout import _Watch
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.virtual_device import Installation
from hedgerow.fleet.web.admin_keys import hash_key, make_key, write_key_file
from hedgerow.fleet.web.api import create_app
from hedgerow.fleet.web.server import HttpServer
from hedgerow.wire.execution import ExecutionState
from tests.fleet.virtual_fleet import VirtualFleet


class Living:
    """A fleet whose devices and service live in threads."""

    def __init__(self, folder):
        self.fleet = VirtualFleet(folder, tick_s=0.01)
        self.fleet.settle()
        key = make_key()
        self.fleet.service.store.add_admin_key(hash_key(key), "first", 0.0)
        write_key_file(folder / "admin.key", key)
        self.server = HttpServer(create_app(self.fleet.service, FleetFolder(folder)), "127.0.0.1", 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self.reach = ["--key-file", str(folder / "admin.key")]

    def _live(self):
        while not self._stop.is_set():
            for device in self.fleet.devices.values():
                device.turn()
            self.fleet.now += 0.01
            self._stop.wait(0.01)

    def __enter__(self):
        self.fleet.service.start()
        self.server.start()
        self._thread.start()
        self.reach += ["--server", self.server.url]
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self.server.stop()
        self.fleet.service.stop()


@pytest.fixture
def living(tmp_path):
    with Living(tmp_path) as made:
        yield made


def last_line(capsys):
    return capsys.readouterr().out.strip().splitlines()[-1]


def test_start_waits_for_the_end_and_status_tells_it_again(living, capsys):
    command = ["rollout", "start", "toy@1", "--stage", "canary=0.25", "--stage", "fleet=1", "--no-gate", "--wait"]
    assert main([*command, *living.reach, "--json"]) == 0
    rollout = json.loads(last_line(capsys))
    assert (rollout["state"], len(rollout["executions"])) == ("FINISHED", 8)
    assert living.fleet.releases() == ["toy@1"] * 8
    assert rollout["plan"]["gate"] is None
    assert main(["rollout", "status", rollout["id"], *living.reach]) == 0
    text = capsys.readouterr().out
    assert "8 SUCCEEDED, no gate: its quality is not judged" in text
    assert "device-7: SUCCEEDED" in text
    assert main(["rollout", "status", *living.reach, "--json"]) == 0
    assert [found["id"] for found in json.loads(last_line(capsys))["rollouts"]] == [rollout["id"]]


def test_a_rollout_that_does_not_finish_is_an_exit_code(living, capsys):
    for device in living.fleet.devices.values():
        device.install = lambda _wanted: Installation(ExecutionState.REJECTED, "no such runtime")
    assert main(["rollout", "start", "toy@1", "--wait", *living.reach]) == 1
    assert "REJECTED" in capsys.readouterr().out


def test_a_refusal_is_one_sentence_of_the_service(living, capsys):
    assert main(["rollout", "start", "toy@9", *living.reach]) == 1
    assert capsys.readouterr().err.startswith("hedgerow: expected a signed release, found 'toy@9'")
    assert main(["rollout", "start", "toy@1", "--stage", "half=0.5", *living.reach]) == 1
    assert "last stage" in capsys.readouterr().err
    assert main(["rollout", "status", "rollout-7", *living.reach]) == 1
    assert "rollout-7" in capsys.readouterr().err


def test_what_the_gate_asks_for_can_be_said_and_is_recorded(living, capsys):
    command = ["rollout", "start", "toy@1", "--floor", "0.9", "--margin", "0.05", "--patience", "0.5", "--wait"]
    assert main([*command, "--disagreement", "0.2", *living.reach, "--json"]) == 1
    rollout = json.loads(last_line(capsys))
    gate = rollout["plan"]["gate"]
    assert (gate["floor"], gate["maximum_accuracy_drop"], gate["minimum_samples"]) == (0.9, 0.05, 100)
    assert gate["maximum_disagreement"] == 0.2
    assert rollout["plan"]["gate_timeout_s"] == 0.5
    assert rollout["state"] == "ROLLED_BACK"
    assert "could not decide within 0.5 s: no device has sent a window of the new release yet" in rollout["reason"]


def test_who_waits_is_told_what_is_missing_and_what_comes_of_it(living, capsys):
    assert main(["rollout", "start", "toy@1", "--patience", "1.5", "--wait", *living.reach]) == 1
    told = capsys.readouterr().err
    assert "no device has sent a window of the new release yet" in told
    assert "without a decision everything goes back after 1.5 s" in told


def test_a_gate_and_no_gate_at_once_are_refused(living, capsys):
    assert main(["rollout", "start", "toy@1", "--no-gate", "--floor", "0.9", *living.reach]) == 2
    assert "--no-gate" in capsys.readouterr().err
    assert main(["rollout", "start", "toy@1", "--floor", "1.5", *living.reach]) == 2
    assert living.fleet.service.rollouts() == ()


def test_the_evidence_is_told_now_and_then_and_a_new_stage_at_once():
    watch = _Watch()
    rollout = {
        "id": "rollout-1",
        "release": "toy@1",
        "state": "RUNNING",
        "stage": 0,
        "reason": "2 labelled samples",
        "gate_since": None,
        "plan": {"stages": [{"name": "canary"}, {"name": "fleet"}], "gate": {}, "gate_timeout_s": 60},
    }
    assert watch.news(rollout, 100.0) == "rollout-1: toy@1 RUNNING, stage canary\n  2 labelled samples"
    assert watch.news(rollout, 101.0) == ""
    more = rollout | {"reason": "3 labelled samples"}
    assert watch.news(more, 105.0) == ""
    assert watch.news(more, 110.0).endswith("3 labelled samples")
    assert watch.news(more, 130.0) == ""
    assert watch.news(more | {"stage": 1, "reason": ""}, 130.1) == "rollout-1: toy@1 RUNNING, stage fleet"
