"""The release manifest: what a release is, for whom, made from what, and how it was checked.

A release on disk is a folder with ``manifest.json`` and ``blobs/<sha256>``. In the TUF repository the manifest is the
target ``<name>/<number>/manifest.json`` and each blob is ``<name>/<number>/<sha256>``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hedgerow.decode import SHA256, Fields, decode_json, encode_json
from hedgerow.errors import DecodeError
from hedgerow.schema import ModelSchema

__all__ = [
    "CHECK_STATES",
    "EXTRA_KINDS",
    "QUANTIZED_TYPES",
    "RELEASE_ID",
    "Artifact",
    "Blob",
    "Extra",
    "Lineage",
    "Manifest",
    "Tensor",
    "TrainGraph",
    "blob_path",
    "manifest_path",
    "parse_release_id",
]

SCHEMA_VERSION = 1
CHECK_STATES = ("passed", "failed", "not run")
EXTRA_KINDS = ("state", "anchor", "proximal_mu", "control", "mask")
QUANTIZED_TYPES = ("int8", "uint8", "int16", "uint16", "int32")
RELEASE_ID = re.compile(r"[a-z][a-z0-9-]{0,62}@[1-9][0-9]{0,8}")
MODEL_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_LIMIT_BYTES = 4 * 2**20
# What a float32 holds: the border divides by one.
_SMALLEST_SCALE, _LARGEST_SCALE = 2.0**-149, (2 - 2.0**-23) * 2.0**127


def parse_release_id(release: str) -> tuple[str, int]:
    """Split ``name@number``.

    Raises:
        ValueError: It is not like that.
    """
    if not RELEASE_ID.fullmatch(release):
        raise ValueError(f"expected a release like digits@1, found {release!r}")
    name, _, number = release.partition("@")
    return name, int(number)


def manifest_path(release: str) -> str:
    """Return the TUF target path of a release's manifest."""
    name, number = parse_release_id(release)
    return f"{name}/{number}/manifest.json"


def blob_path(release: str, sha256: str) -> str:
    """Return the TUF target path of a release's blob."""
    name, number = parse_release_id(release)
    return f"{name}/{number}/{sha256}"


@dataclass(frozen=True, slots=True)
class Blob:
    """Content by hash.

    Attributes:
        sha256: Hash in lower-case hexadecimal.
        length_bytes: Exact length.
    """

    sha256: str
    length_bytes: int

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {"sha256": self.sha256, "length_bytes": self.length_bytes}

    @classmethod
    def from_fields(cls, fields: Fields) -> "Blob":
        """Decode a blob."""
        blob = cls(fields.text("sha256", pattern=SHA256), fields.integer("length_bytes", maximum=2**40))
        fields.finish()
        return blob


