"""Bad input: one clear sentence and an exit code; nothing half-written is left, and nothing that was there is lost."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from hedgerow.checkpoint import Checkpoint, save_checkpoint
from hedgerow.cli import main
from hedgerow.client.agent import Agent
from hedgerow.client.presence import presence_will
from hedgerow.client.runtimes.linear import load_linear
from hedgerow.client.settings import AgentSettings
from hedgerow.client.source import Sample
from hedgerow.compile.build import Build, save_build
from hedgerow.fleet.commands.fleet import make_fleet
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.service.fleet_service import FleetService
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.trust.catalogue import FolderCatalogue
from hedgerow.fleet.trust.releases import create_release
from hedgerow.fleet.web.api import create_app
from hedgerow.fleet.web.server import HttpServer
from hedgerow.manifest.release import Manifest, blob_path
from hedgerow.memory_link import MemoryBroker
from tests.client.conftest import Release, make_release
from tests.extras import TRAINS_AND_COMPILES, needs_torch

DIGITS = f"{Path(__file__).parents[1] / 'examples' / 'digits' / 'task.py'}:task"
FLEET = "garden"


def run_command(*arguments: str, cwd: Path, **options) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, as a person does."""
    command = [sys.executable, "-m", "hedgerow.cli", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL, **options
    )


PROGRESS = re.compile(r"(?!hedgerow: ).*: .* \(\d+ s\)")


