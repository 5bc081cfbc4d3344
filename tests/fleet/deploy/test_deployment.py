"""What `hedgerow deploy` refuses, each with its sentence, before anything is compiled."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from hedgerow.checkpoint import Checkpoint, save_checkpoint
from hedgerow.cli import main
from hedgerow.fleet.commands.fleet import make_fleet
from hedgerow.fleet.folder import FleetFolder
from tests import output_tasks
from tests.output_tasks import TASKS

pytestmark = pytest.mark.heavy
TASK = f"{Path(__file__).parents[2] / 'server' / 'tiny_task.py'}:task"


@pytest.fixture
def checkpoint(tmp_path):
    def make(task: str = "points") -> Path:
        weights = {"weight": np.ones((3, 2), np.float32), "bias": np.zeros(3, np.float32)}
        found = Checkpoint(weights=weights, task=task, run="r", round=1, strategy="s", grid="g", seed=0)
        save_checkpoint(tmp_path / task, found)
        return tmp_path / task

    return make


def deploy(checkpoint: Path, fleet: Path, *more: str) -> int:
    return main(["deploy", str(checkpoint), "--task", TASK, "--fleet", str(fleet), *more])


class Service:
    """Answers as a fleet service does to who asks how it stands."""

    def __init__(self, fleet: str, devices: list[dict[str, object]]) -> None:
        answers = {"/v1/status": {"fleet": fleet}, "/v1/devices": devices}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = json.dumps(answers[self.path]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exc):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def device(target: str, *, online: bool) -> dict[str, object]:
    return {"name": f"a-{target}", "target": target, "release": None, "online": online}


def test_what_is_no_checkpoint_of_the_task_is_refused_and_makes_no_fleet(checkpoint, tmp_path, capsys):
    fleet, file = tmp_path / "fleet", tmp_path / "model.pt"
    file.write_bytes(b"x")

    assert deploy(file, fleet) == 1
    assert f"found a file; make one of your own weights: hedgerow checkpoint import {file} --task" in (
        capsys.readouterr().err
    )
    assert deploy(tmp_path / "none", fleet) == 1
    assert "make one with `hedgerow train`, or of own weights with `hedgerow checkpoint import`" in (
        capsys.readouterr().err
    )
    assert deploy(checkpoint("others"), fleet) == 1
    assert "expected a checkpoint of the task 'points', found one of 'others'; give the checkpoint" in (
        capsys.readouterr().err
    )
    assert deploy(checkpoint(), fleet, "--no-gate", "--floor", "0.5") == 2
    assert not fleet.exists()


@pytest.mark.parametrize("more", [(), ("--floor", "0.5")])
def test_a_gate_on_what_no_device_scores_is_refused_at_once(tmp_path, capsys, more):
    task = TASKS["custom"]
    weights = {name: tensor.numpy() for name, tensor in task.model().state_dict().items()}
    found = Checkpoint(weights=weights, task=task.name, run="r", round=1, strategy="s", grid="g", seed=0)
    save_checkpoint(tmp_path / "custom", found)
    named = ["--task", f"{output_tasks.__file__}:custom", "--fleet", str(tmp_path / "fleet")]

    assert main(["deploy", str(tmp_path / "custom"), *named, *more]) == 1

    said = (
        "found output, whose score function stays where the model is trained; add --no-gate, or compile and release it"
    )
    assert said in capsys.readouterr().err
    assert not (tmp_path / "fleet").exists()


@pytest.mark.parametrize(
    ("fleet_name", "devices", "more", "sentence"),
    [
        (
            "other",
            [],
            (),
            "expected the fleet 'garden' of FOLDER at URL, found 'other'; give the --server of the fleet",
        ),
        (
            "garden",
            [],
            (),
            "expected devices in the fleet at URL, found none; start an agent with `hedgerow agent run`",
        ),
        (
            "garden",
            [device("x86-gateway", online=True)],
            ("--target", "esp32-s3"),
            "expected devices of esp32-s3 in the fleet at URL, found x86-gateway; start an agent",
        ),
        (
            "garden",
            [device("x86-gateway", online=False)],
            (),
            "expected a device that is online, found none among a-x86-gateway; start its agent, or wait for it",
        ),
        ("garden", [], ("--target", "pi9"), "no target is called 'pi9'"),
    ],
)
def test_a_fleet_that_nothing_can_be_deployed_to_is_told(
    checkpoint, tmp_path, capsys, fleet_name, devices, more, sentence
):
    folder = FleetFolder(tmp_path / "fleet")
    make_fleet(folder, "garden", now=time.time())
    with Service(fleet_name, devices) as service:
        assert deploy(checkpoint(), folder.path, "--server", service.url, *more) == 1
        wanted = sentence.replace("URL", service.url).replace("FOLDER", str(folder.path))

    assert wanted in capsys.readouterr().err
    assert not (folder.path / "deployments").exists()


def test_a_service_that_does_not_answer_is_told(checkpoint, tmp_path, capsys):
    folder = FleetFolder(tmp_path / "fleet")
    make_fleet(folder, "garden", now=time.time())

    assert deploy(checkpoint(), folder.path, "--server", "http://127.0.0.1:9") == 1
    assert "expected a fleet service at http://127.0.0.1:9, found none" in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_as_it_is(checkpoint, tmp_path, capsys):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "task.py").touch()

    assert deploy(checkpoint(), tmp_path / "project") == 1
    assert f"expected a fleet's folder at {tmp_path / 'project'}, a new or an empty one, found 'task.py' in it" in (
        capsys.readouterr().err
    )
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["task.py"]


def test_a_folder_that_another_process_serves_elsewhere_asks_for_the_address(checkpoint, tmp_path, capsys, monkeypatch):
    from hedgerow.fleet.deploy import site
    from hedgerow.fleet.store.writing import Store

    folder = FleetFolder(tmp_path / "fleet")
    make_fleet(folder, "garden", now=time.time())
    monkeypatch.setattr(site, "DEFAULT_URL", "http://127.0.0.1:9")
    store = Store(folder.database)
    try:
        assert deploy(checkpoint(), folder.path) == 1
    finally:
        store.close()
    assert (
        f"expected the service of {folder.path}, which another process runs, at http://127.0.0.1:9, found none of its "
        "own there; say where it answers with --server, or wait for the end of another `hedgerow deploy`"
    ) in capsys.readouterr().err


def test_a_fleet_with_devices_that_are_none_of_a_development_fleet_wants_its_service(checkpoint, tmp_path):
    from hedgerow.fleet.deploy.site import Site, wanted_targets
    from hedgerow.fleet.errors import DeployError

    class Client:
        def get(self, _path):
            return [device("x86-gateway", online=False)]

    here = Site(FleetFolder(tmp_path), Client(), "http://127.0.0.1:9", object())
    with pytest.raises(DeployError) as caught:
        wanted_targets(here, ())
    assert str(caught.value) == (
        f"expected the service of {tmp_path} to run, or a folder of a development fleet, found no service, and the "
        "devices a-x86-gateway; start it with `hedgerow fleet serve`, or deploy to another folder first"
    )
