"""A user's own weights become a checkpoint: read, fitted to the task's model, measured, saved. Needs torch."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.checkpoint import RECORD_FILE, WEIGHTS_FILE, Checkpoint, load_checkpoint, read_checkpoint, save_checkpoint
from hedgerow.durable import sha256_of
from hedgerow.errors import CheckpointError, TaskError
from hedgerow.server.weights.errors import WeightsFileError
from hedgerow.server.weights.fit import fit_weights
from hedgerow.server.weights.held_out import HeldOutScore, score_held_out
from hedgerow.server.weights.weights_file import read_weights
from hedgerow.task import Task, TaskData
from hedgerow.task_module import load_weights, model_weights

__all__ = ["IMPORTED", "ImportedCheckpoint", "StartingWeights", "import_checkpoint", "starting_weights"]

IMPORTED = "imported"
"""What stands for the strategy, and the grid, of a checkpoint that no run of ours has made."""


@dataclass(frozen=True, slots=True)
class StartingWeights:
    """Weights that a run starts from, or that are imported.

    Attributes:
        checkpoint: They, with their record.
        notes: One sentence for everything that was changed in them.
    """

    checkpoint: Checkpoint
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportedCheckpoint:
    """A checkpoint that was made of a user's own weights.

    Attributes:
        folder: Where it is.
        checkpoint: It.
        score: How good it is on held-out data.
        notes: One sentence for everything that was changed in the weights.
    """

    folder: Path
    checkpoint: Checkpoint
    score: HeldOutScore
    notes: tuple[str, ...]

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "checkpoint": str(self.folder),
            "task": self.checkpoint.task,
            "run": self.checkpoint.run,
            "tensors": len(self.checkpoint.weights),
            "notes": list(self.notes),
            **self.score.to_record(),
        }


def import_checkpoint(file: Path, task: Task, data: TaskData, out: Path, *, entry: str = "") -> ImportedCheckpoint:
    """Make a checkpoint of a user's own weights.

    Args:
        file: A state dict, or what holds one, of torch or safetensors.
        task: Whose model they are of.
        data: Its data.
        out: The checkpoint's folder; one that was imported before is replaced.
        entry: Under which name *file* holds the state dict.

    Raises:
        WeightsFileError: The file holds no weights that can be taken.
        WeightsMisfitError: They are another model's.
        TaskError: The model cannot be made, or gives no numbers with them.
        CheckpointError: Something else is in the folder.
        OSError: It cannot be written.
    """
    _check_free(out)
    found = _of_file(file, task, entry)
    score = score_held_out(task, data, found.checkpoint.weights, str(file))
    checkpoint = found.checkpoint.with_metrics(score.metrics)
    save_checkpoint(out, checkpoint)
    # What is read again is what others will read.
    return ImportedCheckpoint(out, load_checkpoint(out), score, found.notes)


def starting_weights(place: Path, task: Task, *, entry: str = "") -> StartingWeights:
    """Return the weights that a run of *task* starts from.

    Args:
        place: The folder of a checkpoint, or a file as for :func:`import_checkpoint`.
        task: Whose model they are of.
        entry: As for :func:`import_checkpoint`.

    Raises:
        CheckpointError: The checkpoint is damaged, or its run failed.
        CheckpointMismatchError: It is another model's.
        WeightsFileError, WeightsMisfitError, TaskError: As for :func:`import_checkpoint`.
    """
    if not (place / RECORD_FILE).is_file():
        return _of_file(place, task, entry)
    checkpoint = load_checkpoint(place)
    load_weights(task, checkpoint.weights)
    other = checkpoint.task != task.name
    return StartingWeights(
        checkpoint, (f"these weights were trained to the task {checkpoint.task!r}",) if other else ()
    )


def _of_file(file: Path, task: Task, entry: str) -> StartingWeights:
    read = read_weights(file, entry=entry)
    try:
        model = task.model()
    # The user's code may raise anything; the report must name it all the same.
    except Exception as exc:
        raise TaskError(repr(task.name), [f"model() raised {type(exc).__name__}: {exc}"]) from exc
    places = defaultdict[tuple[Any, ...], list[str]](list)
    for name, value in model.state_dict().items():
        if value.numel():
            places[value.data_ptr(), tuple(value.shape), value.stride()].append(name)
    tied = [names for names in places.values() if len(names) > 1]
    fitted = fit_weights(read, task.name, model_weights(model), tied=tied)
    if not any(values.size for values in fitted.arrays.values()):
        raise WeightsFileError(file, "none", "give a model that has weights", expected="weights")
    checkpoint = Checkpoint(
        weights=fitted.arrays,
        task=task.name,
        run=f"{task.name}-{IMPORTED}-{sha256_of(file)[:8]}",
        round=0,
        strategy=IMPORTED,
        grid=IMPORTED,
        seed=0,
    )
    return StartingWeights(checkpoint, fitted.notes)


def _check_free(out: Path) -> None:
    """Refuse a place where something else is than a checkpoint that was imported.

    Raises:
        CheckpointError: There is.
    """
    expected = f"a new folder, an empty one or an imported checkpoint at {out}"
    advice = "choose another with --out"
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"expected {expected}, found a file; {advice}")
    if not out.is_dir() or not any(out.iterdir()):
        return
    # What an import that was killed leaves is its own files.
    own = (RECORD_FILE, WEIGHTS_FILE, ".")
    others = sorted(path.name for path in out.iterdir() if not path.name.startswith(own))
    if others:
        raise CheckpointError(f"expected {expected}, found {others[0]!r} in it; {advice}")
    try:
        held = read_checkpoint(out)
    except CheckpointError:
        return
    if held.strategy != IMPORTED:
        raise CheckpointError(f"expected {expected}, found the checkpoint of the run {held.run}; {advice}")
