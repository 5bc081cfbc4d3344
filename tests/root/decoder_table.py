"""Every decoder of Hedgerow, with documents that it takes."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hedgerow.decode import Fields, encode_json
from hedgerow.errors import DecodeError, HedgerowError
from hedgerow.schema import TensorSpec
from hedgerow.weights import encode_arrays
from tests.root import documents
from tests.root.decoders import AcceptedError, Decoder, Document, found

__all__ = ["DECODERS", "NO_DECODERS", "padded_to"]

SHA = "a" * 64
BLOB = {"sha256": SHA, "length_bytes": 1234}
TENSOR = {"name": "x", "tensor": "args_0", "shape": [-1, 8], "dtype": "int8", "scale": 0.5, "zero_point": -128}
PLAIN_TENSOR = {**TENSOR, "dtype": "float32", "scale": None, "zero_point": 0}
ARTIFACT = {**documents.ARTIFACT.to_record(), "golden_tolerances": {"probabilities": 0.02}}
STATE = {"kind": "state", "tensor": PLAIN_TENSOR, "parameter": None, "updated": "momentum.updated", "keep": 1.0}
ANCHOR = {
    "kind": "anchor",
    "tensor": {**PLAIN_TENSOR, "name": "anchor"},
    "parameter": "w",
    "updated": None,
    "keep": 0.5,
}
GRAPH = {**documents.GRAPH.to_record(), "extras": [STATE]}
SCHEMA = documents.SCHEMA.to_record()
# As they were written when models gave classes and nothing else.
LABELLED_GRAPH = {
    "labels": documents.GRAPH.targets[0].to_record(),
    **{name: part for name, part in GRAPH.items() if name != "targets"},
}
LABELLED_SCHEMA = {
    "labels": ["zero", "one", "two"],
    **{name: part for name, part in SCHEMA.items() if name != "answers"},
}
SENSOR = TensorSpec("pump", (2,), unit=("bar", "K"), kind="sensor", channels=("oil", "case"), missing=True)
FEATURE = {**documents.REFERENCE.features[1].to_record(), "missing": 3}
LINEAGE = documents.MANIFEST.lineage.to_record()
WINDOW = documents.WINDOW.to_record()
OUTPUTS: Mapping[str, Document] = {
    "classes": {"names": ["zero", "one"], "softmax": True},
    "labels": {"names": ["zero", "one"], "threshold": 0.5},
    "values": {"names": ["speed"], "tolerance": [0.5], "unit": ["m/s"]},
    "reconstruction": {"false_alarm_rate": 0.01, "threshold": 2.5},
    "tokens": {"vocabulary": ["a", "b"], "positions": 8},
    "custom": {"shape": [2], "wanted_shape": [3], "tolerance": 1.5},
}

DESIRED = {"version": 4, "release": "digits@2", "rollout": "r-1", "attempt": 1, "compare": True}
REPORTED = {
    "boot": "b-1", "sequence": 2, "desired_version": 4, "release": "digits@2", "previous": "digits@1",
    "target": "raspberry-pi-4", "agent_version": "0.1.0", "runtimes": ["onnxruntime"], "problems": ["model: no memory"],
}  # fmt: skip
PRESENCE = {"online": True, "boot": "b-1"}
EXECUTION = {"rollout": "r-1", "attempt": 1, "state": "FAILED", "step": "replay", "reason": "golden samples differ"}
TELEMETRY = {"boot": "b-1", "sequence": 9, "window": WINDOW}
TRAIN = {
    "run": "run-8", "round": 1, "release": "digits@1", "weights": BLOB, "token": "secret", "epochs": 2,
    "learning_rate": 0.1, "seed": 7, "minimum_samples": 8, "deadline_s": 60.0, "maximum_age_s": 900.5,
}  # fmt: skip
UPDATE = {
    "run": "run-8", "round": 1, "state": "done", "examples": 64, "metrics": {"loss": 0.5}, "weights": BLOB,
    "reason": "",
}  # fmt: skip

CONTENT = {"release": "digits@1", "manifest_sha256": SHA, "was_healthy": True}
SLOTS = {
    "active": "A", "contents": {"A": CONTENT}, "is_committed": False, "starts": 1,
    "trial": {"slot": "A", "release": "digits@1", "step": "load", "starts": 2},
}  # fmt: skip
AGENT_STATE = {
    "desired": DESIRED, "is_settled": True, "acted_version": 4, "outcome": EXECUTION, "outcome_release": "digits@2",
}  # fmt: skip

STAGE = {"name": "canary", "share": 1.0}
ABORT_RULE = {"kind": "ALL", "share": 0.5, "minimum_executed": 1}
GATE = {
    "alpha": 0.05, "maximum_accuracy_drop": 0.02, "maximum_disagreement": 0.1, "minimum_samples": 100, "floor": 0.9,
}  # fmt: skip
VERDICT = {"decision": "ABORT", "reason": "too bad", "evidence": {"samples": 10.0}, "stopped_by": "floor"}
PLAN = {
    "stages": [STAGE], "abort_rules": [ABORT_RULE], "gate": GATE, "needs_approval": False, "max_attempts": 2,
    "in_progress_timeout_s": 600.0, "step_timeout_s": 120.0, "stage_deadline_s": 3600.0, "gate_timeout_s": 60.0,
    "denominator": "total",
}  # fmt: skip
EXECUTION_RECORD = {
    "device": "pi-0", "target": "raspberry-pi-4", "stage": 0, "state": "FAILED", "attempt": 2, "version": 3,
    "started_at": 1.0, "updated_at": 2.0, "step": "load", "reason": "no memory", "previous": "digits@1",
    "assigned": True,
}  # fmt: skip
ROLLOUT = {
    "id": "rollout-1", "release": "digits@2", "state": "RUNNING", "plan": PLAN, "stage": 0, "stages": ["RUNNING"],
    "executions": {"pi-0": EXECUTION_RECORD}, "created_at": 1.0, "stage_started_at": 2.0, "reason": "waits",
    "stage_deadline_at": 3.0, "gate_since": 2.5,
}  # fmt: skip
FINDING = {
    "slice": "device:pi-0", "feature": "image.mean", "samples": 100, "p_value": 0.5, "threshold": 0.01, "js_bits": 0.1,
    "psi": 0.2, "wasserstein_bins": 1.5, "drifted": True, "unseen": 0.5,
}  # fmt: skip
ALERT = {
    "id": "a-1", "kind": "drift", "reason": "", "began": {"fleet": 1.0}, "release": "digits@1", "raised_at": 2.0,
    "devices": ["pi-0"], "features": ["image.mean"], "findings": [FINDING], "windows": 3,
}  # fmt: skip
SCORE_SLICE = {
    "place": 1, "series": 2, "scores": [4096 * 5, *[0] * 15, 4096 * 15], "verdict": "above", "good_since": 5.0,
}  # fmt: skip
SCORE_STATE = {"release": "digits@1", "slices": {"fleet": SCORE_SLICE}, "raised": 1, "forgotten": 2, "open": ALERT}
DEVICE_DRIFT = {"target": "raspberry-pi-4", "at": 3, "last": WINDOW}
SLICE_DRIFT = {
    "looks": 3, "looked_at": 9, "since": 1, "streaks": {"image.mean": 2}, "findings": [FINDING],
    "began": {"image.mean": 4.0}, "last_began": 5.0,
}  # fmt: skip
DRIFT_STATE = {
    "release": "digits@1", "devices": {"pi-0": DEVICE_DRIFT}, "slices": {"fleet": SLICE_DRIFT}, "observed": 7,
    "raised": 1, "forgotten": 2, "open": ALERT,
}  # fmt: skip

RUN = {
    "version": 1, "run": "run-1", "task": "digits", "strategy": "fedavg", "seed": 3, "grid": "in-process", "clients": 8,
    "fraction": 0.5, "epochs": 1, "learning_rate": 0.1, "batch_size": 16, "data_fingerprint": SHA,
    "initial_sha256": SHA, "parent": "digits@1", "more": {"cohort": 5},
}  # fmt: skip
PRIVACY = {"nodes": 8, "asked": 6, "answered": 5, "clip": 1.0, "noise_std": 0.2}
ROUND = {
    "round": 1, "loss": 0.5, "accuracy": 0.9, "train_loss": 0.6, "seconds": 1.5, "examples": 64,
    "participants": ["pi-0"], "failures": {"pi-1": "late"}, "refused": {"norm": 1}, "virtual_s": 2.5, "clients": 3,
    "privacy": PRIVACY,
}  # fmt: skip
BATTERIES = {"devices": [0.0], "periods": [1.0], "used_j": [2.5]}
TIMED_ROUND = {"round": 1, "started_s": 0.0, "ended_s": 2.0, "counts": {"done": 3}}
GRID = {"now_s": 2.0, "batteries": BATTERIES, "rounds": [TIMED_ROUND]}
WEIGHTS = encode_arrays({})
CHECKPOINT = {
    "version": 1, "weights_sha256": hashlib.sha256(WEIGHTS).hexdigest(), "task": "digits", "run": "run-1", "round": 3,
    "strategy": "fedavg", "grid": "in-process", "seed": 3, "data_fingerprint": SHA, "parent": "digits@1",
    "metrics": {"accuracy": 0.9}, "privacy": {"epsilon": 1.0},
}  # fmt: skip

COST = {
    "macs_per_s": {"float32": 3e9}, "memory_bytes_per_s": 3e9, "overhead_ms": 0.05, "active_watts": 4.0,
    "error_factor": 3.0, "source": "measured",
}  # fmt: skip
TARGET = {
    "schema_version": 1, "summary": "A bench.", "runtime": "onnxruntime", "accelerator": "none", "format": "onnx",
    "train_format": "onnx", "recipes": ["onnx-float"], "architecture": "aarch64", "minimum_version": "",
    "number_types": ["float32", "int8"], "all_integer": False, "integer_io": False, "symmetric": False,
    "static_shapes": False, "operators": "table", "ram_bytes": 4096, "flash_bytes": 4096, "arena_bytes": 2048,
    "maximum_latency_ms": 5.0, "emits_c_array": False, "cost": COST,
}  # fmt: skip
TARGET_RECORD = {
    **{key: value for key, value in TARGET.items() if key != "schema_version"},
    "name": "bench", "recipe": "onnx-float", "operators": {"Add": 7}, "operators_source": "its manual",
    "operator_types": {"Add": ["int8"]}, "operator_ranks": {"Add": [4]},
}  # fmt: skip
OPERATORS = {
    "schema_version": 1, "source": "its manual", "versions": {"Add": 7}, "types": {"Add": ["int8"]},
    "ranks": {"Add": [4]},
}  # fmt: skip

OPERATOR = {"name": "Conv", "version": 11, "inputs": ["x"], "outputs": ["y"], "macs": 100}
FACTS = {
    "operators": ["Conv"], "number_types": ["float32"], "quantized_weights": 0, "float_weights": 9,
    "operator_versions": {"Conv": 11}, "uses": [{"name": "Conv", "types": "float32", "rank": 4}],
    "weights_bytes": 36, "weights_bytes_by_bits": {"32": 36}, "parameters": 9,
    "has_nan": False, "dynamic_shapes": False, "float_tensors": 3, "graph": [OPERATOR], "tensor_bytes": {"x": 256},
    "inputs": ["x"], "outputs": ["y"], "border_types": ["float32"], "asymmetric_tensors": 0, "outside_constants": 0,
    "open_sizes": ["the batch"],
}  # fmt: skip
ARENA = {"bytes": 1024, "kernels": "reference", "version": "1", "scratch_bytes": 16, "scratch_omitted": "none"}
JOB = {
    "toolchain": "t", "task": "task.py:task", "checkpoint": "c", "weights_sha256": SHA, "folder": "f",
    "search_path": ["p"], "max_drop": 0.02, "limit_s": 600.0,
    "artifacts": {"raspberry-pi-4": {"name": "onnx-float", "record": "{}"}},
    "targets": {"bench": TARGET_RECORD}, "train_formats": ["onnx"], "train_options": ["optimizer=adam"],
    "reference": True,
    "counts": {"image.mean": {"counts": [1, 2]}},
}  # fmt: skip
EXPORT = {"pass": "export-onnx", "settings": {}}
RECIPE = {
    "name": "mine", "model_passes": [], "passes": [EXPORT], "float_passes": [EXPORT], "minimum_quantized_share": 0.0,
    "minimum_snr_db": 15.0, "minimum_agreement": 0.95, "smaller_than_float": False,
}  # fmt: skip
FAILURE = {"module": "hedgerow.errors", "kind": "DecodeError", "message": "m", "facts": '{"where": "x"}'}
BUILD = {
    "version": 1, "task": "digits", "model_schema": SCHEMA, "artifacts": [ARTIFACT], "train_graphs": [GRAPH],
    "reference": BLOB, "checkpoint_sha256": SHA, "run": "run-1", "data_fingerprint": SHA, "metrics": {"accuracy": 0.9},
    "parent": "digits@1",
}  # fmt: skip
MANIFEST = {
    "schema_version": 1, "name": "digits", "number": 2, "task": "digits", "created_at": "2026-01-31T12:00:00Z",
    "model_schema": SCHEMA, "artifacts": [ARTIFACT], "train_graphs": [GRAPH], "reference": BLOB, "lineage": LINEAGE,
    "metrics": {"accuracy": 0.9},
}  # fmt: skip
PREDICT = {
    "work": "predict", "kind": "onnx", "folder": "", "runtime": "onnxruntime", "arena_bytes": 1, "times": 2,
    "state": {"h": {"output": "h_out"}}, "steps": 1, "inputs": [PLAIN_TENSOR], "outputs": [PLAIN_TENSOR],
}  # fmt: skip


_least_bytes = [0]


@contextmanager
def padded_to(length_bytes: int) -> Iterator[None]:
    """Let every payload be so long, by spaces."""
    _least_bytes.append(length_bytes)
    try:
        yield
    finally:
        _least_bytes.pop()


def _payload(document: Document) -> bytes:
    return json.dumps(document).encode().ljust(_least_bytes[-1])


def _toml(document: Document) -> str:
    lines = [f"{json.dumps(key)} = {_toml_value(value)}" for key, value in document.items()]
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    match value:
        case dict():
            return "{ " + ", ".join(f"{json.dumps(key)} = {_toml_value(item)}" for key, item in value.items()) + " }"
        case list():
            return "[" + ", ".join(_toml_value(item) for item in value) + "]"
        case None:
            return "{}"
    return {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}.get(json.dumps(value), json.dumps(value))


def _message(kind: str) -> Callable[[Document, Path], object]:
    return lambda document, _folder: found(kind).decode(_payload({"v": 1, **document}))


def _bytes(name: str) -> Callable[[Document, Path], object]:
    return lambda document, _folder: found(name)(_payload(document))


def _output(kind: str) -> Callable[[Document, Path], object]:
    def read(document: Document, _folder: Path) -> object:
        fields = Fields(document, "document")
        output = found(f"hedgerow.outputs.{kind}:{kind.title()}.from_fields")(fields)
        fields.finish()
        return output

    return read


def _outputs(document: Document, _folder: Path) -> object:
    return found("hedgerow.outputs.outputs:Outputs.from_fields")(
        Fields(document, "document"), documents.STREAMING_SCHEMA.outputs
    )


def _agent_state(document: Document, _folder: Path) -> object:
    from hedgerow.client.agent_state import AgentState, Identity

    identity = Identity(boot="b-1", target="bench", agent_version="0", runtimes=())
    return AgentState.from_fields(identity, Fields(document, "document"))


def _kept(document: Document, folder: Path) -> object:
    from hedgerow.client.kept_record import KeptRecord

    if document.get("sha256") == "right":
        content = {name: value for name, value in document.items() if name != "sha256"}
        with suppress(ValueError):  # no checksum of what is no JSON
            document = {**document, "sha256": hashlib.sha256(encode_json(content)).hexdigest()}
    (folder / "kept.json").write_bytes(_payload(document))
    record = KeptRecord(folder / "kept.json", "state", lambda _path, _content: None)
    return record.read(lambda fields: (fields.integer("number"), fields.finish()))


def _checkpoint(document: Document, folder: Path) -> object:
    from hedgerow.checkpoint import read_checkpoint
    from hedgerow.errors import CheckpointError

    (folder / "checkpoint.json").write_bytes(_payload(document))
    (folder / "weights.safetensors").write_bytes(WEIGHTS)
    try:
        return read_checkpoint(folder)
    except CheckpointError as exc:
        raise (exc.__cause__ or exc) from None


def _run_settings(document: Document, folder: Path) -> object:
    from hedgerow.server.errors import RunFolderError
    from hedgerow.server.run_folder import recorded_settings

    (folder / "run.json").write_bytes(_payload(document))
    try:
        return recorded_settings(folder)
    except RunFolderError as exc:
        raise (exc.__cause__ or exc) from None


def _timed_grid(document: Document, _folder: Path) -> object:
    from hedgerow.server.simulation.clock import VirtualClock
    from hedgerow.server.simulation.timed_grid import TimedGrid

    grid = object.__new__(TimedGrid)
    grid.clock = VirtualClock()
    return grid.restore(Fields(document, "document"))


def _trace(document: Document, _folder: Path) -> object:
    from hedgerow.server.simulation.traces import decode_trace

    return decode_trace(_payload(document), "trace")


def _target(document: Document, _folder: Path) -> object:
    from hedgerow.hardware.operator_table import OperatorTable
    from hedgerow.hardware.target import decode_target

    return decode_target("bench", _toml(document), {"table": OperatorTable(versions={"Add": 7}, source="here")})


def _operators(document: Document, _folder: Path) -> object:
    from hedgerow.hardware.operator_table import decode_operators

    return decode_operators("bench", _toml(document))


def _recipe_lists(document: Document, _folder: Path) -> object:
    from hedgerow.hardware.target import decode_recipe_lists

    return decode_recipe_lists(_toml(document))


def _recipe(document: Document, _folder: Path) -> object:
    from hedgerow.compile.recipe import read_recipe

    try:
        return read_recipe(Fields(document, "document"))
    except DecodeError:
        raise
    except HedgerowError:  # read, and then found to be no chain of passes
        raise AcceptedError from None


def _cached(document: Document, _folder: Path) -> object:
    from hedgerow.compile import cache

    body = _payload(document) + b"\n"
    return cache._decode(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def _line(document: Document, _folder: Path) -> object:
    from hedgerow.compile.messages import decode_message

    return decode_message(_payload(document))


def _foreign_answer(document: Document, _folder: Path) -> object:
    from hedgerow.compile.foreign import _Answer

    return _Answer(SimpleNamespace(doing="")).take(_payload(document))


def _foreign_work(name: str) -> Callable[[Document, Path], object]:
    def read(document: Document, folder: Path) -> object:
        def step(_name: str) -> None:
            raise AcceptedError

        (folder / "inputs").write_bytes(encode_arrays({}))
        given = {**document, "folder": str(folder)} if document.get("folder") == "" else document
        fields = Fields(given, "document")
        fields.text("work"), fields.text("kind"), fields.text("folder", maximum_chars=65536)
        try:
            return found(f"hedgerow.compile.foreign_worker:{name}")(fields, "onnx", b"", step)
        except OSError:  # no such folder, but it was read
            raise AcceptedError from None

    return read


def _trial_line(document: Document, _folder: Path) -> object:
    from hedgerow.client.trial import _Heard

    heard = _Heard(SimpleNamespace(doing=""), lambda _step: None)
    heard.take(_payload(document))
    if heard.nonsense:
        where, _, rest = heard.nonsense.partition(": expected ")
        expected, _, found_there = rest.partition(", found ")
        raise DecodeError(where, expected, found_there)
    return heard


FLEET = "hedgerow.fleet"
DECODERS: tuple[Decoder, ...] = (
    Decoder("hedgerow.manifest.content:Blob.from_fields", [BLOB]),
    Decoder("hedgerow.manifest.content:Tensor.from_fields", [TENSOR, PLAIN_TENSOR]),
    Decoder("hedgerow.manifest.artifact:Artifact.from_fields", [ARTIFACT, {**ARTIFACT, "prepare": None}]),
    Decoder("hedgerow.manifest.preparation:Preparation.from_fields", [ARTIFACT["prepare"]]),
    Decoder("hedgerow.manifest.train_graph:Extra.from_fields", [STATE, ANCHOR]),
    Decoder(
        "hedgerow.manifest.train_graph:TrainGraph.from_fields",
        [GRAPH, LABELLED_GRAPH],
        parts=("hedgerow.manifest.train_graph:_targets",),
    ),
    Decoder("hedgerow.manifest.release:Lineage.from_fields", [LINEAGE]),
    Decoder(
        "hedgerow.manifest.release:Manifest.decode",
        [MANIFEST],
        _bytes("hedgerow.manifest.release:Manifest.decode"),
        "json",
    ),
    Decoder("hedgerow.reference:FeatureReference.from_fields", [FEATURE]),
    Decoder(
        "hedgerow.reference:Reference.decode",
        [json.loads(documents.REFERENCE.encode()), {"version": 1, "features": [FEATURE]}],
        _bytes("hedgerow.reference:Reference.decode"),
        "json",
    ),
    Decoder("hedgerow.schema:TensorSpec.from_fields", [documents.SCHEMA.inputs[0].to_record(), SENSOR.to_record()]),
    Decoder(
        "hedgerow.model_schema:ModelSchema.from_fields",
        [SCHEMA, documents.STREAMING_SCHEMA.to_record(), LABELLED_SCHEMA],
        parts=("hedgerow.model_schema:_answers", "hedgerow.outputs.labelled:outputs_of_labels"),
    ),
    Decoder(
        "hedgerow.outputs.outputs:Outputs.from_fields",
        [{"probabilities": {"kind": "classes", "weight": 1.0, **OUTPUTS["classes"]}}],
        _outputs,
    ),
    Decoder(
        "hedgerow.outputs.records:output_from_fields",
        [{"kind": kind, "weight": 1.0, **record} for kind, record in OUTPUTS.items()],
    ),
    *(
        Decoder(f"hedgerow.outputs.{kind}:{kind.title()}.from_fields", [record], _output(kind))
        for kind, record in OUTPUTS.items()
    ),
    Decoder(
        "hedgerow.window:Window.from_fields",
        [WINDOW],
        parts=(
            "hedgerow.window:_feature_counts",
            "hedgerow.score_counts:ScoreCounts.from_fields",
            "hedgerow.score_counts:PairedScores.from_fields",
        ),
    ),
    Decoder(
        "hedgerow.wire.message:WireMessage.decode",
        [{"v": 1, **PRESENCE}],
        lambda document, _folder: found("hedgerow.wire.device:Presence.decode")(_payload(document)),
        "json",
    ),
    Decoder("hedgerow.wire.device:Desired.from_fields", [DESIRED], _message("hedgerow.wire.device:Desired"), "json"),
    Decoder(
        "hedgerow.wire.device:Reported.from_fields",
        [REPORTED],
        _message("hedgerow.wire.device:Reported"),
        "json",
        ("hedgerow.wire.message:lines",),
    ),
    Decoder("hedgerow.wire.device:Presence.from_fields", [PRESENCE], _message("hedgerow.wire.device:Presence"), "json"),
    Decoder(
        "hedgerow.wire.execution:Execution.from_fields",
        [EXECUTION],
        _message("hedgerow.wire.execution:Execution"),
        "json",
    ),
    Decoder(
        "hedgerow.wire.telemetry:Telemetry.from_fields",
        [TELEMETRY],
        _message("hedgerow.wire.telemetry:Telemetry"),
        "json",
    ),
    Decoder(
        "hedgerow.wire.training:TrainTask.from_fields", [TRAIN], _message("hedgerow.wire.training:TrainTask"), "json"
    ),
    Decoder(
        "hedgerow.wire.training:TrainUpdate.from_fields",
        [UPDATE],
        _message("hedgerow.wire.training:TrainUpdate"),
        "json",
    ),
    Decoder("hedgerow.checkpoint:read_checkpoint", [CHECKPOINT], _checkpoint, "json"),
    Decoder(
        "hedgerow.client.slots:Slots.from_fields",
        [SLOTS],
        parts=("hedgerow.client.slots:_content", "hedgerow.client.slots:_trial"),
    ),
    Decoder("hedgerow.client.agent_state:AgentState.from_fields", [AGENT_STATE], _agent_state),
    Decoder(
        "hedgerow.client.kept_record:KeptRecord._decoded",
        [{"version": 2, "sequence": 3, "sha256": "right", "state": {"number": 1}}],
        _kept,
        "json",
        ("hedgerow.client.kept_record:KeptRecord.read",),
    ),
    Decoder(
        "hedgerow.client.trial:_Heard.take",
        [{"step": "load"}],
        _trial_line,
        "json",
    ),
    Decoder(f"{FLEET}.rollout.stages:StagePlan.from_fields", [STAGE]),
    Decoder(f"{FLEET}.rollout.plan:AbortRule.from_fields", [ABORT_RULE]),
    Decoder(f"{FLEET}.rollout.plan:RolloutPlan.from_fields", [PLAN]),
    Decoder(f"{FLEET}.rollout.gates:GatePlan.from_fields", [GATE]),
    Decoder(f"{FLEET}.rollout.gates:GateVerdict.from_fields", [VERDICT]),
    Decoder(f"{FLEET}.rollout.executions:ExecutionRecord.from_fields", [EXECUTION_RECORD]),
    Decoder(f"{FLEET}.rollout.state:Rollout.from_fields", [ROLLOUT]),
    Decoder(f"{FLEET}.drift.findings:Finding.from_fields", [FINDING]),
    Decoder(
        f"{FLEET}.drift.scores:ScoreSlice.from_fields",
        [SCORE_SLICE],
        parts=("hedgerow.score_counts:ScoreCounts.from_fields",),
    ),
    Decoder(
        f"{FLEET}.drift.scores:ScoreState.from_fields",
        [SCORE_STATE],
        parts=(f"{FLEET}.drift.alert:Watched.common_fields",),
    ),
    Decoder(f"{FLEET}.drift.alert:Alert.from_fields", [ALERT], parts=(f"{FLEET}.drift.alert:optional_numbers",)),
    Decoder(f"{FLEET}.drift.alerts:DeviceDrift.from_fields", [DEVICE_DRIFT]),
    Decoder(f"{FLEET}.drift.alerts:SliceDrift.from_fields", [SLICE_DRIFT]),
    Decoder(f"{FLEET}.drift.alerts:DriftState.from_fields", [DRIFT_STATE]),
    Decoder(
        "hedgerow.server.run_records:RunSettings.from_fields",
        [RUN],
        _run_settings,
        "json",
        ("hedgerow.server.run_folder:recorded_settings",),
    ),
    Decoder(
        "hedgerow.server.run_records:RoundRecord.from_fields",
        [ROUND],
        parts=("hedgerow.server.run_records:_noisy_mean_of",),
    ),
    Decoder("hedgerow.server.simulation.battery:BatteryLedger.from_fields", [BATTERIES]),
    Decoder(
        "hedgerow.server.simulation.timed_grid:TimedGrid.restore",
        [GRID],
        _timed_grid,
        parts=("hedgerow.server.simulation.timed_grid:_timed_round",),
        is_heavy=True,
    ),
    Decoder(
        "hedgerow.server.simulation.traces:_json_rows",
        [
            {"device": "pi-0", "start_s": 1.0, "end_s": 2.0},
            {"device": "pi-0", "at_s": 1.0, "available": True},
        ],
        _trace,
        "json",
    ),
    Decoder(
        "hedgerow.hardware.target:decode_target",
        [TARGET],
        _target,
        "toml",
        (
            "hedgerow.hardware.operator_table:document",
            "hedgerow.hardware.target:_names",
            "hedgerow.hardware.target:_recipes",
            "hedgerow.hardware.target:_target",
            "hedgerow.hardware.target:_cost",
        ),
    ),
    Decoder(
        "hedgerow.hardware.target:read_target_record",
        [TARGET_RECORD],
        parts=(
            "hedgerow.hardware.operator_table:read_table",
            "hedgerow.hardware.operator_table:_versions",
            "hedgerow.hardware.operator_table:_types",
            "hedgerow.hardware.operator_table:_ranks",
        ),
    ),
    Decoder(
        "hedgerow.hardware.operator_table:decode_operators",
        [OPERATORS],
        _operators,
        "toml",
        ("hedgerow.hardware.operator_table:document",),
    ),
    Decoder(
        "hedgerow.hardware.target:decode_recipe_lists",
        [{"schema_version": 1, "lists": {"floats": ["onnx-float"]}}],
        _recipe_lists,
        "toml",
        ("hedgerow.hardware.operator_table:document",),
    ),
    Decoder(
        "hedgerow.compile.recipe:read_recipe",
        [RECIPE],
        _recipe,
        parts=("hedgerow.compile.recipe:_read_pass",),
    ),
    Decoder(
        "hedgerow.compile.messages:decode_job",
        [JOB],
        parts=("hedgerow.compile.messages:decode_job.counts", "hedgerow.compile.messages:decode_job.sent"),
    ),
    Decoder("hedgerow.compile.messages:decode_message", [{"job": {"any": 1}}], _line, "json"),
    Decoder("hedgerow.compile.messages:progress_from", [{"work": "w", "done": 1.0, "total": 2.0, "note": ""}]),
    Decoder("hedgerow.compile.failures:decode_failure", [FAILURE]),
    Decoder("hedgerow.compile.inspection.facts:OperatorFacts.from_fields", [OPERATOR]),
    Decoder(
        "hedgerow.compile.inspection.facts:FileFacts.from_fields",
        [FACTS],
        parts=(
            "hedgerow.compile.inspection.facts:_texts",
            "hedgerow.compile.inspection.facts:_counts",
            "hedgerow.compile.inspection.facts:_use",
        ),
    ),
    Decoder("hedgerow.compile.arena:Arena.from_fields", [ARENA]),
    Decoder("hedgerow.compile.profile.host:HostLatency.from_fields", [{"p50_ms": 1.0, "p99_ms": 2.0, "runs": 10}]),
    Decoder("hedgerow.compile.build:Build.decode", [BUILD], _bytes("hedgerow.compile.build:Build.decode"), "json"),
    Decoder(
        "hedgerow.compile.cache:_decode",
        [{"version": 1, "kind": "artifact", "answer": {"any": 1}, "blobs": [BLOB]}],
        _cached,
        "json",
        ("hedgerow.compile.cache:_blob",),
    ),
    Decoder(
        "hedgerow.compile.foreign:_Answer.take", [{"step": "loading"}, {"answer": {"any": 1}}], _foreign_answer, "json"
    ),
    Decoder(
        "hedgerow.compile.foreign_worker:_facts",
        [{"work": "facts", "kind": "onnx", "folder": "f", "shapes": {"x": {"sizes": [1, 8]}}}],
        _foreign_work("_facts"),
        parts=("hedgerow.compile.foreign_worker:_sizes",),
    ),
    Decoder(
        "hedgerow.compile.foreign_worker:_predict",
        [PREDICT],
        _foreign_work("_predict"),
        parts=("hedgerow.compile.foreign_worker:_output_of",),
    ),
    Decoder(
        "hedgerow.compile.foreign_worker:_fix",
        [{"work": "fix", "kind": "onnx", "folder": "", "shapes": {"x": {"sizes": [1, 8]}}}],
        _foreign_work("_fix"),
        parts=("hedgerow.compile.foreign_worker:_sizes",),
    ),
    Decoder(
        "hedgerow.compile.foreign_worker:_inline",
        [{"work": "inline", "kind": "onnx", "folder": "", "beside": "b"}],
        _foreign_work("_inline"),
    ),
    Decoder(
        "hedgerow.compile.foreign_worker:_convert",
        [
            {
                "work": "convert",
                "kind": "onnx",
                "folder": "",
                "recipe": RECIPE,
                "schema": SCHEMA,
                "inputs": [PLAIN_TENSOR],
                "outputs": [PLAIN_TENSOR],
                "seed": 0,
            }
        ],
        _foreign_work("_convert"),
    ),
)

_OWN_ROWS = "reads rows that this service wrote, with decoders of this table; test_reading.py damages them"
NO_DECODERS: Mapping[str, str] = {
    "hedgerow.decode:decode_json": "the reader of all documents; test_decode.py",
    "hedgerow.decode:decode_toml": "the reader of all TOML; test_decode.py",
    "hedgerow.decode:Fields.sequence": "a reader; test_decode.py",
    "hedgerow.decode:Fields.mapping": "a reader; test_decode.py",
    "hedgerow.wire.message:WireMessage.from_fields": "abstract",
    "hedgerow.outputs.output:Output.from_fields": "abstract",
    "hedgerow.settings:Settings._from_file": "its keys are the declared settings; test_settings.py",
    "hedgerow.wire.training:_check_weights": "compares numbers that were read",
    "hedgerow.checkpoint:_failure": "reads one reason for a message, whatever else stands there",
    "hedgerow.client.trial_child:_try": "the request of the agent that started it; test_trial.py",
    "hedgerow.client.trial_child:_verdict": "hands the request on",
    "hedgerow.client.trial_child:serve": "the request of the agent that started it; test_trial.py",
    f"{FLEET}.rollout.plan:RolloutPlan._unreadable": "reads its own record",
    f"{FLEET}.store.reading:_fields": _OWN_ROWS,
    f"{FLEET}.store.reading:StoreReader._rollout": _OWN_ROWS,
    f"{FLEET}.store.reading:StoreReader.drift_state": _OWN_ROWS,
    f"{FLEET}.store.reading:StoreReader.score_state": _OWN_ROWS,
    f"{FLEET}.store.reading:StoreReader.last_rollout_of": _OWN_ROWS,
    f"{FLEET}.store.writing:_sum_text": _OWN_ROWS,
    f"{FLEET}.trust.releases:revocation": "reads two texts for people, whatever else stands there",
    "hedgerow.server.rounds:Run.resume": "hands a grid's state to the grid",
    "hedgerow.server.run_folder:RunFolder.last_round": "hands a grid's state on as it is",
    "hedgerow.server.run_folder:RunFolder.history": "hands each line to RoundRecord",
    "hedgerow.compile.foreign_worker:_border": "takes nothing but what serve has read",
    "hedgerow.compile.foreign_worker:_arena": "takes nothing but what serve has read",
    "hedgerow.compile.foreign_worker:serve": "the request of the process that started it; test_foreign.py",
    "hedgerow.server.weights.reading_child:serve": "the request of the process that started it; test_weights_file.py",
    "hedgerow.server.weights.weights_file:_ask": "hands the answer to _answer",
    "hedgerow.server.weights.weights_file:_ask.hear": "hands each message to _ask",
    "hedgerow.server.weights.weights_file:_answer": "its caller finishes it; test_weights_file.py damages it",
    "hedgerow.compile.messages:SentRecipe.read": "hands the record to read_recipe",
    "hedgerow.server.grids.round_grid:RoundGrid.restore": "a grid that carries nothing on",
    "hedgerow.compile.session:Session.take": "hands each part to a decoder of this table",
    "hedgerow.compile.session:Session._accept": "hands an answer to a decoder of this table",
    "hedgerow.compile.session:Session._load": "hands an answer to a decoder of this table",
    "hedgerow.compile.session:Session.outcome": "hands an answer to a decoder of this table",
    "hedgerow.compile.session:Session._build": "hands an answer to a decoder of this table",
}
"""Functions that take or make fields and decode no document of their own, with the reason."""
