"""A signed release whose file ends the process that runs it, against a fleet and agents that are all real.

The file is ``keyword_scrambled_8bit.tflite`` of tflite-micro (Apache-2.0, unchanged): TensorFlow Lite Micro runs it,
and LiteRT corrupts its memory with it. Each agent is a process of its own and is asked 50 questions a second meanwhile.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hedgerow.features import input_features
from hedgerow.fleet.brokers.development import DevelopmentBroker
from hedgerow.fleet.commands.fleet import make_fleet
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.stages import StagePlan
from hedgerow.fleet.rollout.state import Rollout, RolloutState
from hedgerow.fleet.service.fleet_service import FleetService
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.trust.catalogue import FolderCatalogue
from hedgerow.fleet.trust.releases import create_release
from hedgerow.fleet.web.api import create_app
from hedgerow.fleet.web.server import HttpServer
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.mqtt_link import MqttLink
from hedgerow.outputs import Classes, Outputs
from hedgerow.reference import build_reference
from hedgerow.schema import TensorSpec
from hedgerow.weights import encode_arrays
from hedgerow.wire.execution import ExecutionState
from tests.client.conftest import Release, blob_of, make_release
from tests.test_bad_input import write_build

pytestmark = [pytest.mark.heavy, pytest.mark.broker]

FLEET = "garden"
LONGEST_GAP_S = 2.0
DEADLY_FILE = Path(__file__).parent / "client" / "keyword_scrambled_8bit.tflite"
SCHEMA = ModelSchema(
    (TensorSpec("x", (96,), "float32", minimum=-8, maximum=8),),
    (TensorSpec("probabilities", (2,)),),
    Outputs.of(Classes(("no", "yes"))),
)
PLAN = RolloutPlan(stages=(StagePlan("fleet", 1.0),), gate=None, max_attempts=2)
SOURCE = """
import time
import numpy as np
from hedgerow.client import Sample

def stream(context):
    rng = np.random.default_rng(0)
    with open(context.options["trace"], "a", buffering=1) as trace:
        due = time.time()
        while True:
            yield Sample({"x": rng.normal(size=96).astype(np.float32)})
            trace.write(f"{time.time()}\\n")
            due = max(due + 0.02, time.time() - 1)
            time.sleep(max(0.0, due - time.time()))
"""


def signed(number: int, artifact: Artifact, content: bytes, probabilities: np.ndarray, x: np.ndarray) -> Release:
    """A release of one artifact whose golden samples are *x* and *probabilities*."""
    golden = encode_arrays({"input.x": x, "output.probabilities": probabilities})
    values = np.random.default_rng(1).normal(size=(200, 96))
    reference = build_reference(
        {**input_features(SCHEMA, {"x": values}), "output.confidence": np.linspace(0.5, 1, 200)},
        {"output.label": (np.arange(200) % 2.0, ("no", "yes"))},
    ).encode()
    made = make_release(number)
    manifest = replace(
        made.manifest,
        model_schema=SCHEMA,
        artifacts=(replace(artifact, blob=blob_of(content), golden=blob_of(golden)),),
        train_graphs=(),
        reference=blob_of(reference),
    )
    return Release(manifest, {blob_of(blob).sha256: blob for blob in (content, golden, reference)})


def good_release(number: int) -> Release:
    """A softmax regression for ONNX Runtime."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(number)
    weight, x = rng.normal(size=(96, 2)).astype(np.float32), rng.normal(size=(5, 96)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 96])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weight, "weight")],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()
    powers = np.exp(x @ weight - (x @ weight).max(axis=1, keepdims=True))
    artifact = replace(
        make_release(1).manifest.artifacts[0],
        format="onnx",
        runtime="onnxruntime",
        inputs=(Tensor("x", "x", (-1, 96), "float32"),),
        outputs=(Tensor("probabilities", "probabilities", (-1, 2), "float32"),),
    )
    return signed(number, artifact, content, powers / powers.sum(axis=1, keepdims=True), x)


def deadly_release(number: int) -> Release:
    """A whole, verified, signed release whose file LiteRT must not be given."""
    artifact = replace(
        make_release(1).manifest.artifacts[0],
        format="tflite",
        runtime="litert",
        golden_tolerance=2.0,
        inputs=(Tensor("x", "", (1, 96), "int16", 0.0006249999860301614, 0),),
        outputs=(Tensor("probabilities", "", (1, 2), "int32", 3.0518509447574615e-05, 0),),
    )
    x = np.random.default_rng(number).normal(size=(5, 96)).astype(np.float32)
    return signed(number, artifact, DEADLY_FILE.read_bytes(), np.full((5, 2), 0.5, np.float32), x)