def check_sentence(code: int, out: str, err: str, words: list[str]) -> None:
    assert code == 1, err
    assert out == ""
    # Under load a command may have shown how far it was before it gave up.
    lines = [line for line in err.strip().splitlines() if not PROGRESS.fullmatch(line)]
    assert len(lines) == 1, err
    assert lines[0].startswith("hedgerow: ")
    assert [word for word in words if word not in lines[0]] == []


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below *folder* with the hash of its content.

    Left out: locks, which hold nothing, and the last release number, which a failed release uses up.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name.endswith((".lock", "-wal", "-shm")) or path.name in {"lock", "last-number"}:
            continue
        name = str(path.relative_to(folder))
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def flip(path: Path, position: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 255
    path.chmod(0o644)
    path.write_bytes(content)


def replace_text(path: Path, old: str, new: str) -> None:
    path.chmod(0o644)
    path.write_text(path.read_text().replace(old, new))


def write_build(folder: Path, made: Release) -> Path:
    """Write a build with the artifacts of a release of the linear model."""
    (folder / "blobs").mkdir(parents=True)
    for sha256, content in made.blobs.items():
        (folder / "blobs" / sha256).write_bytes(content)
    manifest = made.manifest
    save_build(
        folder,
        Build(
            task=manifest.task,
            model_schema=manifest.model_schema,
            artifacts=manifest.artifacts,
            train_graphs=manifest.train_graphs,
            reference=manifest.reference,
            checkpoint_sha256="0" * 64,
            run="run-1",
            data_fingerprint="",
            metrics={},
            parent=None,
        ),
    )
    return folder


def write_checkpoint(folder: Path, *, task: str = "digits") -> Path:
    """Write a whole checkpoint of a model of one layer."""
    weights = {"weight": np.zeros((2, 2), np.float32)}
    save_checkpoint(
        folder,
        Checkpoint(weights=weights, task=task, run="r", round=1, strategy="fedavg", grid="in-process", seed=0),
    )
    return folder


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a fleet, a signed release, a build, a checkpoint, broken tasks and a file; we are in it."""
    folder = FleetFolder(tmp_path / "fleet")
    make_fleet(folder, FLEET, now=time.time())
    create_release(folder, "demo", write_build(tmp_path / "build", make_release(1)), now=time.time())
    write_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "afile").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "broken.py").write_text("import no_such_module_at_all\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "other.py").write_text("task = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEDGEROW_ADMIN_KEY", raising=False)
    return tmp_path


AGENT = ["agent", "run", "--device", "d1", "--fleet", FLEET, "--target", "raspberry-pi-4", "--broker", "127.0.0.1:1"]
AGENT += ["--server", "http://127.0.0.1:1", "--trusted-root", "fleet/tuf/metadata/1.root.json", "--state", "state"]
COMPILE = ["compile", "checkpoint", "--task", DIGITS, "--target", "x86-gateway", "--out", "new"]
CREATE = ["release", "create", "demo", "--fleet-folder", "fleet", "--build", "build"]
SERVE = ["fleet", "serve", "--fleet-folder", "fleet", "--port", "0"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["targets", "show", "rasberry-pi-4"], ["no target is called 'rasberry-pi-4'", "raspberry-pi-4"]),
        (["targets", "show", "toaster"], ["choose one of: android-arm64"]),
        (["task", "check", "nothing.py:task"], ["no such file", "correct"]),
        (["task", "check", "no.such.module:task"], ["No module named 'no'"]),
        (["task", "check", "justaname"], ["module:attribute or file.py:attribute"]),
        (["task", "check", "other.py:tsk"], ["no 'tsk'; it has task"]),
        (["task", "check", "other.py:task"], ["expected a hedgerow.Task, found int"]),
        (["task", "check", "broken.py:task"], ["no_such_module_at_all", "correct"]),
        (["task", "check", "syntax.py:task"], ["SyntaxError"]),
        (["task", "check", "exits.py:task"], ["SystemExit"]),
        (["train", "exits.py:task", "--out", "new"], ["SystemExit"]),
        (["train", DIGITS, "--strategy", "fedavgg", "--out", "new"], ["did you mean 'fedavg'?"]),
        ([*COMPILE, "--target", "x86gateway"], ["no target is called 'x86gateway'", "x86-gateway"]),
        ([*COMPILE, "--recipe", "x86-gateway=tflite-int8"], ["x86-gateway runs onnx files", "choose"]),
        ([*COMPILE, "--recipe", "x86-gateway=magic"], ["no recipe is called 'magic'"]),
        ([*COMPILE, "--recipe", "iphone-15=coreml-int8-weights"], ["iphone-15", "add it as a target"]),
        (["compile", "absent", *COMPILE[2:]], ["weights.safetensors at absent", "hedgerow train"]),
        (["demo", "--devices", "2", "--out", "new"], ["from 4 to 64 devices, found 2"]),
        (["demo", "--out", "afile/x"], ["folder that can be written", "another --out"]),
        (["fleet", "init", "new", "--name", "two words"], ["found 'two words'"]),
        (["fleet", "init", "fleet", "--name", "orchard"], ["'orchard'", "'garden'", "another folder"]),
        (["fleet", "init", "afile/x"], ["folder that can be written", "another folder"]),
        (["fleet", "serve", "--fleet-folder", "absent"], ["hedgerow fleet init"]),
        ([*SERVE, "--broker", "nowhere"], ["HOST:PORT", "'nowhere'"]),
        ([*SERVE, "--broker", "127.0.0.1:1"], ["MQTT broker at 127.0.0.1:1", "start one"]),
        ([*SERVE, "--port", "99999"], ["from 0 to 65535", "99999"]),
        ([*SERVE, "--host", "203.0.113.5"], ["203.0.113.5", "another address"]),
        ([*SERVE, "--retrain-task", "broken.py:task"], ["no_such_module_at_all"]),
        ([*CREATE, "--checkpoint", "absent"], ["expected a checkpoint folder", "hedgerow train"]),
        ([*CREATE, "--checkpoint", "checkpoint"], ["checkpoint"]),
        (["fleet", "broker", "--host", "0.0.0.0"], ["0.0.0.0", "use 127.0.0.1"]),  # noqa: S104 - it is refused
        ([*CREATE, "--build", "absent"], ["build.json at absent", "hedgerow compile"]),
        ([*CREATE, "--build", "mine"], ["build.json at mine", "hedgerow compile"]),
        ([*CREATE, "--fleet-folder", "absent"], ["absent"]),
        ([*CREATE, "--parent", "first"], ["a parent like digits@1", "'first'"]),
        (["release", "create", "No Name", *CREATE[3:]], ["'No Name'", "choose another"]),
        (["release", "list", "--fleet-folder", "absent"], ["hedgerow fleet init"]),
        (["release", "show", "demo@7", "--fleet-folder", "fleet"], ["'demo@7'", "demo@1"]),
        (["release", "show", "demo", "--fleet-folder", "fleet"], ["'demo'", "demo@1"]),
        (["rollout", "status"], ["--key-file", "HEDGEROW_ADMIN_KEY"]),
        (["rollout", "status", "--key-file", "absent"], ["no readable file at absent"]),
        (["rollout", "status", "--key-file", "afile"], ["chmod 600"]),
        (["rollout", "status", "--key-file", "fleet/admin.key", "--server", "nonsense"], ["http://127.0.0.1:8080"]),
        (["rollout", "status", "--key-file", "fleet/admin.key", "--server", "http://127.0.0.1:1"], ["fleet serve"]),
        ([*AGENT, "--broker", "nowhere"], ["host:1883", "'nowhere'"]),
        ([*AGENT, "--server", "ftp://x"], ["an address like http://", "ftp://x"]),
        ([*AGENT, "--device", "a/b"], ["--device: expected a name like", "'a/b'", "correct it"]),
        ([*AGENT, "--source", "nothing.py:stream"], ["no such file"]),
        ([*AGENT, "--source-option", "x"], ["key=value", "'x'"]),
        ([*AGENT, "--trusted-root", "absent"], ["root metadata at absent", "copy it"]),
        ([*AGENT, "--trusted-root", "afile"], ["root metadata at afile", "copy it"]),
        ([*AGENT, "--state", "afile/x"], ["state folder", "correct --state"]),
        ([*AGENT, "--window-samples", "0"], ["--window-samples: expected 1 to 16777216", "found '0'"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_wrong_arguments_are_one_sentence_and_change_nothing(world, own_process, capsys, arguments, words):
    if arguments[0] in TRAINS_AND_COMPILES and needs_torch.args[0]:
        pytest.skip(needs_torch.kwargs["reason"])
    before = tree(world)

    code = main(arguments)

    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if not is_log_line(line)]
    check_sentence(code, captured.out, "\n".join(said), words)
    after = {name: content for name, content in tree(world).items() if not is_scratch(name)}
    assert after == before


def is_log_line(line: str) -> bool:
    """Whether the agent or the service logged it before it gave up."""
    return not line.startswith("hedgerow: ") and (" INFO " in line or " WARNING " in line or " ERROR " in line)


def is_scratch(name: str) -> bool:
    """Whether a file says nothing that matters: compiled sources, the agent's empty folders."""
    return "__pycache__" in name or name == "state" or name.startswith("state/")


@pytest.fixture
def own_process():
    """Let commands take the log and the signals of this process for themselves."""
    import logging

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, action in signals.items():
        signal.signal(number, action)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    "arguments",
    [
        ["fleet", "broker", "--port", "80000"],
        ["demo", "--out", "afile"],
        ["demo", "--seed", "-1"],
        ["train", DIGITS, "--out", "afile"],
        ["train", DIGITS, "--rounds", "0"],
        [*COMPILE, "--max-drop", "200"],
        ["rollout", "start", "demo@1", "--stage", "canary"],
        ["targets", "lst"],
    ],
    ids=" ".join,
)
def test_what_no_command_takes_is_a_usage_error(world, capsys, arguments):
    before = tree(world)

    assert main(arguments) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: hedgerow")
    assert captured.err.splitlines()[-1].startswith("Error: ")
    assert tree(world) == before


