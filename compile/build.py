"""A build: everything that compiling makes, before it is numbered and signed as a release.

On disk it is a folder with ``build.json`` and ``blobs/<sha256>``. ``build.json`` is written last.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hedgerow.compile.errors import BuildFolderError
from hedgerow.decode import SHA256, decode_json, encode_json
from hedgerow.durable import sha256_of, write_durably
from hedgerow.errors import DecodeError
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.model_schema import ModelSchema

__all__ = ["BLOB_FOLDER", "RECORD_FILE", "Build", "add_blob", "load_build", "save_build"]

RECORD_FILE, BLOB_FOLDER = "build.json", "blobs"
_VERSION = 1
_LIMIT_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What compiling made.

    Attributes:
        task: Name of the task.
        model_schema: Inputs, outputs, and what these are for.
        artifacts: One for each target.
        train_graphs: One for each format that some target trains with.
        reference: The reference blob.
        checkpoint_sha256: Hash of the float weights.
        run: Identity of the training run.
        data_fingerprint: Hash of the data that the server trained or verified with.
        metrics: Float metrics on held-out data: the mean score, ``accuracy`` or ``score``, and others.
        parent: The release that training started from, if any.
    """

    task: str
    model_schema: ModelSchema
    artifacts: tuple[Artifact, ...]
    train_graphs: tuple[TrainGraph, ...]
    reference: Blob
    checkpoint_sha256: str
    run: str
    data_fingerprint: str
    metrics: Mapping[str, float]
    parent: str | None

    def artifact(self, target: str) -> Artifact | None:
        """Return the artifact for *target*, or None."""
        return next((artifact for artifact in self.artifacts if artifact.target == target), None)

    def blobs(self) -> tuple[Blob, ...]:
        """Return every blob of the build, each once."""
        found = [blob for artifact in self.artifacts for blob in artifact.blobs]
        found += [graph.blob for graph in self.train_graphs] + [self.reference]
        return tuple(dict.fromkeys(found))

    def encode(self) -> bytes:
        """Encode as canonical JSON."""
        return encode_json(
            {
                "version": _VERSION,
                "task": self.task,
                "model_schema": self.model_schema.to_record(),
                "artifacts": [artifact.to_record() for artifact in self.artifacts],
                "train_graphs": [graph.to_record() for graph in self.train_graphs],
                "reference": self.reference.to_record(),
                "checkpoint_sha256": self.checkpoint_sha256,
                "run": self.run,
                "data_fingerprint": self.data_fingerprint,
                "metrics": dict(self.metrics),
                "parent": self.parent,
            }
        )

    @classmethod
    def decode(cls, payload: bytes) -> "Build":
        """Decode a build.

        Raises:
            DecodeError: The payload is not one of this version.
        """
        fields = decode_json(payload, "build", limit_bytes=_LIMIT_BYTES)
        fields.integer("version", minimum=_VERSION, maximum=_VERSION)
        metrics = fields.nested("metrics")
        build = cls(
            task=fields.text("task", maximum_chars=128),
            model_schema=ModelSchema.from_fields(fields.nested("model_schema")),
            artifacts=fields.sequence("artifacts", Artifact.from_fields, maximum_items=64),
            train_graphs=fields.sequence("train_graphs", TrainGraph.from_fields, maximum_items=8),
            reference=Blob.from_fields(fields.nested("reference")),
            checkpoint_sha256=fields.text("checkpoint_sha256", pattern=SHA256),
            run=fields.text("run", maximum_chars=128),
            data_fingerprint=fields.text("data_fingerprint", maximum_chars=128),
            metrics={name: metrics.number(name) for name in metrics.names()},
            parent=fields.optional_text("parent", maximum_chars=128),
        )
        fields.finish()
        return build


def add_blob(folder: Path, content: bytes) -> Blob:
    """Write *content* into the build in *folder* and return its address; the same content is written once."""
    blob = Blob(hashlib.sha256(content).hexdigest(), len(content))
    path = folder / BLOB_FOLDER / blob.sha256
    if not path.exists():
        write_durably(path, content)
    return blob


def save_build(folder: Path, build: Build) -> None:
    """Write the record of *build* into *folder*, where its blobs already are.

    Raises:
        BuildFolderError: A blob is absent or is not what its name says.
        OSError: The folder cannot be written.
    """
    _check_blobs(folder, build)
    write_durably(folder / RECORD_FILE, build.encode())


def load_build(folder: Path) -> Build:
    """Read a build and hash every blob of it.

    Raises:
        BuildFolderError: There is none, or its record or a blob is damaged.
    """
    path = folder / RECORD_FILE
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise BuildFolderError(f"{path} is damaged: expected at most {_LIMIT_BYTES} bytes; compile again")
        payload = path.read_bytes()
    except OSError as exc:
        raise BuildFolderError(
            f"expected a build with {RECORD_FILE} at {folder}, found none ({exc.strerror}); make one with "
            "`hedgerow compile`"
        ) from exc
    try:
        build = Build.decode(payload)
    except DecodeError as exc:
        raise BuildFolderError(f"the build at {folder} is damaged: {exc}; compile again") from exc
    _check_blobs(folder, build)
    return build


def _check_blobs(folder: Path, build: Build) -> None:
    for blob in build.blobs():
        path = folder / BLOB_FOLDER / blob.sha256
        try:
            length_bytes = path.stat().st_size
            found = sha256_of(path) if length_bytes == blob.length_bytes else f"{length_bytes} bytes"
        except OSError as exc:
            raise BuildFolderError(
                f"the build at {folder} is damaged: expected the blob {blob.sha256[:12]}..., found none "
                f"({exc.strerror}); compile again"
            ) from exc
        if found != blob.sha256:
            raise BuildFolderError(
                f"the build at {folder} is damaged: expected a blob of {blob.length_bytes} bytes with SHA-256 "
                f"{blob.sha256[:12]}..., found {found[:24]}; compile again"
            )