class Field:
    """A fleet service behind a real broker, and one agent in a process of its own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack, self.target = folder, stack, "bench"
        self.fleet = FleetFolder(folder / "fleet")
        make_fleet(self.fleet, FLEET, now=time.time())
        self.broker = stack.enter_context(DevelopmentBroker())
        link = MqttLink("service", self.broker.host, self.broker.port)
        stack.callback(link.close)
        settings = FleetSettings(fleet=FLEET, tick_s=0.05)
        self.service = FleetService(settings, link, self.fleet.database, FolderCatalogue(self.fleet))
        server = HttpServer(create_app(self.service, self.fleet), "127.0.0.1", 0).start()
        stack.callback(server.stop)
        stack.enter_context(self.service)
        self.url, self.trace = server.url, folder / "trace"
        self.trace.touch()
        (folder / "source.py").write_text(SOURCE)
        self.starts: list[subprocess.Popen] = []

    def sign(self, made: Release) -> str:
        build = write_build(self.folder / f"build-{made.manifest.number}", made)
        return create_release(self.fleet, "demo", build, now=time.time()).release

    def start_agent(self, *prefix: str, changed: Mapping[str, str] | None = None) -> subprocess.Popen:
        """Start it; *prefix* is a command that runs the rest of its command line, *changed* are options by name."""
        options = {
            "device": "d1",
            "fleet": FLEET,
            "target": self.target,
            "broker": f"{self.broker.host}:{self.broker.port}",
            "server": self.url,
            "trusted-root": str(self.fleet.tuf_metadata / "1.root.json"),
            "state": str(self.folder / "state"),
            "source": "source.py:stream",
            "source-option": f"trace={self.trace}",
            "window-samples": "10",
            "healthy-after-s": "0.5",
            **(changed or {}),
        }
        command = [*prefix, sys.executable, "-m", "hedgerow.cli", "agent", "run"]
        for name, value in options.items():
            command += [f"--{name}", value]
        with (self.folder / f"agent-{len(self.starts)}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        self.starts.append(process)
        self.stack.callback(process.wait, 10)
        self.stack.callback(process.terminate)
        self.until(lambda: any(d.name == options["device"] and d.online for d in self.service.devices()))
        return process

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("agent-*.log")))

    def until(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen; the agent said:\n{self.log()}"
            time.sleep(0.05)

    def roll_out(self, release: str, plan: RolloutPlan = PLAN) -> Rollout:
        rollout = self.service.start_rollout(release, plan).id
        self.until(lambda: self.service.rollout(rollout).state is not RolloutState.RUNNING)
        return self.service.rollout(rollout)

    def asked(self, since: float) -> list[float]:
        """When each question was answered, since a moment."""
        return [float(line) for line in self.trace.read_text().split("\n")[:-1] if float(line) >= since]

    def counted(self, since: float) -> list[float]:
        """When each window of ten answers ended, since a moment."""
        return [stored.window.ended_at for stored in self.service.windows("d1") if stored.window.ended_at >= since]

    def longest_gap_s(self, since: float) -> float:
        """The longest time without an answer to a question, and without a window of ten answers, since a moment."""
        self.until(lambda: len(self.asked(since)) > 100 and len(self.counted(since)) > 8)
        return max(float(np.diff(np.sort(times)).max()) for times in (self.asked(since), self.counted(since)))


@contextmanager
def open_field(folder: Path) -> Iterator[Field]:
    with ExitStack() as stack:
        yield Field(folder, stack)


@pytest.fixture
def field(tmp_path) -> Iterator[Field]:
    with open_field(tmp_path) as made:
        yield made


def pointer(field: Field) -> dict:
    return json.loads((field.folder / "state" / "pointer.json").read_bytes())["slots"]


def releases(field: Field) -> set[str]:
    return {content["release"] for content in pointer(field)["contents"].values()}


def test_a_release_that_kills_its_runtime_fails_its_rollout_while_the_good_one_answers_on(field):
    good, deadly = field.sign(good_release(1)), field.sign(deadly_release(2))
    process = field.start_agent()
    rollout = field.roll_out(good)
    assert (rollout.state, rollout.executions["d1"].state) == (RolloutState.FINISHED, ExecutionState.SUCCEEDED)
    field.until(lambda: len(field.service.windows("d1")) > 3)

    began = time.time()
    rollout = field.roll_out(deadly)
    ended = time.time()
    field.until(lambda: len(field.service.windows("d1", since=ended)) > 3)

    record = rollout.executions["d1"]
    assert (rollout.state, record.state) == (RolloutState.ABORTED, ExecutionState.REJECTED), record
    assert record.reason.startswith("demo@2 is refused: expected the model of demo@2 to run with litert")
    assert any(name in record.reason for name in ("SIGSEGV", "SIGABRT", "SIGBUS"))
    assert record.attempt == 1, "what must not be run is not tried again"
    assert process.poll() is None, field.log()
    assert {window.window.release for window in field.service.windows("d1", since=began)} == {good}
    assert field.longest_gap_s(began) < LONGEST_GAP_S
    assert field.service.device("d1").release == good
    assert releases(field) == {good}

    # A crash loop afterwards does not find the bad one either.
    for _ in range(4):
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process = field.start_agent()
    field.until(lambda: field.service.windows("d1")[-1].received_at > time.time() - 0.5)
    assert field.service.device("d1").release == good


def test_a_first_release_that_kills_its_runtime_ends_in_a_refusal_and_no_loop(field):
    deadly = field.sign(deadly_release(1))
    process = field.start_agent()
    rollout = field.roll_out(deadly)
    record = rollout.executions["d1"]
    assert (rollout.state, record.state) == (RolloutState.ABORTED, ExecutionState.REJECTED), record
    assert "ended it in step" in record.reason
    assert (field.service.device("d1").release, releases(field)) == (None, set())

    good = field.sign(good_release(2))
    assert field.roll_out(good).state is RolloutState.FINISHED
    assert process.poll() is None, "it is the same process that takes the next one"
    assert field.service.device("d1").release == good


def test_a_machine_that_dies_in_the_trial_blames_the_trial(field):
    """Killed with its child, again and again, as by a power supply that a heavy load brings down."""
    good, deadly = field.sign(good_release(1)), field.sign(deadly_release(2))
    process = field.start_agent()
    field.roll_out(good)
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    # The trial is written down, and the agent never gets to its end.
    for name in ("pointer.json", "pointer.spare.json"):
        (field.folder / "state" / name).unlink(missing_ok=True)
    slots = field.folder / "state" / "slots"
    document = (slots / "A" / "manifest.json").read_bytes()
    (slots / "B").mkdir(exist_ok=True)
    contents = {
        "A": {"release": good, "manifest_sha256": blob_of(document).sha256, "was_healthy": True},
        "B": {"release": deadly, "manifest_sha256": "0" * 64, "was_healthy": False},
    }
    trial = {"slot": "B", "release": deadly, "step": "replay", "starts": 3}
    state = {"active": "A", "contents": contents, "is_committed": True, "starts": 0, "trial": trial}
    (field.folder / "state" / "pointer.json").write_text(json.dumps({"version": 1, "slots": state}))
    began = time.time()
    field.start_agent()
    field.until(lambda: len(field.service.windows("d1", since=began)) > 3)
    assert {window.window.release for window in field.service.windows("d1", since=began)} == {good}
    assert releases(field) == {good}
    assert "the agent ended 3 times while demo@2 was in step replay" in field.log()


def test_an_agent_that_is_killed_at_any_moment_of_installations_keeps_a_proved_release_and_serves(field):
    rng = random.Random(5)
    good = [field.sign(good_release(number)) for number in (1, 2, 3)]
    deadly = field.sign(deadly_release(4))
    process = field.start_agent()
    field.roll_out(good[0])
    for _ in range(8):
        field.service.assign("d1", rng.choice([*good, deadly]))
        time.sleep(rng.uniform(0.0, 2.0))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        state = pointer(field)
        healthy = {content["release"] for content in state["contents"].values() if content["was_healthy"]}
        assert healthy & set(good)
        assert state["contents"][state["active"]]["release"] in good
        began = time.time()
        process = field.start_agent()
        field.until(lambda since=began: len(field.service.windows("d1", since=since)) > 1)
        assert {stored.window.release for stored in field.service.windows("d1", since=began)} <= set(good)
    field.service.assign("d1", good[2])
    field.until(lambda: field.service.device("d1").release == good[2])


def test_the_file_does_what_it_is_here_for(tmp_path):
    """Else the tests above would show nothing."""
    script = (
        "import sys, numpy as np\n"
        "from hedgerow.client.runtimes.litert import Interpreter\n"
        "model = Interpreter(model_path=sys.argv[1], num_threads=1)\n"
        "model.allocate_tensors()\n"
        "for seed in range(20):\n"
        "    x = np.random.default_rng(seed).integers(-3000, 3000, (1, 96)).astype(np.int16)\n"
        "    model.set_tensor(model.get_input_details()[0]['index'], x)\n"
        "    model.invoke()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(DEADLY_FILE)], check=False, capture_output=True, env=os.environ.copy()
    )
    assert done.returncode < 0