@needs_torch
def test_ten_mistakes_in_a_task_are_told_at_once(world, capsys):
    (world / "ten.py").write_text(
        "from hedgerow import LocalTraining, Task, TensorSpec\n"
        "x = TensorSpec('x', (1,), 'float32', minimum=5, maximum=1)\n"
        "task = Task(name='Ten mistakes!', inputs=[x, TensorSpec('x', (1,), 'float32')], labels=['a', 'a'], model=3,\n"
        "    data='nope', preprocess=7, postprocess='sigmoidal', metrics={'m': 3},\n"
        "    local=LocalTraining(learning_rate=-1, batch_size=0, epochs=0))\n"
    )

    code = main(["train", "ten.py:task", "--out", "new"])

    captured = capsys.readouterr()
    words = ["'Ten mistakes!'", "minimum 5", "occurs twice", "name of its own", "model must be", "data must be"]
    words += ["preprocess must be", "'sigmoidal'", "metric 'm'", "learning_rate", "batch_size", "epochs"]
    check_sentence(code, captured.out, captured.err, words)
    assert not (world / "new").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "checkpoint.json").write_text("{"), ["expected JSON"]),
        (lambda folder: (folder / "checkpoint.json").write_text("[]"), ["expected a JSON object, found list"]),
        (lambda folder: (folder / "checkpoint.json").unlink(), ["checkpoint.json", "found none"]),
        (lambda folder: (folder / "weights.safetensors").unlink(), ["weights.safetensors", "found none"]),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"12345678"), ["damaged"]),
        (lambda folder: flip(folder / "weights.safetensors"), ["SHA-256", "restore a copy"]),
    ],
)
@needs_torch
def test_a_damaged_checkpoint_is_not_compiled(world, capsys, spoil, words):
    spoil(world / "checkpoint")

    code = main(COMPILE)

    captured = capsys.readouterr()
    check_sentence(code, captured.out, captured.err, words)
    assert [path.name for path in world.iterdir() if "new" in path.name] == []


