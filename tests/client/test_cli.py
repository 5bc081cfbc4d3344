"""The agent as a process: what it says, how it ends, what it loads."""

import hashlib
import json
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest

from hedgerow.cli import main
from hedgerow.client.fleet_http import FleetHttp
from hedgerow.client.install import Installer
from hedgerow.client.slot_folders import SlotFolders
from hedgerow.client.state_folder import StateFolderLock
from hedgerow.client.trust import open_trust
from hedgerow.errors import BrokerUnreachableError
from hedgerow.link import Message
from hedgerow.manifest.content import Blob
from hedgerow.mqtt_link import MqttLink
from hedgerow.weights import decode_arrays
from hedgerow.wire.device import Desired
from hedgerow.wire.execution import Execution
from hedgerow.wire.telemetry import Telemetry
from hedgerow.wire.topics import Channel, device_topic, parse_topic
from tests.client.conftest import linear_weights
from tests.processes import free_port

HEAVY = ("torch", "flwr", "onnx", "fastapi", "rich", "scipy", "sklearn", "onnxruntime", "tuf", "ai_edge_litert")


def arguments(folder: Path, root: Path, url: str, port: int, *more: str) -> list[str]:
    values = {
        "device": "d1",
        "fleet": "f",
        "target": "bench",
        "broker": f"127.0.0.1:{port}",
        "server": url,
        "trusted-root": str(root),
        "state": str(folder / "state"),
    }
    return ["agent", "run", *(text for name, value in values.items() for text in (f"--{name}", value)), *more]


def start(folder: Path, *command: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "hedgerow.cli", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )


def test_importing_the_agent_loads_nothing_heavy():
    script = f"""
import sys, hedgerow.client, hedgerow.client.cli
loaded = sorted(set({HEAVY!r}) & set(sys.modules))
sys.exit(str(loaded) if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_names_every_option(capsys):
    assert main(["agent", "run", "--help"]) == 0
    text = capsys.readouterr().out
    for option in (
        "--device",
        "--source-option",
        "--sink",
        "--print",
        "--window-samples",
        "--trusted-root",
        "--log-level",
    ):
        assert option in text


@pytest.fixture
def own_log():
    """The command takes the root logger and the signals of its process for itself."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in signals.items():
        signal.signal(number, handler)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("own_log")
def test_what_is_required_may_stand_in_a_file_or_a_variable_and_is_misuse_when_it_stands_nowhere(
    tmp_path, repository, capsys, monkeypatch
):
    path = tmp_path / "agent.toml"
    path.write_text('fleet = "f"\ntarget = "bench"\nbroker_host = "127.0.0.1"\nserver = "http://h"\n')
    command = ["agent", "run", "--settings", str(path), "--state", str(tmp_path / "state")]
    assert main(command) == 2
    assert "Error: Missing option '--device'." in capsys.readouterr().err
    monkeypatch.setenv("HEDGEROW_AGENT_DEVICE", "d1")
    monkeypatch.setenv("HEDGEROW_AGENT_TRUSTED_ROOT", str(repository.trusted_root))
    assert main(command) == 2
    assert "Error: Missing option '--broker'." in capsys.readouterr().err
    monkeypatch.setenv("HEDGEROW_AGENT_BROKER_PORT", str(free_port()))
    path.write_text(path.read_text() + "spool_windows = 0\n")
    assert main(command) == 1
    assert f"hedgerow: {path}, spool_windows: expected at least 1, found '0'; correct it" in capsys.readouterr().err
    monkeypatch.setenv("HEDGEROW_AGENT_SPOOL_WINDOWS", "many")
    assert main(command) == 1
    assert "HEDGEROW_AGENT_SPOOL_WINDOWS: expected a whole number, found 'many'" in capsys.readouterr().err
    monkeypatch.setenv("HEDGEROW_AGENT_SPOOL_WINDOWS", "5")
    assert main(command) == 1
    # All is well but that no broker answers: the device's name and address are those of the sources.
    assert "expected an MQTT broker at 127.0.0.1:" in capsys.readouterr().err


