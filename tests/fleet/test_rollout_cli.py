"""`hedgerow rollout` against a service in this process, over loopback."""

import json
import threading

import pytest

from hedgerow.cli import main
from hedgerow.fleet.admin_keys import hash_key, make_key, write_key_file
from hedgerow.fleet.api import create_app
from hedgerow.fleet.http_server import HttpServer
from hedgerow.fleet.layout import FleetFolder
from hedgerow.fleet.virtual_device import Installation
from hedgerow.wire import ExecutionState
from tests.fleet.virtual_fleet import VirtualFleet


class Living:
    """A fleet whose devices and service live in threads."""

    def __init__(self, folder):
        self.fleet = VirtualFleet(folder, tick_s=0.01)
        self.fleet.settle()
        key = make_key()
        self.fleet.service._store.add_admin_key(hash_key(key), "first", 0.0)
        write_key_file(folder / "admin.key", key)
        self.server = HttpServer(create_app(self.fleet.service, FleetFolder(folder)), "127.0.0.1", 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self.reach = ["--key-file", str(folder / "admin.key")]

    def _live(self):
        while not self._stop.is_set():
            for device in self.fleet.devices.values():
                device.turn()
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
    assert main(["rollout", "status", rollout["id"], *living.reach]) == 0
    text = capsys.readouterr().out
    assert "8 SUCCEEDED" in text
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