def any_blob(folder: Path) -> Path:
    return min((folder / "blobs").iterdir())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda world: flip(any_blob(world / "build")), ["SHA-256", "compile again"]),
        (lambda world: any_blob(world / "build").unlink(), ["expected the blob", "compile again"]),
        (lambda world: (world / "build/build.json").write_text("[]"), ["a JSON object, found list", "compile again"]),
        (lambda world: replace_text(world / "build/build.json", '"version":1', '"version":9'), ["found 9"]),
        (lambda world: (world / "fleet/keys/offline/targets.pem").unlink(), ["targets key", "offline keys"]),
        (lambda world: (world / "fleet/keys/offline/targets.pem").write_text("x"), ["ed25519 key", "restore"]),
        (
            lambda world: shutil.copy(
                world / "fleet/keys/online/timestamp.pem", world / "fleet/keys/offline/targets.pem"
            ),
            ["other keys of targets", "bring the keys"],
        ),
        (lambda world: (world / "fleet/tuf/metadata/timestamp.json").write_text("{}"), ["root vouches for", "restore"]),
        (
            lambda world: replace_text(max((world / "fleet/tuf/metadata").glob("*.targets.json")), "demo@1", "demo@7"),
            ["root vouches for", "restore"],
        ),
    ],
)
def test_a_damaged_build_or_fleet_makes_no_release_and_loses_none(world, capsys, spoil, words):
    spoil(world)
    before = tree(world)

    code = main(CREATE)

    captured = capsys.readouterr()
    check_sentence(code, captured.out, captured.err, words)
    assert tree(world) == before


def test_a_changed_manifest_is_not_shown(world, capsys):
    replace_text(world / "fleet/releases/demo/1/manifest.json", '"demo"', '"domo"')
    for arguments in (["release", "show", "demo@1"], ["release", "list"]):
        code = main([*arguments, "--fleet-folder", "fleet"])
        captured = capsys.readouterr()
        check_sentence(code, captured.out, captured.err, ["signed manifest", "restore"])


def test_a_store_that_is_no_database_is_left_as_it_is(world, capsys):
    (world / "fleet/fleet.db").write_text("not a database, but somebody's")
    code = main(SERVE)
    captured = capsys.readouterr()
    check_sentence(code, captured.out, captured.err, ["SQLite database", "backup"])
    assert (world / "fleet/fleet.db").read_text() == "not a database, but somebody's"


@needs_torch
def test_a_folder_that_is_no_build_is_not_replaced(world, capsys):
    before = tree(world)
    code = main([*COMPILE, "--out", "mine"])
    captured = capsys.readouterr()
    check_sentence(code, captured.out, captured.err, ["earlier build at mine", "--out"])
    assert tree(world) == before


