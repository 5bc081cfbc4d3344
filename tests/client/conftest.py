"""A fleet on loopback: signed releases of a linear model, served over HTTP with ranges and broken connections."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from hedgerow.client.runtimes.linear import LINEAR
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob, Tensor
from hedgerow.manifest.release import Lineage, Manifest, blob_path, manifest_path
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs
from hedgerow.reference import build_reference
from hedgerow.schema import TensorSpec
from hedgerow.weights import Arrays, encode_arrays

TARGET = "bench"
SCHEMA = ModelSchema(
    (TensorSpec("x", (4,), "float32", minimum=-8, maximum=8),),
    (TensorSpec("probabilities", (3,)),),
    Outputs.of(Classes(("a", "b", "c"))),
)


def blob_of(content: bytes) -> Blob:
    return Blob(hashlib.sha256(content).hexdigest(), len(content))


def linear_weights(number: int) -> Arrays:
    """Weights under which class ``(number - 1) % 3`` wins for inputs of zeros."""
    bias = np.zeros(3, dtype=np.float32)
    bias[(number - 1) % 3] = 3
    return {"weight": np.random.default_rng(number).normal(size=(4, 3)).astype(np.float32) / 8, "bias": bias}


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@dataclass
class Release:
    """A manifest and its blobs."""

    manifest: Manifest
    blobs: dict[str, bytes]

    @property
    def name(self) -> str:
        return self.manifest.release


def make_release(number: int = 1, *, target: str = TARGET, golden_error: float = 0.0, runtime: str = LINEAR) -> Release:
    """A release of a softmax regression from four numbers to three classes."""
    rng = np.random.default_rng(0)
    weights = linear_weights(number)
    x = rng.normal(size=(5, 4)).astype(np.float32)
    probabilities = softmax(x @ weights["weight"] + weights["bias"])
    golden = encode_arrays({"input.x": x, "output.probabilities": probabilities + np.float32(golden_error)})
    values = rng.normal(size=(200, 4))
    reference = build_reference(
        {f"x.{i}": values[:, i] for i in range(4)} | {"output.confidence": rng.uniform(0.3, 1, 200)},
        {"output.label": (rng.integers(0, 3, 200).astype(np.float64), ("a", "b", "c"))},
    ).encode()
    contents = [encode_arrays(weights), golden, encode_arrays({"marker": np.zeros(1, np.float32)}), reference]
    artifact, golden_blob, graph, reference_blob = (blob_of(content) for content in contents)
    parameters = (Tensor("weight", "weight", (4, 3), "float32"), Tensor("bias", "bias", (3,), "float32"))
    manifest = Manifest(
        name="demo",
        number=number,
        task="demo",
        created_at="2026-01-01T00:00:00Z",
        model_schema=SCHEMA,
        artifacts=(
            Artifact(
                target=target,
                format="safetensors",
                runtime=runtime,
                blob=artifact,
                inputs=(Tensor("x", "x", (-1, 4), "float32"),),
                outputs=(Tensor("probabilities", "probabilities", (-1, 3), "float32"),),
                recipe=(),
                golden=golden_blob,
                golden_tolerance=1e-4,
                metrics={},
                checks={},
            ),
        ),
        train_graphs=(
            TrainGraph(
                format="safetensors",
                runtime=runtime,
                blob=graph,
                batch_size=4,
                inputs=(Tensor("x", "x", (4, 4), "float32"),),
                targets=(Tensor("probabilities", "labels", (4,), "int64"),),
                learning_rate=Tensor("learning_rate", "learning_rate", (), "float32"),
                loss=Tensor("loss", "loss", (), "float32"),
                parameters=parameters,
                updated=parameters,
            ),
        ),
        reference=reference_blob,
        lineage=Lineage(parent=None, run="r", checkpoint_sha256="0" * 64, data_fingerprint="", code_version="0"),
    )
    return Release(manifest, {blob_of(content).sha256: content for content in contents})


def with_golden(made: Release, golden: Arrays | bytes) -> Release:
    """The same release with other golden samples."""
    content = golden if isinstance(golden, bytes) else encode_arrays(golden)
    (artifact,) = made.manifest.artifacts
    manifest = replace(made.manifest, artifacts=(replace(artifact, golden=blob_of(content)),))
    return Release(manifest, {**made.blobs, blob_of(content).sha256: content})


def without_golden(made: Release) -> Release:
    """The same release without golden samples."""
    artifacts = tuple(replace(artifact, golden=None) for artifact in made.manifest.artifacts)
    return Release(replace(made.manifest, artifacts=artifacts), made.blobs)


def without_train_graph(made: Release) -> Release:
    """The same release without a train graph."""
    return Release(replace(made.manifest, train_graphs=()), made.blobs)


class SignedRepository:
    """A TUF repository in a folder, signed with keys of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signers = {role: CryptoSigner.generate_ed25519() for role in ("root", "targets", "snapshot", "timestamp")}
        self.root = Metadata(Root(expires=_in_days(365), consistent_snapshot=True))
        for role, signer in self.signers.items():
            self.root.signed.add_key(signer.public_key, role)
        self.root.sign(self.signers["root"])
        self.targets = Metadata(Targets(expires=_in_days(365)))
        self.snapshot = Metadata(Snapshot(expires=_in_days(7)))
        self.timestamp = Metadata(Timestamp(expires=_in_days(1)))
        self.trusted_root = folder / "root.json"
        self._write("1.root.json", self.root)
        self.trusted_root.write_bytes(self.root.to_bytes())
        self.sign()

    def add(self, release: Release, *, signed_as: str | None = None, hardware: Mapping[str, str] | str = "any") -> None:
        """Sign a release; *hardware* for all of its files, or by hash."""
        name = release.name
        files = {manifest_path(name): release.manifest.encode()}
        files |= {blob_path(name, sha256): content for sha256, content in release.blobs.items()}
        for path, content in files.items():
            info = TargetFile.from_data(path, content, ["sha256"])
            for_whom = hardware if isinstance(hardware, str) else hardware.get(path.rpartition("/")[2], "any")
            info.unrecognized_fields["custom"] = {"release": signed_as or name, "hardware": for_whom}
            self.targets.signed.targets[path] = info
            stored = self.blob_file(path, hashlib.sha256(content).hexdigest())
            stored.parent.mkdir(parents=True, exist_ok=True)
            stored.write_bytes(content)
        self.targets.signed.version += 1
        self.sign()

    def blob_file(self, path: str, sha256: str) -> Path:
        place, _, name = path.rpartition("/")
        return self.folder / "tuf" / "targets" / place / f"{sha256}.{name}"

    def revoke(self, release: Release) -> None:
        prefix = manifest_path(release.name).removesuffix("manifest.json")
        kept = {path: info for path, info in self.targets.signed.targets.items() if not path.startswith(prefix)}
        self.targets.signed.targets = kept
        self.targets.signed.version += 1
        self.sign()

    def sign(self) -> None:
        """Sign and write targets, snapshot and timestamp."""
        self.snapshot.signed.meta["targets.json"].version = self.targets.signed.version
        self.snapshot.signed.version += 1
        self.timestamp.signed.snapshot_meta.version = self.snapshot.signed.version
        self.timestamp.signed.version += 1
        for role, metadata in (("targets", self.targets), ("snapshot", self.snapshot), ("timestamp", self.timestamp)):
            metadata.sign(self.signers[role])
        self._write(f"{self.targets.signed.version}.targets.json", self.targets)
        self._write(f"{self.snapshot.signed.version}.snapshot.json", self.snapshot)
        self._write("timestamp.json", self.timestamp)

    def _write(self, name: str, metadata: Metadata) -> None:
        path = self.folder / "tuf" / "metadata" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(metadata.to_bytes())


