"""``hedgerow deploy`` as a user runs it: own weights, a real broker, service and agent, kill and resume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.checkpoints import checkpoint_folder
from hedgerow.fleet.trust.releases import list_releases

pytestmark = [pytest.mark.heavy, pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(300)]
TINY = Path(__file__).parents[2] / "server" / "tiny_task.py"
TASK = f"{TINY}:task"


def hedgerow(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "hedgerow.cli", *map(str, arguments)]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "HEDGEROW_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A model of the user's own, trained by torch alone."""
    import torch

    from hedgerow.task import load_task

    folder = tmp_path_factory.mktemp("own")
    data = load_task(TASK).load_data().train
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        given = model(torch.from_numpy(data.inputs["point"]))
        torch.nn.functional.cross_entropy(given, torch.from_numpy(data.target_values)).backward()
        optimizer.step()
    torch.save(model.state_dict(), folder / "model.pt")
    return folder / "model.pt"


def run(cache: Path, *arguments: object, code: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        hedgerow(*arguments), capture_output=True, text=True, env=environment(cache), timeout=200, check=False
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout, done.stderr


def processes_that_mention(path: Path) -> list[str]:
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(path) in line]


def killed_when(said: str, cache: Path, log: Path, *arguments: object) -> None:
    """Start the command, and kill it as soon as it has said something."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            hedgerow(*arguments), stdout=output, stderr=subprocess.STDOUT, env=environment(cache)
        )
    deadline = time.monotonic() + 120
    while said not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_own_weights_reach_a_running_agent_in_two_commands_and_a_kill_costs_nothing_that_was_done(trained, tmp_path):
    cache, fleet, checkpoint = tmp_path / "cache", tmp_path / "fleet", tmp_path / "imported"
    out, _err = run(cache, "checkpoint", "import", trained, "--task", TASK, "-o", checkpoint)
    assert "held-out samples; always " in out
    deploy = ("deploy", checkpoint, "--task", TASK, "--fleet", fleet, "--target", "raspberry-pi-4")

    killed_when("points@1 is signed", cache, tmp_path / "1.log", *deploy)
    killed_when("RUNNING, stage", cache, tmp_path / "2.log", *deploy)
    out, err = run(cache, *deploy, "--json")

    assert "points@1 is there already, signed before" in (tmp_path / "2.log").read_text()
    record = json.loads(out.splitlines()[-1])
    assert (record["release"], record["new"], record["cached"]) == ("points@1", False, ["raspberry-pi-4"])
    assert (record["rollout"]["id"], record["rollout"]["state"]) == ("rollout-1", "FINISHED")
    assert "labelled samples; the floor is" in record["rollout"]["reason"]
    assert record["devices"] == [
        {"name": "dev-raspberry-pi-4", "target": "raspberry-pi-4", "release": "points@1", "online": True}
    ]
    assert [entry.manifest.release for entry in list_releases(FleetFolder(fleet))] == ["points@1"]
    assert (checkpoint_folder(FleetFolder(fleet), "points@1") / "weights.safetensors").read_bytes() == (
        checkpoint / "weights.safetensors"
    ).read_bytes()
    installed = (fleet / "development" / "logs" / "dev-raspberry-pi-4.log").read_text()
    assert "installed points@1" in installed
    assert processes_that_mention(fleet) == []

    # What is finished is not done again, and the targets are those of the devices that are known.
    out, err = run(cache, *deploy[:6])
    assert "points@1 is there already, signed before" in err
    assert out.splitlines()[-1] == "dev-raspberry-pi-4 (raspberry-pi-4) runs points@1"
    assert err.splitlines()[-1] == "the development fleet ends here; --stay lets it run on"


def test_a_model_that_is_no_good_goes_back_and_one_that_was_left_unfinished_is_taken_back(trained, tmp_path):
    import torch

    cache, fleet = tmp_path / "cache", tmp_path / "fleet"
    torch.save({"weight": -torch.ones(3, 2), "bias": torch.zeros(3)}, tmp_path / "bad.pt")
    for file, name in ((trained, "good"), (tmp_path / "bad.pt", "bad")):
        run(cache, "checkpoint", "import", file, "--task", TASK, "-o", tmp_path / name)

    def deploy(name: str, *more: str) -> tuple[object, ...]:
        return ("deploy", tmp_path / name, "--task", TASK, "--fleet", fleet, "--target", "x86-gateway", *more)

    killed_when("RUNNING, stage", cache, tmp_path / "1.log", *deploy("bad"))
    out, err = run(cache, *deploy("good", "--floor", "0.8"))
    assert "rollout-1 of points@1 was left unfinished, and is taken back" in err
    assert out.splitlines()[-1] == "dev-x86-gateway (x86-gateway) runs points@2"

    out, err = run(cache, *deploy("bad", "--json"), code=1)
    record = json.loads(out.splitlines()[-1])
    assert (record["release"], record["new"]) == ("points@1", False)
    assert record["rollout"]["state"] == "ROLLED_BACK"
    assert record["devices"][0]["release"] == "points@2"
    assert processes_that_mention(fleet) == []
