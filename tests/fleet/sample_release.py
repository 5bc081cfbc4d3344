"""A small release with real hashes, for the tests of signing and releasing."""

from hashlib import sha256
from pathlib import Path

import numpy as np

from hedgerow.compile.golden import encode_golden
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob, Tensor
from hedgerow.manifest.release import Lineage, Manifest
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs
from hedgerow.schema import TensorSpec

SCHEMA = ModelSchema(
    inputs=(TensorSpec("image", (1, 8, 8)),),
    outputs=(TensorSpec("probabilities", (2,), minimum=0.0, maximum=1.0),),
    answers=Outputs.of(Classes(("no", "yes"))),
)
REFERENCE = b'{"features":[],"version":1}'


def golden_samples(count: int = 2) -> bytes:
    inputs, outputs = np.zeros((count, 1, 8, 8), np.float32), np.full((count, 2), 0.5, np.float32)
    return encode_golden({"image": inputs}, {"probabilities": outputs})


def put_blob(folder: Path, content: bytes) -> Blob:
    digest = sha256(content).hexdigest()
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    (folder / "blobs" / digest).write_bytes(content)
    return Blob(digest, len(content))


def make_artifact(folder: Path, target: str, content: bytes, *, golden: bytes | None = None, check: str = "passed"):
    return Artifact(
        target=target,
        format="sample",
        runtime="sample",
        blob=put_blob(folder, content),
        inputs=(Tensor("image", "image", (-1, 1, 8, 8), "float32"),),
        outputs=(Tensor("probabilities", "probabilities", (-1, 2), "float32"),),
        recipe=("export",),
        golden=None if golden is None else put_blob(folder, golden),
        golden_tolerance=1e-3,
        metrics={"accuracy": 0.95},
        checks={"size": "passed", "accuracy": check},
    )


def write_release(folder: Path, number: int, *, name: str = "digits", salt: bytes = b"") -> Manifest:
    """Write ``manifest.json`` and ``blobs/`` into *folder*: two targets share an artifact, one has its own."""
    manifest = Manifest(
        name=name,
        number=number,
        task="digits",
        created_at="2026-01-01T00:00:00+00:00",
        model_schema=SCHEMA,
        artifacts=(
            make_artifact(folder, "raspberry-pi-4", b"shared" + salt, golden=b"golden pi" + salt),
            make_artifact(folder, "x86-gateway", b"shared" + salt, golden=b"golden x86" + salt),
            make_artifact(folder, "android-arm64", b"own" + salt),
        ),
        train_graphs=(),
        reference=put_blob(folder, REFERENCE),
        lineage=Lineage(parent=None, run="r", checkpoint_sha256="0" * 64, data_fingerprint="", code_version="0"),
    )
    (folder / "manifest.json").write_bytes(manifest.encode())
    return manifest
