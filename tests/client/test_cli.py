"""The agent as a process: what it says, how it ends, what it loads."""

import hashlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hedgerow.cli import main
from hedgerow.client.state_folder import StateFolderLock
from hedgerow.errors import BrokerUnreachableError
from hedgerow.link import Message
from hedgerow.manifest import Blob
from hedgerow.mqtt_link import MqttLink
from hedgerow.weights import decode_arrays
from hedgerow.wire import Channel, Desired, Execution, Telemetry, device_topic, parse_topic

HEAVY = ("torch", "flwr", "onnx", "fastapi", "rich", "scipy", "sklearn", "onnxruntime", "tuf", "ai_edge_litert")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
    for option in ("--device", "--source-option", "--window-samples", "--trusted-root", "--log-level"):
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
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--broker", "nowhere"], "--broker"),
        (["--server", "ftp://x"], "--server"),
        (["--device", "a/b"], "device name"),
        (["--source", "nothing.py:x"], "no such file"),
        (["--source-option", "x"], "--source-option"),
        (["--trusted-root", "absent.json"], "root metadata"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_1(tmp_path, repository, capsys, changes, said):
    assert main([*arguments(tmp_path, repository.trusted_root, "http://h", free_port()), *changes]) == 1
    err = capsys.readouterr().err
    sentence = [line for line in err.splitlines() if line.startswith("hedgerow: ")]
    assert len(sentence) == 1
    assert said in sentence[0]
    assert "Traceback" not in err


def test_no_broker_and_nothing_to_serve_is_one_sentence_and_exit_1(tmp_path, repository):
    process = start(tmp_path, *arguments(tmp_path, repository.trusted_root, "http://h", free_port()))
    out, err = process.communicate(timeout=20)
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
    assert (window.samples, window.correct) == (50, 50)
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


def stopped(process: subprocess.Popen) -> float:
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z [A-Z]+ [\w.]+ device=d1 ", line) for line in err.splitlines()), err
    return time.monotonic() - began
