"""One valid document of every kind that crosses the wire, and ways to damage it."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob, Tensor
from hedgerow.manifest.preparation import Preparation
from hedgerow.manifest.release import Lineage, Manifest
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs
from hedgerow.reference import FeatureReference, Reference
from hedgerow.schema import TensorSpec
from hedgerow.window import FeatureCounts, Window
from hedgerow.wire.device import Desired, Presence, Reported
from hedgerow.wire.execution import Execution, ExecutionState
from hedgerow.wire.telemetry import Telemetry
from hedgerow.wire.training import TrainTask, TrainUpdate
from tests.scores import pairs, scored

BLOB = Blob("0" * 63 + "a", 1234)
SCHEMA = ModelSchema(
    inputs=(TensorSpec("image", (1, 8, 8), unit="intensity 0-16", minimum=0.0, maximum=16.0),),
    outputs=(TensorSpec("probabilities", (3,), minimum=0.0, maximum=1.0),),
    answers=Outputs.of(Classes(("zero", "one", "two"))),
)
STREAMING_SCHEMA = ModelSchema(
    inputs=(TensorSpec("frame", (16,)), TensorSpec("h", (2, 1, 128))),
    outputs=(TensorSpec("probabilities", (2,)), TensorSpec("h_next", (2, 1, 128))),
    answers=Outputs.of(Classes(("silence", "speech"))),
    state={"h": "h_next"},
)
TENSOR = Tensor("image", "args_0", (-1, 1, 8, 8), "int8", scale=0.5, zero_point=-128)
PLAIN_TENSOR = Tensor("probabilities", "output_0", (-1, 3), "float32")
ARTIFACT = Artifact(
    target="raspberry-pi-4",
    format="onnx",
    runtime="onnxruntime",
    blob=BLOB,
    inputs=(TENSOR,),
    outputs=(PLAIN_TENSOR,),
    recipe=("export-onnx", "quantize-static-int8"),
    golden=Blob("b" * 64, 99),
    golden_tolerance=0.02,
    metrics={"accuracy": 0.96, "float_accuracy": 0.97},
    checks={"size": "passed", "prediction": "not run"},
    prepare=Preparation(
        blob=Blob("7" * 64, 1996),
        source=Blob("8" * 64, 3120),
        inputs=(Tensor("image", "args_0", (1, 1, 8, 8), "float32"),),
        outputs=(Tensor("image", "output_0", (1, 64), "float32"),),
    ),
)
GRAPH = TrainGraph(
    format="onnx",
    runtime="onnxruntime",
    blob=Blob("c" * 64, 4096),
    batch_size=16,
    inputs=(PLAIN_TENSOR,),
    targets=(Tensor("probabilities", "target.probabilities", (16,), "int64"),),
    learning_rate=Tensor("learning_rate", "learning_rate", (), "float32"),
    loss=Tensor("loss", "loss", (), "float32"),
    parameters=(Tensor("net.0.weight", "net.0.weight", (4, 1, 3, 3), "float32"),),
    updated=(Tensor("net.0.weight", "net.0.weight.updated", (4, 1, 3, 3), "float32"),),
)
MANIFEST = Manifest(
    name="digits",
    number=2,
    task="digits",
    created_at="2026-01-31T12:00:00+00:00",
    model_schema=SCHEMA,
    artifacts=(ARTIFACT,),
    train_graphs=(GRAPH,),
    reference=Blob("d" * 64, 700),
    lineage=Lineage(
        parent="digits@1", run="run-7", checkpoint_sha256="e" * 64, data_fingerprint="f" * 64, code_version="0.1.0"
    ),
    metrics={"accuracy": 0.97},
)
REFERENCE = Reference(
    (
        FeatureReference("image.mean", (1.5, 2.5), (10, 20, 10)),
        FeatureReference("output.label", (0.5, 1.5), (13, 14, 13), ("zero", "one", "two")),
    )
)
WINDOW = Window(
    release="digits@1",
    index=3,
    started_at=1000.0,
    ended_at=1010.5,
    samples=10,
    features={"image.mean": FeatureCounts((3, 4, 2), missing=1), "output.label": FeatureCounts((5, 5, 0))},
    out_of_range=1,
    scores=scored(5, 6),
    latency=(0, 0, 10, *(0,) * 12),
    paired=pairs(agreed=8, disagreed=2, both_right=4, only_new_right=1, only_old_right=1),
)
MESSAGES = (
    Desired(version=4, release="digits@2", rollout="r-1", attempt=1, compare=True),
    Desired(version=1, release=None),
    Reported(
        boot="b-1",
        sequence=2,
        desired_version=4,
        release="digits@2",
        previous="digits@1",
        target="raspberry-pi-4",
        agent_version="0.1.0",
        runtimes=("onnxruntime",),
    ),
    Reported(
        boot="b-1",
        sequence=3,
        desired_version=4,
        release="digits@2",
        previous=None,
        target="raspberry-pi-4",
        agent_version="0.1.0",
        problems=("model: RuntimeError: out of arena", "windows: OSError: no space"),
    ),
    Presence(online=True, boot="b-1"),
    Execution(rollout="r-1", attempt=1, state=ExecutionState.FAILED, step="replay", reason="golden samples differ"),
    Telemetry(boot="b-1", sequence=9, window=WINDOW),
    TrainTask(
        run="run-8",
        round=1,
        release="digits@1",
        weights=BLOB,
        token="secret",
        epochs=2,
        learning_rate=0.1,
        seed=7,
        minimum_samples=8,
        deadline_s=60.0,
    ),
    TrainTask(
        run="run-8",
        round=2,
        release="digits@1",
        weights=BLOB,
        token="secret",
        epochs=2,
        learning_rate=0.1,
        seed=7,
        minimum_samples=8,
        deadline_s=60.0,
        maximum_age_s=900.5,
    ),
    TrainUpdate(run="run-8", round=1, state="done", examples=64, metrics={"loss": 0.5}, weights=BLOB),
    TrainUpdate(run="run-8", round=1, state="declined", reason="expected 8 labelled samples, found 3"),
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, child in children for place in _places(child, (*path, key)))]


@st.composite
def damaged(draw: st.DrawFn, payload: bytes) -> bytes:
    """Draw *payload* with one place of its JSON replaced, removed or given a new neighbour, or its bytes cut."""
    if draw(st.integers(0, 5)) == 0:
        return payload[: draw(st.integers(0, len(payload)))] + draw(st.binary(max_size=4))
    document = json.loads(payload)
    place = draw(st.sampled_from(_places(document)[1:]))
    document = copy.deepcopy(document)
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    change = draw(st.sampled_from(["replace", "remove", "add"]))
    if change == "replace":
        parent[place[-1]] = draw(JSON_VALUES)
    elif change == "remove":
        del parent[place[-1]]
    elif isinstance(parent, dict):
        parent[draw(st.text(max_size=8))] = draw(JSON_VALUES)
    else:
        parent.append(draw(JSON_VALUES))
    return json.dumps(document).encode()