@pytest.mark.usefixtures("own_log")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--broker", "nowhere"], "--broker"),
        (["--server", "ftp://x"], "--server"),
        (["--device", "a/b"], "--device: expected a name like"),
        (["--source", "nothing.py:x"], "--source 'nothing.py:x' cannot be used: there is no such file"),
        (["--source-option", "x"], "--source-option"),
        (["--trusted-root", "absent.json"], "root metadata"),
        (
            ["--source", "os:getcwd", "--sink", "nothing.py:x"],
            "--sink 'nothing.py:x' cannot be used: there is no such file",
        ),
        (["--source", "os:getcwd", "--sink", "os:sep"], "correct --sink"),
        (["--source", "os:sep"], "correct --source"),
        (["--print"], "--source beside"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_1(tmp_path, repository, capsys, changes, said):
    assert main([*arguments(tmp_path, repository.trusted_root, "http://h", free_port()), *changes]) == 1
    err = capsys.readouterr().err
    sentence = [line for line in err.splitlines() if line.startswith("hedgerow: ")]
    assert len(sentence) == 1
    assert said in sentence[0]
    assert "Traceback" not in err


@pytest.mark.usefixtures("own_log")
def test_a_misspelt_target_is_told_and_one_of_the_list_is_not(tmp_path, repository, capsys):
    command = arguments(tmp_path, repository.trusted_root, "http://h", free_port())

    main([*command, "--target", "raspbery-pi-4"])
    told = [line for line in capsys.readouterr().err.splitlines() if "WARNING client.cli" in line]
    main([*command, "--target", "raspberry-pi-4"])

    assert len(told) == 1
    assert "no target is called 'raspbery-pi-4'; did you mean 'raspberry-pi-4'?" in told[0]
    assert "WARNING client.cli" not in capsys.readouterr().err


def test_no_broker_and_nothing_to_serve_is_one_sentence_and_exit_1(tmp_path, repository):
    with start(tmp_path, *arguments(tmp_path, repository.trusted_root, "http://h", free_port())) as process:
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 1
    assert out == ""
    assert re.search(r"^hedgerow: expected an MQTT broker at 127\.0\.0\.1:\d+, found none", err, re.MULTILINE)
    assert "Traceback" not in err


@pytest.mark.usefixtures("own_log")
def test_a_second_agent_is_kept_out_of_the_state_folder(tmp_path, repository, capsys):
    with StateFolderLock(tmp_path / "state"):
        assert main(arguments(tmp_path, repository.trusted_root, "http://h", free_port())) == 1
    assert "another agent" in capsys.readouterr().err


@pytest.fixture
def broker(tmp_path):
    """A real broker, where mosquitto is installed."""
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if mosquitto is None:
        pytest.skip("mosquitto is not installed")
    port = free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    process = subprocess.Popen([mosquitto, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield port
    process.terminate()
    process.wait(5)


def connect(port: int) -> MqttLink:
    deadline = time.monotonic() + 5
    while True:
        try:
            return MqttLink("ear", "127.0.0.1", port)
        except BrokerUnreachableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def wait(ear: MqttLink, kind: type, channel: Channel, condition=lambda _message: True):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        event = ear.receive(0.1)
        if isinstance(event, Message):
            ear.acknowledge(event)
            place = parse_topic(event.topic)
            if place is not None and place[2] is channel and condition(message := kind.decode(event.payload)):
                return message
    pytest.fail(f"no {kind.__name__}")


def as_onnx(made):
    """The same release for ONNX Runtime, with the model as an ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    old = made.manifest.artifacts[0]
    weights = decode_arrays(made.blobs[old.blob.sha256], "weights", limit_bytes=10**6)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "weight", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()
    blob = Blob(hashlib.sha256(content).hexdigest(), len(content))
    artifact = replace(old, runtime="onnxruntime", format="onnx", blob=blob)
    manifest = replace(made.manifest, artifacts=(artifact,), train_graphs=())
    return type(made)(manifest, {**made.blobs, blob.sha256: content})


SOURCE = """
import time
import numpy as np
from hedgerow.client import Sample

def stream(context):
    while True:
        yield Sample({"x": np.zeros(4, dtype=np.float32)}, int(context.options["label"]))
        time.sleep(0.001)
"""


@pytest.mark.heavy
@pytest.mark.broker
def test_the_whole_agent_over_a_real_broker_with_onnx_runtime(tmp_path, repository, fleet, release, broker):
    repository.add(as_onnx(release(1)))
    (tmp_path / "source.py").write_text(SOURCE)
    more = ["--source", "source.py:stream", "--source-option", "label=0", "--window-samples", "50"]
    command = arguments(tmp_path, repository.trusted_root, fleet.url, broker, *more)
    ear = connect(broker)
    ear.subscribe("hedgerow/v1/f/#")
    process = start(tmp_path, *command)
    ear.publish(
        device_topic("f", "d1", Channel.DESIRED),
        Desired(version=1, release="demo@1", rollout="r", compare=False).encode(),
        retain=True,
    )
    terminal = wait(ear, Execution, Channel.EXECUTION, lambda message: message.state.is_terminal)
    assert terminal.state.value == "SUCCEEDED", terminal.reason
    window = wait(ear, Telemetry, Channel.TELEMETRY).window
    assert (window.samples, window.scores.total) == (50, 50)
    assert stopped(process) < 2
    # Without the network: it serves, and ends in order all the same.
    lonely = start(tmp_path, *arguments(tmp_path, repository.trusted_root, fleet.url, free_port(), *more))
    deadline = time.monotonic() + 10
    spool = tmp_path / "state" / "spool"
    while len(list(spool.glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert stopped(lonely) < 2
    assert len(list(spool.glob("*.json"))) >= 3
    assert json.loads((tmp_path / "state" / "pointer.json").read_bytes())["slots"]["starts"] == 0
    ear.close()


ANSWERING = """
import itertools
import json
import time
from pathlib import Path

import numpy as np
from hedgerow.client import Answer, Sample

def sample(number):
    return Sample({"x": np.asarray([number % 5, 1, -1, 0.5], dtype=np.float32)}, 0)

def stream(context):
    rate_per_s = float(context.options.get("rate_per_s", "500"))
    with open(context.options.get("notes", "yielded.jsonl"), "w") as notes:
        for number in itertools.count():
            answer = yield sample(number)
            if answer is not None:
                notes.write(json.dumps([number, answer.release, answer.index, answer.label, answer.confidence]) + "\\n")
                notes.flush()
            time.sleep(1 / rate_per_s)

def act(answer: Answer) -> None:
    with open("acted.jsonl", "a") as acted:
        acted.write(json.dumps([answer.release, answer.index, answer.outputs["probabilities"].tolist()]) + "\\n")

def hang(answer: Answer) -> None:
    time.sleep(3600)

def fail(answer: Answer) -> None:
    raise RuntimeError("no hands")
"""


@pytest.fixture
def serving(tmp_path, repository, fleet, release):
    """A folder with a source and sinks, and an agent's state with an installed ONNX model; no broker anywhere."""
    pytest.importorskip("onnx")
    made = as_onnx(release(1))
    repository.add(made)
    http = FleetHttp(fleet.url)
    root = repository.trusted_root.read_bytes()
    state = tmp_path / "state"
    Installer(
        slots=SlotFolders(state, "bench"),
        http=http,
        trust=lambda name: open_trust(state / "tuf", root, http, name),
        target="bench",
        downloads=state / "downloads",
        pause=lambda _seconds: False,
    ).install("demo@1", enter=lambda _step: None, activate=lambda _ready: None)
    (tmp_path / "app.py").write_text(ANSWERING)
    processes = []

    def run(*more: str) -> subprocess.Popen:
        command = arguments(tmp_path, repository.trusted_root, fleet.url, free_port(), "--source", "app.py:stream")
        process = subprocess.Popen(
            [sys.executable, "-m", "hedgerow.cli", *command, *more],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"},
        )
        copying = threading.Thread(target=copy, args=(process.stderr, tmp_path / "stderr"))
        copying.start()
        processes.append((process, copying))
        return process

    yield run
    for process, copying in processes:
        process.kill()
        process.wait()
        copying.join()
        process.stdout.close()
        process.stderr.close()


def copy(lines: TextIO, path: Path) -> None:
    with path.open("w") as file:
        for line in lines:
            file.write(line)
            file.flush()


def softmax_of(number: int) -> np.ndarray:
    """What the model must say of sample *number*, computed here."""
    weights = linear_weights(1)
    logits = np.asarray([number % 5, 1, -1, 0.5]) @ weights["weight"].astype(np.float64) + weights["bias"]
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def records(path: Path, count: int) -> list:
    """Wait for *count* whole lines of JSON and return them."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        if len(lines) >= count:
            return [json.loads(line) for line in lines]
        time.sleep(0.02)
    pytest.fail(f"{path.name} has {len(lines)} lines; {(path.parent / 'stderr').read_text()}")


def end(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


@pytest.mark.heavy
def test_answers_come_back_to_the_source_to_the_sink_and_as_lines(tmp_path, serving):
    process = serving("--sink", "app.py:act", "--print", "--source-option", "rate_per_s=200")
    printed = [json.loads(process.stdout.readline()) for _ in range(12)]
    yielded, acted = records(tmp_path / "yielded.jsonl", 12), records(tmp_path / "acted.jsonl", 12)
    end(process)
    for number in range(12):
        wanted = softmax_of(number)
        index = int(wanted.argmax())
        line = printed[number]
        told = line["told"]
        assert (line["release"], told["index"], told["label"]) == ("demo@1", index, "abc"[index])
        assert line["outputs"]["probabilities"] == pytest.approx(wanted.tolist(), abs=1e-5)
        assert told["confidence"] == line["outputs"]["probabilities"][index]
        assert yielded[number][:4] == [number, "demo@1", index, "abc"[index]]
        assert yielded[number][4] == pytest.approx(wanted[index], abs=1e-5)
        assert acted[number][:2] == ["demo@1", index]
        assert acted[number][2] == pytest.approx(wanted.tolist(), abs=1e-5)
    assert all(" ERROR " not in line for line in (tmp_path / "stderr").read_text().splitlines())


@pytest.mark.heavy
def test_a_reader_that_leaves_ends_the_agent_in_order(tmp_path, serving):
    process = serving("--print")
    head = subprocess.run(["head", "-n", "3"], stdin=process.stdout, capture_output=True, text=True, check=True)
    process.stdout.close()
    assert [json.loads(line)["release"] for line in head.stdout.splitlines()] == ["demo@1"] * 3
    assert process.wait(10) == 1
    said = (tmp_path / "stderr").read_text()
    assert "nobody reads" in said
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert json.loads((tmp_path / "state" / "pointer.json").read_bytes())["slots"]["starts"] == 0, "it was no crash"


@pytest.mark.heavy
@pytest.mark.parametrize("sink", ["hang", "fail"])
def test_a_sink_that_hangs_or_raises_is_named_and_holds_nothing_up(tmp_path, serving, sink):
    process = serving("--sink", f"app.py:{sink}", "--print")
    for _ in range(300):
        json.loads(process.stdout.readline())
    assert len(records(tmp_path / "yielded.jsonl", 300)) >= 300
    end(process)
    errors = [line for line in (tmp_path / "stderr").read_text().splitlines() if " ERROR " in line]
    assert len(errors) == 1
    assert "an answer could not be handed on" in errors[0]
    assert ("100 answers waiting" if sink == "hang" else "RuntimeError: no hands") in errors[0]


@pytest.mark.heavy
def test_a_reader_that_sleeps_does_not_hold_serving_up(tmp_path, serving):
    process = serving("--print", "--source-option", "rate_per_s=2000")
    process.stdout.readline()
    # A pipe holds 64 KiB, about 500 answers; nobody reads from here on.
    yielded = records(tmp_path / "yielded.jsonl", 3000)
    assert [record[0] for record in yielded] == list(range(len(yielded)))
    end(process)
    assert "100 answers waiting; the oldest is dropped" in (tmp_path / "stderr").read_text()


@pytest.mark.heavy
def test_a_full_disk_is_said_once_and_again_at_the_end_and_costs_no_window(tmp_path, serving):
    """A limit on the size of a file stands for a disk that is full: writing past it fails in the kernel."""
    process = serving("--print", "--window-samples", "5", "--source-option", "notes=/dev/null")
    log = tmp_path / "stderr"
    for _ in range(20):
        process.stdout.readline()
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    spool = tmp_path / "state" / "spool"
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, hard))
    while "a window could not be written" not in log.read_text():
        assert process.stdout.readline()
    for _ in range(500):
        assert json.loads(process.stdout.readline())["release"] == "demo@1"
    kept = len(list(spool.glob("*.json")))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))
    deadline = time.monotonic() + 30
    while "windows are written again" not in log.read_text() and time.monotonic() < deadline:
        assert process.stdout.readline()
    end(process)
    about = [line for line in log.read_text().splitlines() if "window" in line and "client.health" in line]
    assert len(about) == 2, about
    assert "ERROR" in about[0]
    waited = int(re.search(r"windows are written again; ([\d,]+) were not written", about[1])[1].replace(",", ""))
    assert waited >= 90
    numbers = sorted(json.loads(path.read_bytes().splitlines()[0])["sequence"] for path in spool.glob("*.json"))
    assert kept + waited <= len(numbers)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "what waited in memory was written after all"


def stopped(process: subprocess.Popen) -> float:
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z [A-Z]+ [\w.]+ device=d1 ", line) for line in err.splitlines()), err
    return time.monotonic() - began
