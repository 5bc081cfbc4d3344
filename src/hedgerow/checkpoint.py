"""A checkpoint: float weights of a trained task, with the record of the run that made them.

On disk it is a folder with ``weights.safetensors`` and ``checkpoint.json``. The record names the hash of the weights
and is written last, so a half-written checkpoint is never taken for a whole one.

A run that failed leaves ``failed.json`` in its folder; while that is there, nothing of the run is a checkpoint to go on
with but for the run itself.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hedgerow.decode import SHA256, decode_json, encode_json
from hedgerow.durable import write_durably
from hedgerow.errors import CheckpointError, CheckpointMismatchError, DecodeError
from hedgerow.weights import Arrays, decode_arrays, encode_arrays

__all__ = [
    "FAILURE_FILE",
    "ROUNDS_FOLDER",
    "Checkpoint",
    "load_checkpoint",
    "load_checkpoint_of",
    "read_checkpoint",
    "save_checkpoint",
]

WEIGHTS_FILE, RECORD_FILE = "weights.safetensors", "checkpoint.json"
FAILURE_FILE = "failed.json"
"""In a run's folder: why the run failed. Its checkpoint lies one folder below, its rounds in one more."""
ROUNDS_FOLDER = "rounds"
_WEIGHTS_LIMIT_BYTES = 8 * 2**30
_RECORD_LIMIT_BYTES = 2**20
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights and where they come from.

    Attributes:
        weights: Parameter or buffer name -> array.
        task: Name of the task.
        run: Identity of the training run.
        round: The last finished round.
        strategy: Name of the strategy.
        grid: The place where it was trained: ``in-process``, ``fleet``, ...
        seed: The run's seed.
        data_fingerprint: Hash of the data on the training side; empty when devices trained.
        parent: The release it started from, if any.
        metrics: Float metrics on held-out data: the mean score, ``accuracy`` or ``score``, and others.
        privacy: What its training promises, as ``hedgerow.server.accounting`` states it; None: nothing.
    """

    weights: Arrays
    task: str
    run: str
    round: int
    strategy: str
    grid: str
    seed: int
    data_fingerprint: str = ""
    parent: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    privacy: Mapping[str, Any] | None = None

    def with_metrics(self, metrics: Mapping[str, float]) -> "Checkpoint":
        """Return it with other metrics."""
        return replace(self, metrics=dict(metrics))


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write *checkpoint* atomically into *folder*.

    Raises:
        OSError: The folder cannot be written.
    """
    weights = encode_arrays(checkpoint.weights)
    write_durably(folder / WEIGHTS_FILE, weights)
    record = {
        "version": _VERSION,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "task": checkpoint.task,
        "run": checkpoint.run,
        "round": checkpoint.round,
        "strategy": checkpoint.strategy,
        "grid": checkpoint.grid,
        "seed": checkpoint.seed,
        "data_fingerprint": checkpoint.data_fingerprint,
        "parent": checkpoint.parent,
        "metrics": dict(checkpoint.metrics),
        **({} if checkpoint.privacy is None else {"privacy": dict(checkpoint.privacy)}),
    }
    write_durably(folder / RECORD_FILE, encode_json(record))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint to go on with.

    Raises:
        CheckpointError: There is none, it is damaged, its weights are not those of its record, or its run failed.
    """
    place = Path(os.path.realpath(folder))  # a link to a checkpoint of a failed run is no other checkpoint
    rounds = [place.parent.parent] if place.parent.name == ROUNDS_FOLDER else []
    for run in (place, place.parent, *rounds):
        if (run / FAILURE_FILE).exists():
            raise CheckpointError(
                f"expected a checkpoint of a run that succeeded at {folder}, found one that failed: "
                f"{_failure(run / FAILURE_FILE)}; correct the cause and run it again, or train anew with --fresh"
            )
    return read_checkpoint(folder)


def load_checkpoint_of(task: str, folder: Path) -> Checkpoint:
    """Read a checkpoint to go on with, of the task of this name.

    Raises:
        CheckpointError: As for :func:`load_checkpoint`.
        CheckpointMismatchError: It is another task's.
    """
    checkpoint = load_checkpoint(folder)
    if checkpoint.task != task:
        raise CheckpointMismatchError(
            f"expected a checkpoint of the task {task!r}, found one of {checkpoint.task!r}; give the checkpoint that "
            "this task was trained to"
        )
    return checkpoint


def _failure(path: Path) -> str:
    try:
        return decode_json(path.read_bytes(), path.name, limit_bytes=_RECORD_LIMIT_BYTES).text("reason")
    except (OSError, DecodeError):
        return f"{path.name} cannot be read"


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, whatever became of its run.

    Raises:
        CheckpointError: There is none, it is damaged, or its weights are not those of its record.
    """
    try:
        record = (folder / RECORD_FILE).read_bytes()
        weights = (folder / WEIGHTS_FILE).read_bytes()
    except OSError as exc:
        raise CheckpointError(
            f"expected a checkpoint folder with {RECORD_FILE} and {WEIGHTS_FILE} at {folder}, found none "
            f"({exc.strerror}); make one with `hedgerow train`, or of own weights with `hedgerow checkpoint import`"
        ) from exc
    try:
        fields = decode_json(record, RECORD_FILE, limit_bytes=_RECORD_LIMIT_BYTES)
        fields.integer("version", minimum=_VERSION, maximum=_VERSION)
        expected = fields.text("weights_sha256", pattern=SHA256)
        metrics = fields.nested("metrics")
        checkpoint = Checkpoint(
            weights=decode_arrays(weights, WEIGHTS_FILE, limit_bytes=_WEIGHTS_LIMIT_BYTES),
            task=fields.text("task"),
            run=fields.text("run"),
            round=fields.integer("round"),
            strategy=fields.text("strategy"),
            grid=fields.text("grid"),
            seed=fields.integer("seed"),
            data_fingerprint=fields.text("data_fingerprint"),
            parent=fields.optional_text("parent"),
            metrics={name: metrics.number(name) for name in metrics.names()},
            privacy=fields.nested("privacy").plain() if "privacy" in fields.names() else None,
        )
        fields.finish()
    except DecodeError as exc:
        raise CheckpointError(f"the checkpoint at {folder} is damaged: {exc}; train again or restore a copy") from exc
    found = hashlib.sha256(weights).hexdigest()
    if found != expected:
        raise CheckpointError(
            f"the checkpoint at {folder} is damaged: expected weights with SHA-256 {expected[:12]}..., found "
            f"{found[:12]}...; train again or restore a copy"
        )
    return checkpoint
