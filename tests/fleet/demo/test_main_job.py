"""The whole main job, as a newcomer runs it: the promises of the README, in separate processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(600)]


def demo_command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "hedgerow.cli", "demo", "--out", str(out), *arguments]


def processes_that_mention(path: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(path) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    run = subprocess.run(demo_command(out, "--json"), capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    record = json.loads(run.stdout.splitlines()[-1])
    assert (out / "report.html").stat().st_size > 50_000
    assert processes_that_mention(out) == []
    return record


def test_the_first_training_reaches_93_percent(result):
    assert result["train"]["accuracy"] >= 0.93
    assert result["train"]["strategy"] == "fedavg"


def test_every_quantized_artifact_is_smaller_than_float_and_within_one_and_a_half_points(result):
    assert {entry["target"] for entry in result["artifacts"]} == {
        "raspberry-pi-4",
        "android-arm64",
        "x86-gateway",
        "iphone-15",
    }
    for entry in result["artifacts"]:
        assert entry["bytes"] < entry["float_bytes"]
        assert "failed" not in entry["checks"].values()
        assert entry["accuracy"] >= entry["float_accuracy"] - 0.015


def test_what_cannot_run_here_is_reported_as_not_run(result):
    """Core ML is evaluated operator by operator on Linux; nothing ran it, or its chip, and the report says so."""
    [iphone] = [entry for entry in result["artifacts"] if entry["target"] == "iphone-15"]

    assert {name for name, state in iphone["checks"].items() if state == "not run"} == {"latency", "runs on device"}
    assert iphone["checks"]["accuracy"] == iphone["checks"]["parity"] == "passed"


def test_the_rollout_finishes_on_all_eight_devices(result):
    assert result["devices"] == 8
    assert result["rollout"] == {"state": "FINISHED", "succeeded": 8, "failed": 0}


def test_drift_is_detected_on_the_devices_whose_world_moved_and_nowhere_else(result):
    drift = result["drift"]

    assert drift["detected"] is True
    assert drift["false_alarms"] == 0
    assert set(drift["alerted_devices"]) == set(drift["injected_devices"])
    assert len(drift["injected_devices"]) == 4
    assert drift["accuracy_before"] - drift["accuracy_during"] >= 0.15


def test_retraining_on_the_devices_recovers_the_accuracy(result):
    assert result["retrain"]["grid"] == "FleetGrid"
    assert result["retrain"]["accuracy_after"] >= result["drift"]["accuracy_before"] - 0.04


def test_the_bad_release_is_stopped_at_the_canary_and_rolled_back(result):
    assert result["bad_release"]["stopped"] is True
    assert result["bad_release"]["rolled_back"] is True
    assert 1 <= result["bad_release"]["exposed"] <= 2
    assert result["final_release"] == "digits@2"


@pytest.mark.parametrize(
    ("number", "after_s", "how"),
    [
        (signal.SIGINT, 1, "alone"),
        (signal.SIGINT, 4, "terminal"),
        (signal.SIGHUP, 12, "thrice"),
        (signal.SIGTERM, 25, "alone"),
        (signal.SIGKILL, 25, "alone"),
    ],
)
def test_an_interrupted_demo_leaves_no_process_and_no_temporary_file_behind(tmp_path, number, after_s, how):
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    env = {**os.environ, "TMPDIR": str(temporary)}
    run = subprocess.Popen(demo_command(out), stderr=subprocess.PIPE, text=True, start_new_session=True, env=env)
    try:
        started = children(run)
        for _try in range(600):
            if started or run.poll() is not None:
                break
            time.sleep(0.1)
            started = children(run)
        time.sleep(after_s)
        started += children(run)
        for _repeat in range(3 if how == "thrice" else 1):
            # Ctrl-C in a terminal reaches the compile processes as well.
            (os.killpg if how == "terminal" else os.kill)(run.pid, number)
            time.sleep(0.1)
        _out, errors = run.communicate(timeout=20)
    finally:
        run.kill()
    deadline = time.monotonic() + 5
    while any(is_alive(pid) for pid in started) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert started, "the demo had started nothing yet"
    assert [pid for pid in started if is_alive(pid)] == []
    assert list(temporary.iterdir()) == []
    if number != signal.SIGKILL:
        assert run.returncode == 130
        assert errors.splitlines()[-1].endswith("start it again")
        assert "Traceback" not in errors
    # Another demo may use the folder at once; as soon as it has emptied it, it is stopped.
    again = subprocess.Popen(demo_command(out), stderr=subprocess.PIPE, text=True)
    assert "broker: " in again.stderr.readline()
    again.terminate()
    assert "ended by SIGTERM" in again.communicate(timeout=20)[1]


def children(run: subprocess.Popen) -> list[int]:
    return [child.pid for child in psutil.Process(run.pid).children(recursive=True)]


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
