"""Compile a checkpoint: plan the work, let the workers do it, put the build together."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hedgerow.checkpoint import WEIGHTS_FILE, Checkpoint, load_checkpoint
from hedgerow.compile.build import RECORD_FILE, Build, save_build
from hedgerow.compile.errors import BadWeightsError, BuildFolderError, CompileError, RecipeMismatchError
from hedgerow.compile.messages import Job
from hedgerow.compile.recipes import find_recipe
from hedgerow.compile.toolchains import TOOLCHAINS, check_installed
from hedgerow.compile.verify import PASSED
from hedgerow.compile.workers import CompileWorkers
from hedgerow.decode import Fields
from hedgerow.durable import sha256_of, sync_folder
from hedgerow.hardware.target import load_target
from hedgerow.manifest import Artifact, Blob, TrainGraph
from hedgerow.progress import Report, silent
from hedgerow.schema import ModelSchema

__all__ = ["compile_checkpoint", "toolchains"]

_TRAIN_TOOLCHAIN = {"onnx": "onnx", "tflite": "tflite"}


def toolchains(targets: Sequence[str], recipes: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the toolchains that compiling for *targets* needs, to warm workers up with.

    Raises:
        UnknownNameError: There is no such target or recipe.
    """
    return tuple(sorted({find_recipe(recipe).toolchain for recipe in _choose_recipes(targets, recipes or {}).values()}))


def compile_checkpoint(
    task_reference: str,
    checkpoint: Path,
    targets: Sequence[str],
    out: Path,
    *,
    max_drop: float = 0.015,
    jobs: int | None = None,
    reference_counts: Mapping[str, Sequence[int]] | None = None,
    recipes: Mapping[str, str] | None = None,
    workers: CompileWorkers | None = None,
    report: Report = silent,
) -> Build:
    """Compile a checkpoint for hardware targets, verify every artifact and write a build.

    The same checkpoint, task and targets give the same bytes. Nothing is left at *out* when anything fails.

    Args:
        task_reference: The task, ``module:attribute`` or ``file.py:attribute``.
        checkpoint: Folder of :func:`hedgerow.checkpoint.save_checkpoint`.
        targets: Names of hardware targets; each once.
        out: The build's folder; a build that is already there is replaced.
        max_drop: Largest allowed loss of held-out accuracy against float, as a share (0.015: 1.5 points).
        jobs: How many processes work at once; None: one for each toolchain. Not used when *workers* is given.
        reference_counts: Feature -> counts in the reference's bins that devices made of the data they trained on; they
            replace the counts of the task's training data.
        recipes: Target -> recipe, where the target's own is not wanted.
        workers: Warm processes to use; None: processes for this call alone.
        report: Takes progress.

    Raises:
        UnknownNameError: There is no such target or recipe.
        CheckpointError: There is no checkpoint, or it is damaged.
        BadWeightsError: Its weights are empty or not finite.
        CheckpointMismatchError: It belongs to another task or model.
        TaskError: The task cannot be imported, or its data is wrong.
        ExtraNotInstalledError: The packages that compile are absent.
        VerificationError: An artifact failed a check.
        CompileError: Compiling failed otherwise, or *out* cannot be used.
        ValueError: No targets, a repeated target, or a senseless budget.
    """
    if not targets or len(set(targets)) != len(targets):
        raise ValueError(f"expected at least one target, each once, found {list(targets)}")
    if not 0 <= max_drop <= 1:
        raise ValueError(f"expected a budget between 0 and 1, found {max_drop}")
    chosen = _choose_recipes(targets, recipes or {})
    loaded = load_checkpoint(checkpoint)
    _check_weights(loaded)
    for toolchain in sorted({find_recipe(recipe).toolchain for recipe in chosen.values()}):
        check_installed(toolchain, ("torch", *TOOLCHAINS[toolchain]))
    weights_sha256 = sha256_of(checkpoint / WEIGHTS_FILE)
    plan = _plan(task_reference, checkpoint, weights_sha256, chosen, max_drop, reference_counts or {})
    answers = _Answers()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_new_folder(out))
        if workers is None:
            workers = stack.enter_context(CompileWorkers(jobs=jobs))
        workers.run([replace(job, folder=str(folder)) for job in plan], answers.take, report)
        build = answers.build(loaded, weights_sha256, targets)
        save_build(folder, build)
        _put_in_place(folder, out)
    return build


def _choose_recipes(targets: Sequence[str], recipes: Mapping[str, str]) -> dict[str, str]:
    chosen = {}
    for name in targets:
        target = load_target(name)
        chosen[name] = recipes.get(name, target.recipe)
        recipe = find_recipe(chosen[name])
        if recipe.format != target.format:
            raise RecipeMismatchError(name, target.format, chosen[name], recipe.format)
    if unknown := sorted(set(recipes) - set(targets)):
        raise CompileError(f"a recipe is given for {', '.join(unknown)}, which is not compiled for; add it as a target")
    return chosen


def _check_weights(checkpoint: Checkpoint) -> None:
    if not any(values.size for values in checkpoint.weights.values()):
        raise BadWeightsError("weights", "none")
    for name, values in sorted(checkpoint.weights.items()):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise BadWeightsError("finite weights", f"NaN or infinity in {name}")