def _in_days(days: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


@dataclass
class FleetOnLoopback:
    """Serves a folder with ranges, cuts connections when told to, and takes training updates."""

    folder: Path
    cuts: list[int] = field(default_factory=list)
    """Bodies of the next answers end after so many bytes; 0 or less: whole."""
    ranges: bool = True
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, Range) of each request."""
    weights: dict[str, bytes] = field(default_factory=dict)
    updates: dict[str, bytes] = field(default_factory=dict)
    token: str = "t0ken"
    is_open: threading.Event = field(default_factory=threading.Event)
    """Answers about targets wait until it is set."""
    url: str = ""

    def paths(self, method: str = "GET") -> list[str]:
        return [path for sent, path, _ in self.requests if sent == method]


def _handler(fleet: FleetOnLoopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_args: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            fleet.requests.append(("GET", self.path, wanted))
            if self.path.startswith("/v1/"):
                if self.headers.get("Authorization") != f"Bearer {fleet.token}":
                    return self._answer(401, b"")
                return self._answer(200, fleet.weights[self.path])
            if "/targets/" in self.path:
                fleet.is_open.wait(10)
            path = fleet.folder / self.path.lstrip("/")
            if not path.is_file():
                return self._answer(404, b"")
            content = path.read_bytes()
            if not wanted or not fleet.ranges:
                return self._answer(200, content)
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= len(content):
                return self._answer(416, b"")
            return self._answer(206, content[start:], f"bytes {start}-{len(content) - 1}/{len(content)}")

        def do_PUT(self) -> None:
            fleet.requests.append(("PUT", self.path, ""))
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Authorization") != f"Bearer {fleet.token}":
                return self._answer(401, b"")
            fleet.updates[self.path] = body
            return self._answer(204, b"")

        def _answer(self, status: int, body: bytes, content_range: str = "") -> None:
            is_target = "/targets/" in self.path and "manifest" not in self.path
            cut = fleet.cuts.pop(0) if fleet.cuts and is_target else 0
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()
            self.wfile.write(body[:cut] if cut > 0 else body)
            if cut > 0:
                self.close_connection = True
                self.wfile.flush()
                self.connection.close()

    return Handler


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    folder = tmp_path / "server"
    folder.mkdir()
    return SignedRepository(folder)


@pytest.fixture
def fleet(repository: SignedRepository) -> Iterator[FleetOnLoopback]:
    served = FleetOnLoopback(repository.folder)
    served.is_open.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    server.daemon_threads = True
    # A connection that the test cut is no news.
    server.handle_error = lambda *_args: None
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join(2)


@pytest.fixture
def release() -> Callable[..., Release]:
    return make_release


@pytest.fixture
def corrupt() -> Callable[[SignedRepository, Release], None]:
    def change(repository: SignedRepository, made: Release) -> None:
        """Flip the artifact's bytes on the server, keeping its length."""
        sha256 = made.manifest.artifacts[0].blob.sha256
        path = repository.blob_file(blob_path(made.name, sha256), sha256)
        path.write_bytes(bytes(byte ^ 255 for byte in path.read_bytes()))

    return change


@pytest.fixture
def with_number() -> Callable[[Release, int], Release]:
    return lambda made, number: Release(replace(made.manifest, number=number), made.blobs)