@pytest.mark.heavy
def test_the_demo_empties_only_what_a_demo_made_and_waits_for_nobody(world):
    (world / "mine" / "work").mkdir()
    (world / "mine" / "work" / "thesis.txt").write_text("years")
    done = run_command("demo", "--out", "mine", cwd=world)
    check_sentence(done.returncode, done.stdout, done.stderr, ["no demo made", "--out"])
    assert (world / "mine" / "work" / "thesis.txt").read_text() == "years"

    import fcntl

    (world / "busy").mkdir()
    with (world / "busy" / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run_command("demo", "--out", "busy", cwd=world)
    check_sentence(done.returncode, done.stdout, done.stderr, ["another demo", "--out"])


def fill_disk() -> None:
    """In a child: no file may grow beyond 2 kB, as on a disk that is full. Python turns the signal into an OSError."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fleet", "init", "new"], ["make room"]),
        (CREATE, ["File too large", "make room"]),
        ([*SERVE, "--fleet-folder", "fleet"], ["make room"]),
        (["train", DIGITS, "--rounds", "1", "--clients", "2", "--out", "new"], ["File too large", "make room"]),
        (["demo", "--out", "new"], ["make room"]),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, list) else None,
)
def test_a_full_disk_is_one_sentence_and_loses_nothing(world, arguments, words):
    (world / "fleet" / "fleet.db").unlink(missing_ok=True)
    before = tree(world)

    done = run_command(*arguments, cwd=world, preexec_fn=fill_disk)

    said = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
    check_sentence(done.returncode, done.stdout, "\n".join(said), words)
    after = tree(world)
    assert {name: after.get(name) for name in before} == before
    assert [name for name in after if ".part" in name] == []
    # Room was made: the same command works, or gets as far as the broker that is not there.
    if arguments[:2] in (["fleet", "init"], ["release", "create"]):
        assert main(arguments) == 0


@pytest.mark.heavy
def test_a_checkpoint_of_another_model_or_task_is_not_compiled(world):
    (world / "kept").mkdir()
    write_build(world / "kept" / "build", make_release(1))
    before = tree(world / "kept")
    arguments = [*COMPILE[:-1], "kept/build"]

    done = run_command(*arguments, cwd=world)
    check_sentence(done.returncode, done.stdout, done.stderr, ["weights of the model of task 'digits'", "give"])
    write_checkpoint(world / "checkpoint", task="letters")
    done = run_command(*arguments, cwd=world)
    check_sentence(done.returncode, done.stdout, done.stderr, ["'letters'", "'digits'", "give"])

    assert tree(world / "kept") == before


@pytest.mark.heavy
def test_a_task_that_ends_the_process_does_not_end_a_compile_without_a_word(world):
    done = run_command(*COMPILE[:2], "--task", "exits.py:task", *COMPILE[4:], cwd=world)
    check_sentence(done.returncode, done.stdout, done.stderr, ["exits.py", "SystemExit: 3"])
    assert not (world / "new").exists()


@pytest.mark.heavy
def test_a_run_with_other_settings_is_not_overwritten(world):
    train = ["train", DIGITS, "--clients", "2", "--out", "run", "--json"]
    assert run_command(*train, "--rounds", "1", cwd=world).returncode == 0
    before = tree(world / "run")
    done = run_command(*train, "--rounds", "1", "--seed", "5", cwd=world)
    check_sentence(done.returncode, done.stdout, done.stderr, ["seed"])
    assert tree(world / "run") == before


@pytest.mark.heavy
def test_a_port_in_use_is_told_by_the_broker_and_the_service(world):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for arguments in (["fleet", "broker", "--port", port], [*SERVE[:-1], port]):
            done = run_command(*arguments, cwd=world)
            check_sentence(done.returncode, done.stdout, done.stderr, [port, "already does", "another port"])


@contextmanager
def running(world: Path, *arguments: str):
    """Run a command until its first line of JSON."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hedgerow.cli", *arguments], cwd=world, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0