def _absolute(task_reference: str) -> str:
    place, separator, attribute = task_reference.rpartition(":")
    return f"{Path(place).resolve()}{separator}{attribute}" if place.endswith(".py") else task_reference


def _plan(
    task_reference: str,
    checkpoint: Path,
    weights_sha256: str,
    recipes: Mapping[str, str],
    max_drop: float,
    counts: Mapping[str, Sequence[int]],
) -> list[Job]:
    """Return one job for each toolchain; the reference goes to the one with the least to do."""
    artifacts: dict[str, dict[str, str]] = {}
    trains: dict[str, list[str]] = {}
    for target, recipe in recipes.items():
        artifacts.setdefault(find_recipe(recipe).toolchain, {})[target] = recipe
    for kind in sorted({load_target(target).train_format for target in recipes} - {""}):
        trains.setdefault(_TRAIN_TOOLCHAIN[kind], []).append(kind)
    names = sorted({*artifacts, *trains})
    idlest = min(names, key=lambda name: len(artifacts.get(name, {})) + 2 * len(trains.get(name, [])))
    return [
        Job(
            toolchain=name,
            task=_absolute(task_reference),
            checkpoint=str(checkpoint.resolve()),
            weights_sha256=weights_sha256,
            folder="",
            search_path=tuple(str(Path(entry or ".").resolve()) for entry in sys.path),
            max_drop=max_drop,
            artifacts=artifacts.get(name, {}),
            train_formats=tuple(trains.get(name, [])),
            reference=name == idlest,
            counts={feature: tuple(values) for feature, values in counts.items()},
        )
        for name in names
    ]


class _Answers:
    """Collects the workers' results, in whatever order they come."""

    def __init__(self) -> None:
        self._artifacts: dict[str, Artifact] = {}
        self._graphs: dict[str, tuple[TrainGraph, float]] = {}
        self._task, self._schema, self._reference = "", ModelSchema((), ()), Blob("", 0)
        self._metrics: dict[str, float] = {}
        self._fingerprint = ""

    def take(self, kind: str, fields: Fields) -> None:
        """Keep one result.

        Raises:
            DecodeError: It is not what it says.
        """
        if kind == "artifact":
            artifact = Artifact.from_fields(fields)
            self._artifacts[artifact.target] = artifact
        elif kind == "train_graph":
            graph = TrainGraph.from_fields(fields.nested("graph"))
            self._graphs[graph.format] = (graph, fields.number("difference"))
        elif kind == "reference":
            metrics = fields.nested("metrics")
            self._task = fields.text("task")
            self._schema = ModelSchema.from_fields(fields.nested("model_schema"))
            self._reference = Blob.from_fields(fields.nested("reference"))
            self._metrics = {name: metrics.number(name) for name in metrics.names()}
            self._fingerprint = fields.text("data_fingerprint")
        else:
            raise ValueError(f"a worker answered {kind!r}")
        fields.finish()

    def build(self, checkpoint: Checkpoint, weights_sha256: str, targets: Sequence[str]) -> Build:
        """Return the build of all results, in the order of *targets*."""
        artifacts = []
        for target in targets:
            artifact = self._artifacts[target]
            trained = self._graphs.get(load_target(target).train_format)
            if trained is not None:
                # The train graph was compared with torch where it was made; whoever reads the artifact sees it.
                checks = {**artifact.checks, "train graph": PASSED}
                metrics = {**artifact.metrics, "train_difference": trained[1]}
                artifact = replace(artifact, checks=checks, metrics=metrics)
            artifacts.append(artifact)
        return Build(
            task=self._task,
            model_schema=self._schema,
            artifacts=tuple(artifacts),
            train_graphs=tuple(graph for _kind, (graph, _difference) in sorted(self._graphs.items())),
            reference=self._reference,
            checkpoint_sha256=weights_sha256,
            run=checkpoint.run,
            data_fingerprint=checkpoint.data_fingerprint or self._fingerprint,
            metrics=self._metrics,
            parent=checkpoint.parent,
        )


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder beside *out* that is gone afterwards, unless it was put in place.

    Raises:
        BuildFolderError: *out* is something else than a build, or its parent cannot be written.
    """
    if out.exists() and not (out / RECORD_FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise BuildFolderError(
            f"expected a new folder, an empty one or an earlier build at {out}, found something else; choose another "
            "place with --out"
        )
    parent, name = out.absolute().parent, out.absolute().name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(parent, name)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.{os.getpid()}.", suffix=".part", dir=parent))
        folder.chmod(0o755)
    except OSError as exc:
        raise BuildFolderError(
            f"expected a folder that can be written for a build at {out}, found none ({exc.strerror}); choose another "
            "--out"
        ) from exc
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_over(parent: Path, name: str) -> None:
    """Remove folders of earlier compiles to the same place that were killed: their process is gone."""
    for path in parent.glob(f".{name}.*.part"):
        process = path.name.removeprefix(f".{name}.").partition(".")[0]
        if process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks only
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _put_in_place(folder: Path, out: Path) -> None:
    old = folder.with_suffix(".old")
    if out.exists():
        out.rename(old)
    try:
        folder.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(out.absolute().parent)
