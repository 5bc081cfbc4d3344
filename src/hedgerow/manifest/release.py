"""The manifest of a release, ``name@number``: what it is, for whom, and where it comes from. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hedgerow.decode import SHA256, Fields, decode_json, encode_json
from hedgerow.errors import DecodeError
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.model_schema import ModelSchema

__all__ = ["RELEASE_ID", "Lineage", "Manifest", "blob_path", "manifest_path", "parse_release_id"]

SCHEMA_VERSION = 1
RELEASE_ID = re.compile(r"[a-z][a-z0-9-]{0,62}@[1-9][0-9]{0,8}")
MODEL_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_LIMIT_BYTES = 4 * 2**20


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The origin of a release: its parent, its run, its data and the code that compiled it.

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
        model_schema: Inputs, outputs, and what these are for.
        artifacts: One for each target.
        train_graphs: One for each runtime that trains.
        reference: The reference blob.
        lineage: Its origin.
        metrics: Float metrics on held-out data: the mean score, ``accuracy`` or ``score``, and others.
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
        found = [blob for artifact in self.artifacts for blob in artifact.blobs]
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
        for artifact in manifest.artifacts:
            if misfit := artifact.state_misfit(manifest.model_schema.state):
                raise DecodeError(f"{fields.where}.artifacts[{artifact.target}]", *misfit)
        return manifest