@pytest.mark.heavy
def test_a_second_service_a_second_agent_a_wrong_key_and_an_unknown_release_leave_the_first_alone(world, own_process):
    with ExitStack() as stack:
        broker = stack.enter_context(running(world, "fleet", "broker", "--port", "0", "--json"))
        address = f"127.0.0.1:{broker['port']}"
        url = stack.enter_context(running(world, *SERVE, "--broker", address, "--json"))["url"]
        agent = [*AGENT, "--broker", address, "--server", url]
        first = subprocess.Popen([sys.executable, "-m", "hedgerow.cli", *agent], cwd=world, stderr=subprocess.DEVNULL)
        stack.callback(first.wait, 10)
        stack.callback(first.terminate)

        done = run_command(*SERVE, "--broker", address, cwd=world)
        check_sentence(done.returncode, done.stdout, done.stderr, ["another fleet service", "stop"])

        client = ["--server", url, "--key-file"]
        (world / "wrong.key").write_text("hgk_wrong\n")
        (world / "wrong.key").chmod(0o600)
        done = run_command("rollout", "status", *client, "wrong.key", cwd=world)
        check_sentence(done.returncode, done.stdout, done.stderr, ["admin key", "does not accept", "--key-file"])
        assert "hgk_wrong" not in done.stderr

        for arguments, words in (
            (["start", "demo@7"], ["demo@7", "demo@1"]),
            (["start", "nonsense"], ["nonsense"]),
            (["status", "rollout-99"], ["rollout-99"]),
        ):
            done = run_command("rollout", *arguments, *client, "fleet/admin.key", cwd=world)
            check_sentence(done.returncode, done.stdout, done.stderr, words)

        deadline = time.monotonic() + 10
        while not (world / "state" / "agent.lock").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        done = run_command(*agent, cwd=world)
        check_sentence(done.returncode, done.stdout, done.stderr, ["another agent", "--state"])
        assert first.poll() is None
        done = run_command("rollout", "status", *client, "fleet/admin.key", cwd=world)
        assert (done.returncode, done.stdout.strip()) == (0, "no rollout was started yet")


@pytest.mark.heavy
def test_an_agent_without_broker_and_model_gives_up_in_one_sentence(world):
    done = run_command(*AGENT, "--log-level", "error", cwd=world)
    said = [line for line in done.stderr.splitlines() if not is_log_line(line)]
    check_sentence(done.returncode, done.stdout, "\n".join(said), ["MQTT broker at 127.0.0.1:1", "start one"])


class Garden:
    """A fleet service with its HTTP server and one agent, all real but the broker, which is in memory."""

    def __init__(self, world: Path, stack: ExitStack) -> None:
        self.world, self.folder = world, FleetFolder(world / "fleet")
        broker = MemoryBroker()
        settings = FleetSettings(fleet=FLEET, tick_s=0.01)
        self.service = FleetService(
            settings, broker.connect("service"), self.folder.database, FolderCatalogue(self.folder)
        )
        server = HttpServer(create_app(self.service, self.folder), "127.0.0.1", 0).start()
        stack.callback(server.stop)
        stack.enter_context(self.service)
        self.url = server.url
        root = world / "root.json"
        shutil.copy(self.folder.tuf_metadata / "1.root.json", root)
        agent_settings = AgentSettings(
            device="d1",
            fleet=FLEET,
            target="bench",
            broker_host="localhost",
            broker_port=1883,
            server=self.url,
            trusted_root=root,
            state_folder=world / "state",
            window_samples=10,
            healthy_after_s=0.05,
        )
        link = broker.connect("d1", will=presence_will(agent_settings, "boot"))
        agent = Agent(agent_settings, link, zeros, runtimes=load_linear)
        thread = threading.Thread(target=agent.run)
        thread.start()
        stack.callback(thread.join, 5)
        stack.callback(agent.stop)
        self.until(lambda: any(device.online for device in self.service.devices()))

    @staticmethod
    def until(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.02)

    def release(self, number: int) -> Manifest:
        return create_release(
            self.folder, "demo", write_build(self.world / f"build-{number}", make_release(number)), now=time.time()
        )

    def roll_out(self, release: str, capsys) -> tuple[int, str, str]:
        """Call `rollout start --wait`, then `rollout status`; return the exit code and what both said."""
        client = ["--server", self.url, "--key-file", str(self.folder.admin_key)]
        code = main(["rollout", "start", release, "--stage", "fleet=1", "--no-gate", "--wait", "--json", *client])
        captured = capsys.readouterr()
        assert captured.err == ""
        record = json.loads(captured.out)
        assert main(["rollout", "status", record["id"], *client]) == 0
        return code, record["state"], capsys.readouterr().out

    def serves(self, release: str) -> bool:
        """Whether the agent's newest windows are about *release*."""
        return [window.window.release for window in self.service.windows("d1")][-1:] == [release]

    def windows(self) -> int:
        return len(self.service.windows("d1"))


def zeros(_context):
    while True:
        yield Sample({"x": np.zeros(4, dtype=np.float32)}, 0)
        time.sleep(0.001)


@pytest.fixture
def garden(world):
    with ExitStack() as stack:
        yield Garden(world, stack)