@dataclass(frozen=True, slots=True)
class Tensor:
    """How one named tensor is found in a file and converted at its border.

    Attributes:
        name: The schema's or the parameter's name.
        tensor: The name inside the file (ONNX: usually the same; TFLite: the signature's, such as ``args_0``).
        shape: As the file has it, with the batch dimension; -1 where it is dynamic.
        dtype: As the file has it; an integer with a scale is quantized.
        scale: Real value of one step of a quantized tensor, else None.
        zero_point: Stored value of real zero; 0 when not quantized.
    """

    name: str
    tensor: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "name": self.name,
            "tensor": self.tensor,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "scale": self.scale,
            "zero_point": self.zero_point,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Tensor":
        """Decode a tensor."""
        tensor = cls(
            name=fields.text("name", maximum_chars=256),
            tensor=fields.text("tensor", maximum_chars=256),
            shape=fields.integers("shape", minimum=-1, maximum_items=8),
            dtype=fields.text("dtype", maximum_chars=16),
            scale=fields.optional_number("scale", minimum=_SMALLEST_SCALE, maximum=_LARGEST_SCALE),
            zero_point=fields.integer("zero_point", minimum=-(2**31), maximum=2**31 - 1),
        )
        if tensor.scale is not None and tensor.dtype not in QUANTIZED_TYPES:
            expected = f"{', '.join(QUANTIZED_TYPES)} beside a scale"
            raise DecodeError(f"{fields.where}.dtype", expected, repr(tensor.dtype))
        fields.finish()
        return tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One compiled model for one hardware target.

    Attributes:
        target: Name of the target in ``hardware/targets``.
        format: ``onnx``, ``tflite`` or ``mlpackage`` (a zip of the folder).
        runtime: Key of the device's runtime table: ``onnxruntime``, ``litert`` or ``coreml``.
        blob: The file.
        inputs, outputs: Where the schema's tensors are in it.
        recipe: The passes that made it, in order.
        golden: Safetensors blob: ``input.<name>`` and ``output.<name>``, this very artifact's outputs at build time.
        golden_tolerance: Largest absolute difference at which a replay on the device still counts as the same.
        metrics: Measured at build time: ``accuracy`` and on how many ``held_out_samples``, ``float_accuracy``,
            ``bytes``, ``float_bytes``, ``snr_db``, ``agreement``; a metric that could not be measured here is absent.
        checks: Check -> ``passed``, ``failed`` or ``not run``. ``runs on device`` is there, and ``not run``, where the
            runtime does not exist on the build host (Core ML): accuracy, parity and golden samples are then by a
            reference evaluation of the file's operators.
    """

    target: str
    format: str
    runtime: str
    blob: Blob
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    recipe: tuple[str, ...]
    golden: Blob | None
    golden_tolerance: float
    metrics: Mapping[str, float]
    checks: Mapping[str, str]

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "target": self.target,
            "format": self.format,
            "runtime": self.runtime,
            "blob": self.blob.to_record(),
            "inputs": [tensor.to_record() for tensor in self.inputs],
            "outputs": [tensor.to_record() for tensor in self.outputs],
            "recipe": list(self.recipe),
            "golden": self.golden.to_record() if self.golden else None,
            "golden_tolerance": self.golden_tolerance,
            "metrics": dict(self.metrics),
            "checks": dict(self.checks),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Artifact":
        """Decode an artifact."""
        golden = fields.optional("golden")
        metrics = fields.nested("metrics")
        checks = fields.nested("checks")
        artifact = cls(
            target=fields.text("target", maximum_chars=64),
            format=fields.text("format", maximum_chars=16),
            runtime=fields.text("runtime", maximum_chars=32),
            blob=Blob.from_fields(fields.nested("blob")),
            inputs=fields.sequence("inputs", Tensor.from_fields, maximum_items=16),
            outputs=fields.sequence("outputs", Tensor.from_fields, maximum_items=16),
            recipe=fields.texts("recipe"),
            golden=Blob.from_fields(golden) if golden else None,
            golden_tolerance=fields.number("golden_tolerance", minimum=0),
            metrics={name: metrics.number(name) for name in metrics.names()},
            checks={name: checks.choice(name, {s: s for s in CHECK_STATES}) for name in checks.names()},
        )
        fields.finish()
        return artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """An input of a train graph beside the batch, the learning rate and the parameters.

    Attributes:
        kind: ``state``: of the optimizer, zero before the first step, and given back by each. ``anchor``: the
            parameter's value when the round began. ``proximal_mu``: the weight of the proximal term that pulls there.
            ``control``: added to the parameter's gradient. ``mask``: ones and zeros, drawn anew for each step.
        tensor: The input; no parameter has its name.
        parameter: What an anchor or a control variate belongs to.
        updated: A state's output tensor in the file.
        keep: The share of ones in a mask.
    """

    kind: str
    tensor: Tensor
    parameter: str | None = None
    updated: str | None = None
    keep: float = 1.0

    @property
    def output(self) -> Tensor | None:
        """The output side of a state."""
        if self.updated is None:
            return None
        return Tensor(self.tensor.name, self.updated, self.tensor.shape, self.tensor.dtype)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "kind": self.kind,
            "tensor": self.tensor.to_record(),
            "parameter": self.parameter,
            "updated": self.updated,
            "keep": self.keep,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Extra":
        """Decode an extra input."""
        extra = cls(
            kind=fields.choice("kind", {kind: kind for kind in EXTRA_KINDS}),
            tensor=Tensor.from_fields(fields.nested("tensor")),
            parameter=fields.optional_text("parameter", maximum_chars=256),
            updated=fields.optional_text("updated", maximum_chars=256),
            keep=fields.number("keep", minimum=0, maximum=1),
        )
        for wanted, found, name in (
            (extra.kind == "state", extra.updated, "updated"),
            (extra.kind in {"anchor", "control"}, extra.parameter, "parameter"),
        ):
            if wanted != (found is not None):
                expected = "a value" if wanted else "none"
                raise DecodeError(f"{fields.where}.{name}", f"{expected} for the kind {extra.kind}", repr(found))
        fields.finish()
        return extra


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainGraph:
    """Forward, backward and optimizer step as one file.

    The graph maps ``(inputs..., labels, learning_rate, *parameters, *extras)`` to ``(loss, *parameters, *state)``.

    Attributes:
        format: ``onnx`` or ``tflite``.
        runtime: Key of the device's runtime table.
        blob: The file.
        batch_size: The static batch it was traced with.
        inputs: The schema's inputs.
        labels: The class index of each sample; or, when it is a float, the value that each logit should have.
        learning_rate: A scalar.
        loss: The mean loss of the batch, before the step.
        parameters: Input side of each parameter, named as in the checkpoint.
        updated: Output side of the parameters that change, in the same order and with the same names.
        extras: Further inputs. A plain graph has none, and its record does not name them, so that devices of every age
            can read it.
    """

    format: str
    runtime: str
    blob: Blob
    batch_size: int
    inputs: tuple[Tensor, ...]
    labels: Tensor
    learning_rate: Tensor
    loss: Tensor
    parameters: tuple[Tensor, ...]
    updated: tuple[Tensor, ...]
    extras: tuple[Extra, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        record = {
            "format": self.format,
            "runtime": self.runtime,
            "blob": self.blob.to_record(),
            "batch_size": self.batch_size,
            "inputs": [tensor.to_record() for tensor in self.inputs],
            "labels": self.labels.to_record(),
            "learning_rate": self.learning_rate.to_record(),
            "loss": self.loss.to_record(),
            "parameters": [tensor.to_record() for tensor in self.parameters],
            "updated": [tensor.to_record() for tensor in self.updated],
        }
        return record | ({"extras": [extra.to_record() for extra in self.extras]} if self.extras else {})

    @classmethod
    def from_fields(cls, fields: Fields) -> "TrainGraph":
        """Decode a train graph."""
        graph = cls(
            format=fields.text("format", maximum_chars=16),
            runtime=fields.text("runtime", maximum_chars=32),
            blob=Blob.from_fields(fields.nested("blob")),
            batch_size=fields.integer("batch_size", minimum=1, maximum=65536),
            inputs=fields.sequence("inputs", Tensor.from_fields, maximum_items=16),
            labels=Tensor.from_fields(fields.nested("labels")),
            learning_rate=Tensor.from_fields(fields.nested("learning_rate")),
            loss=Tensor.from_fields(fields.nested("loss")),
            parameters=fields.sequence("parameters", Tensor.from_fields),
            updated=fields.sequence("updated", Tensor.from_fields),
            extras=fields.sequence("extras", Extra.from_fields) if "extras" in fields.names() else (),
        )
        names = [tensor.name for tensor in (*graph.parameters, *(extra.tensor for extra in graph.extras))]
        if graph.extras and len(set(names)) != len(names):
            raise DecodeError(f"{fields.where}.extras", "names of their own", "a repeated name")
        fields.finish()
        return graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a release comes from.

    Attributes:
        parent: The release it was trained from, if any.
        run: Identity of the training run.
        checkpoint_sha256: Hash of the float weights.
        data_fingerprint: Hash of the data that the server trained or verified with; never of device data.
        code_version: Version of Hedgerow that compiled it.
        note: One line for people.
    """

    parent: str | None
    run: str
    checkpoint_sha256: str
    data_fingerprint: str
    code_version: str
    note: str = ""

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "parent": self.parent,
            "run": self.run,
            "checkpoint_sha256": self.checkpoint_sha256,
            "data_fingerprint": self.data_fingerprint,
            "code_version": self.code_version,
            "note": self.note,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Lineage":
        """Decode a lineage."""
        lineage = cls(
            parent=fields.optional_text("parent", pattern=RELEASE_ID),
            run=fields.text("run", maximum_chars=128),
            checkpoint_sha256=fields.text("checkpoint_sha256", pattern=SHA256),
            data_fingerprint=fields.text("data_fingerprint", maximum_chars=128),
            code_version=fields.text("code_version", maximum_chars=64),
            note=fields.text("note"),
        )
        fields.finish()
        return lineage


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A release.

    Attributes:
        name, number: ``name@number`` is its identity; numbers rise and are never used again.
        task: Name of the task.
        created_at: UTC, ISO 8601.
        model_schema: Inputs, outputs, labels.
        artifacts: One for each target.
        train_graphs: One for each runtime that trains.
        reference: The reference blob.
        lineage: Where it comes from.
        metrics: Float metrics on held-out data, such as ``accuracy``.
    """

    name: str
    number: int
    task: str
    created_at: str
    model_schema: ModelSchema
    artifacts: tuple[Artifact, ...]
    train_graphs: tuple[TrainGraph, ...]
    reference: Blob
    lineage: Lineage
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def release(self) -> str:
        """The identity, ``name@number``."""
        return f"{self.name}@{self.number}"

    def artifact(self, target: str) -> Artifact | None:
        """Return the artifact for *target*, or None."""
        return next((artifact for artifact in self.artifacts if artifact.target == target), None)

    def train_graph(self, runtime: str) -> TrainGraph | None:
        """Return the train graph for *runtime*, or None."""
        return next((graph for graph in self.train_graphs if graph.runtime == runtime), None)

    def blobs(self) -> tuple[Blob, ...]:
        """Return every blob the release needs, each once."""
        found = [a.blob for a in self.artifacts] + [a.golden for a in self.artifacts if a.golden]
        found += [graph.blob for graph in self.train_graphs] + [self.reference]
        return tuple(dict.fromkeys(found))

    def encode(self) -> bytes:
        """Encode as canonical JSON."""
        return encode_json(
            {
                "schema_version": SCHEMA_VERSION,
                "name": self.name,
                "number": self.number,
                "task": self.task,
                "created_at": self.created_at,
                "model_schema": self.model_schema.to_record(),
                "artifacts": [artifact.to_record() for artifact in self.artifacts],
                "train_graphs": [graph.to_record() for graph in self.train_graphs],
                "reference": self.reference.to_record(),
                "lineage": self.lineage.to_record(),
                "metrics": dict(self.metrics),
            }
        )

    @classmethod
    def decode(cls, payload: bytes) -> "Manifest":
        """Decode a manifest.

        Raises:
            DecodeError: The payload is not one of this schema version.
        """
        fields = decode_json(payload, "manifest", limit_bytes=_LIMIT_BYTES)
        fields.integer("schema_version", minimum=SCHEMA_VERSION, maximum=SCHEMA_VERSION)
        metrics = fields.nested("metrics")
        manifest = cls(
            name=fields.text("name", pattern=MODEL_NAME),
            number=fields.integer("number", minimum=1, maximum=999_999_999),
            task=fields.text("task", maximum_chars=128),
            created_at=fields.text("created_at", maximum_chars=64),
            model_schema=ModelSchema.from_fields(fields.nested("model_schema")),
            artifacts=fields.sequence("artifacts", Artifact.from_fields, maximum_items=64),
            train_graphs=fields.sequence("train_graphs", TrainGraph.from_fields, maximum_items=8),
            reference=Blob.from_fields(fields.nested("reference")),
            lineage=Lineage.from_fields(fields.nested("lineage")),
            metrics={name: metrics.number(name) for name in metrics.names()},
        )
        fields.finish()
        return manifest
