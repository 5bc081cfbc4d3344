"""The commands, called as `hedgerow` calls them."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from hedgerow.cli import main
from hedgerow.fleet.commands.fleet import _keep_signed, make_fleet, read_fleet_name
from hedgerow.fleet.errors import FleetFolderError, ServiceSettingsError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.store.writing import Store
from hedgerow.fleet.trust.keys import load_signers
from hedgerow.fleet.trust.signing import expiries, init_repository
from hedgerow.fleet.trust.tuf_metadata import Lifetimes
from hedgerow.fleet.web.admin_keys import hash_key
from tests.processes import free_port

PYTHON = [sys.executable, "-m", "hedgerow.cli"]


@contextmanager
def running(*arguments):
    """Run a command in its own process until its first line of JSON; stop it as Ctrl-C does."""
    process = subprocess.Popen([*PYTHON, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_init_makes_a_whole_fleet_and_keeps_what_is_there(tmp_path, capsys):
    assert main(["fleet", "init", str(tmp_path / "f"), "--name", "garden"]) == 0
    folder = FleetFolder(tmp_path / "f")
    key = folder.admin_key.read_text().strip()
    assert key not in capsys.readouterr().out
    assert folder.admin_key.stat().st_mode & 0o777 == 0o600
    assert read_fleet_name(folder) == "garden"
    store = Store(folder.database)
    assert store.admin_key_hashes() == (hash_key(key),)
    store.close()
    before = (folder.tuf_metadata / "1.root.json").read_bytes()
    assert main(["fleet", "init", str(tmp_path / "f"), "--name", "garden", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fleet"] == "garden"
    assert folder.admin_key.read_text().strip() == key
    assert (folder.tuf_metadata / "1.root.json").read_bytes() == before


def test_init_refuses_a_bad_name_and_the_folder_of_another_fleet(tmp_path):
    folder = FleetFolder(tmp_path / "f")
    with pytest.raises(ServiceSettingsError, match="two words"):
        make_fleet(folder, "two words", now=1.0)
    make_fleet(folder, "garden", now=time.time())
    with pytest.raises(FleetFolderError, match="garden"):
        make_fleet(folder, "orchard", now=time.time())
    (tmp_path / "file").write_text("")
    with pytest.raises(FleetFolderError):
        make_fleet(FleetFolder(tmp_path / "file"), "garden", now=1.0)


def test_the_service_says_once_a_day_what_ends_soon_and_says_why_it_cannot_sign(tmp_path, caplog):
    folder = FleetFolder(tmp_path / "f")
    make_fleet(folder, "garden", now=time.time())
    shutil.rmtree(folder.tuf)
    init_repository(folder, load_signers(folder), time.time(), lifetimes=Lifetimes(root_s=2, timestamp_s=3600))
    while time.time() <= expiries(folder)["root"]:
        time.sleep(0.05)
    turns = []

    class Stopped:
        def wait(self, _seconds):
            turns.append(len(turns))
            return len(turns) == 3

    before = (folder.tuf_metadata / "timestamp.json").read_bytes()
    _keep_signed(folder, Stopped())
    assert caplog.text.count("the signature of root ended at") == 1
    assert caplog.text.count("could not sign the timestamp anew: expected metadata that a device accepts") == 3
    assert (folder.tuf_metadata / "timestamp.json").read_bytes() == before


@pytest.mark.parametrize("command", ["init", "serve", "broker", "status", "renew"])
def test_every_command_has_help(command, capsys):
    assert main(["fleet", command, "--help"]) == 0
    assert "Example:" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["start", "status"])
def test_every_rollout_command_has_help_and_takes_no_key(command, capsys):
    assert main(["rollout", command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--key-file" in text
    assert "--key " not in text


def sentence(capsys):
    text = capsys.readouterr().err.strip()
    assert text.startswith("hedgerow: ")
    assert "\n" not in text
    return text


def test_serve_says_in_one_sentence_what_is_wrong(tmp_path, capsys):
    assert main(["fleet", "serve", "--fleet-folder", str(tmp_path)]) == 1
    assert "hedgerow fleet init" in sentence(capsys)
    folder = tmp_path / "f"
    make_fleet(FleetFolder(folder), "garden", now=time.time())
    serve = ["fleet", "serve", "--fleet-folder", str(folder), "--port", "0"]
    assert main([*serve, "--broker", "nowhere"]) == 1
    assert "HOST:PORT" in sentence(capsys)
    assert main([*serve, "--broker", f"127.0.0.1:{free_port()}"]) == 1
    assert "MQTT broker" in sentence(capsys)
    assert main([*serve, "--retrain-task", "no_such_module:TASK"]) == 1
    assert "no_such_module" in sentence(capsys)
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main([*serve[:-1], str(other.getsockname()[1])]) == 1
        assert "already does" in sentence(capsys)


def test_rollout_says_in_one_sentence_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HEDGEROW_ADMIN_KEY", raising=False)
    assert main(["rollout", "status"]) == 1
    assert "--key-file" in sentence(capsys)
    monkeypatch.setenv("HEDGEROW_ADMIN_KEY", "hgk_x")
    assert main(["rollout", "status", "--server", f"http://127.0.0.1:{free_port()}"]) == 1
    assert "hedgerow fleet serve" in sentence(capsys)
    for address in ("nonsense", "http://[", "http://a..b:1", "http://a:99999"):
        assert main(["rollout", "status", "--server", address]) == 1
        assert f"at {address}, found none (that is not an address like http://" in sentence(capsys)
    assert main(["rollout", "status", "--key-file", str(tmp_path / "absent")]) == 1
    assert "absent" in sentence(capsys)
    assert main(["rollout", "start", "digits@1", "--stage", "canary"]) == 2


def test_serve_refuses_another_fleets_name_in_a_file_or_a_variable(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "fleet"
    assert main(["fleet", "init", str(folder), "--name", "garden"]) == 0
    capsys.readouterr()
    file = tmp_path / "s.toml"
    file.write_text('fleet = "other"\n')
    serve = ["fleet", "serve", "--fleet-folder", str(folder), "--port", "0"]
    assert main([*serve, "--settings", str(file)]) == 1
    expected = f"expected garden, the name of the fleet in {folder}, found 'other'"
    assert f"{file}, fleet: {expected}" in sentence(capsys)
    monkeypatch.setenv("HEDGEROW_FLEET_FLEET", "other")
    assert main(serve) == 1
    assert f"HEDGEROW_FLEET_FLEET: {expected}" in sentence(capsys)


@pytest.mark.heavy
def test_serve_and_rollout_work_together_and_end_with_an_interrupt(tmp_path, capsys):
    folder = FleetFolder(tmp_path / "f")
    make_fleet(folder, "garden", now=time.time())
    with (
        running("fleet", "broker", "--port", "0", "--json") as broker,
        running(
            "fleet", "serve", "--fleet-folder", str(folder.path), "--port", "0", "--json",
            "--broker", f"127.0.0.1:{broker['port']}",
        ) as served,
    ):  # fmt: skip
        url = served["url"]
        assert httpx.get(f"{url}/healthz", trust_env=False).json()["fleet"] == "garden"
        assert httpx.get(f"{url}/tuf/metadata/timestamp.json", trust_env=False).status_code == 200
        key_file = str(folder.admin_key)
        assert main(["rollout", "status", "--server", url, "--key-file", key_file, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"rollouts": []}
        assert main(["device", "reset", "pi-0", "--server", url, "--key-file", key_file]) == 1
        assert "pi-0" in sentence(capsys)
        assert main(["rollout", "start", "digits@1", "--server", url, "--key-file", key_file]) == 1
        assert "digits@1" in sentence(capsys)
        Path(tmp_path / "wrong.key").write_text("hgk_wrong\n")
        Path(tmp_path / "wrong.key").chmod(0o600)
        assert main(["rollout", "status", "--server", url, "--key-file", str(tmp_path / "wrong.key")]) == 1
        assert "admin key" in sentence(capsys)
        second = ["fleet", "serve", "--fleet-folder", str(folder.path), "--port", "0"]
        assert main([*second, "--broker", f"127.0.0.1:{broker['port']}"]) == 1
        assert "another fleet service" in sentence(capsys)


def test_the_broker_command_ends_with_an_error_when_its_broker_ended():
    command = [*PYTHON, "fleet", "broker", "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running = json.loads(process.stdout.readline())
    (child,) = psutil.Process(process.pid).children()

    child.kill()

    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said == (
        f"hedgerow: expected the broker {running['broker']} to run on at 127.0.0.1:{running['port']}, found that it "
        "ended; start it again\n"
    )