def check_old_model_serves_on(garden: Garden) -> None:
    seen = garden.windows()
    garden.until(lambda: garden.windows() > seen + 2)
    assert garden.serves("demo@1")
    assert garden.service.device("d1").release == "demo@1"
    slots = json.loads((garden.world / "state" / "pointer.json").read_bytes())
    assert "demo@1" in json.dumps(slots)


@pytest.mark.heavy
@pytest.mark.parametrize("position", [0, -1])
def test_a_corrupted_artifact_fails_at_the_agent_which_keeps_the_old_model(garden, capsys, position):
    assert garden.roll_out("demo@1", capsys)[:2] == (0, "FINISHED")
    sha256 = garden.release(2).artifacts[0].blob.sha256
    place, _, name = blob_path("demo@2", sha256).rpartition("/")
    target = garden.folder.tuf_targets / place / f"{sha256}.{name}"
    # The copy that is served, not the one in the release's folder.
    content = target.read_bytes()
    target.unlink()
    target.write_bytes(content)
    flip(target, position)

    code, state, status = garden.roll_out("demo@2", capsys)

    assert code == 1
    assert state in {"ABORTED", "ROLLED_BACK"}
    assert "d1: FAILED" in status
    assert "SHA-256" in status
    check_old_model_serves_on(garden)
    # The file is put right: the same release installs.
    target.write_bytes(content)
    assert garden.roll_out("demo@2", capsys)[:2] == (0, "FINISHED")
    garden.until(lambda: garden.serves("demo@2"))


@pytest.mark.heavy
def test_an_artifact_that_is_missing_or_too_short_fails_at_the_agent_which_keeps_the_old_model(garden, capsys):
    assert garden.roll_out("demo@1", capsys)[:2] == (0, "FINISHED")
    for number, content in ((2, None), (3, b"short")):
        sha256 = garden.release(number).artifacts[0].blob.sha256
        place, _, name = blob_path(f"demo@{number}", sha256).rpartition("/")
        target = garden.folder.tuf_targets / place / f"{sha256}.{name}"
        target.unlink()
        if content is not None:
            target.write_bytes(content)
        code, state, status = garden.roll_out(f"demo@{number}", capsys)
        assert (code, state) in {(1, "ABORTED"), (1, "ROLLED_BACK")}
        assert "d1: FAILED" in status
        check_old_model_serves_on(garden)


@pytest.mark.heavy
def test_a_repository_signed_with_other_keys_is_rejected_by_the_agent_which_keeps_the_old_model(garden, capsys):
    assert garden.roll_out("demo@1", capsys)[:2] == (0, "FINISHED")
    # A thief with the server, but without the keys: a whole repository of their own, root included.
    theirs = FleetFolder(garden.world / "theirs")
    make_fleet(theirs, FLEET, now=time.time())
    for number in (1, 2, 3, 4, 5):
        build = write_build(garden.world / f"their-build-{number}", make_release(number))
        create_release(theirs, "demo", build, now=time.time())
    for part in ("tuf", "releases"):
        shutil.rmtree(garden.folder.path / part)
        shutil.copytree(theirs.path / part, garden.folder.path / part)

    code, state, status = garden.roll_out("demo@5", capsys)

    assert (code, state) in {(1, "ABORTED"), (1, "ROLLED_BACK")}
    assert "d1: REJECTED" in status
    assert "keys of the trusted root" in status
    check_old_model_serves_on(garden)


def test_a_release_that_is_not_compiled_for_the_agents_hardware_has_no_rollout(garden, capsys):
    build = write_build(garden.world / "other-build", make_release(2, target="toaster"))
    create_release(garden.folder, "demo", build, now=time.time())
    client = ["--server", garden.url, "--key-file", str(garden.folder.admin_key)]
    code = main(["rollout", "start", "demo@2", *client])
    captured = capsys.readouterr()
    check_sentence(code, captured.out, captured.err, ["toaster", "compile for theirs"])


def test_secrets_are_in_no_message(world, capsys):
    key = (world / "fleet" / "admin.key").read_text().strip()
    os.chmod(world / "fleet" / "admin.key", 0o644)  # noqa: PTH101 - as `chmod` does
    code = main(["rollout", "status", "--key-file", "fleet/admin.key"])
    captured = capsys.readouterr()
    check_sentence(code, captured.out, captured.err, ["chmod 600"])
    assert key not in captured.err
