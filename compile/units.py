"""One unit of compile work each: an artifact for a target, a train graph, the reference. They run inside a worker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.checkpoint import load_checkpoint
from hedgerow.compile.baseline import fingerprint, make_reference
from hedgerow.compile.build import add_blob
from hedgerow.compile.errors import VerificationError
from hedgerow.compile.golden import choose_samples, encode_golden, replay_tolerance
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.recipes import PASSES, PassCall, find_recipe
from hedgerow.compile.stage import Source, Stage
from hedgerow.compile.verify import Measured, verify_artifact, verify_train_graph
from hedgerow.hardware.target import load_target
from hedgerow.manifest import Artifact, Blob, TrainGraph
from hedgerow.plugins import load_plugin
from hedgerow.progress import Progress, Report
from hedgerow.schema import ModelSchema
from hedgerow.task import TaskData, load_task
from hedgerow.task_module import CheckpointMismatchError, load_weights, predict

if TYPE_CHECKING:
    from hedgerow.compile.train_graph.export import TrainFile

__all__ = ["Foundation", "ReferenceFacts", "Workbench", "compile_artifact", "compile_reference", "compile_train_graph"]

_BATCH = 256


@dataclass(frozen=True, slots=True)
class ReferenceFacts:
    """What the reference's unit finds out about task and float model on the way."""

    task: str
    model_schema: ModelSchema
    reference: Blob
    metrics: Mapping[str, float]
    data_fingerprint: str


@dataclass(frozen=True, slots=True)
class Foundation:
    """A task, its data and one checkpoint, with what several units of one worker share.

    Attributes:
        source: The float model.
        data: The task's data.
        float_probabilities: The float model's output on held-out data.
        stages: Results of passes by the calls that led to them, so that one export serves two targets.
        train_files: Train graphs by format. They hold no weights, so they outlive the checkpoint.
    """

    source: Source
    data: TaskData
    float_probabilities: NDArray[np.float32]
    stages: dict[tuple[str, ...], Stage] = field(default_factory=dict)
    train_files: "dict[str, TrainFile]" = field(default_factory=dict)


class Workbench:
    """Keeps the last foundation, and a task's data, from one unit to the next."""

    def __init__(self) -> None:
        self._data: dict[str, TaskData] = {}
        self._train_files: dict[str, TrainFile] = {}
        self._last: tuple[tuple[str, str], Foundation] | None = None

    def foundation(self, task_reference: str, checkpoint_folder: Path, weights_sha256: str) -> Foundation:
        """Return the foundation of a task and a checkpoint.

        Args:
            task_reference: Names the task.
            checkpoint_folder: Holds the checkpoint.
            weights_sha256: Hash of its weights, which tells two checkpoints apart.

        Raises:
            CheckpointError: The checkpoint cannot be read.
            CheckpointMismatchError: It belongs to another task or model.
            TaskError: The task cannot be imported, or its data is wrong.
        """
        key = (task_reference, weights_sha256)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        task = load_task(task_reference)
        checkpoint = load_checkpoint(checkpoint_folder)
        if checkpoint.task != task.name:
            raise CheckpointMismatchError(
                f"expected a checkpoint of the task {task.name!r}, found one of {checkpoint.task!r}; give the "
                "checkpoint that this task was trained to"
            )
        model = load_weights(task, checkpoint.weights)
        if task_reference not in self._data:
            self._data, self._train_files = {task_reference: task.load_data()}, {}
        data = self._data[task_reference]
        source = Source(task=task, model=model, calibration=data.calibration_or_default())
        held_out = data.held_out
        rows = [
            predict(task, model, {name: values[start : start + _BATCH] for name, values in held_out.inputs.items()})
            for start in range(0, len(held_out), _BATCH)
        ]
        foundation = Foundation(source, data, np.concatenate(rows), train_files=self._train_files)
        self._last = (key, foundation)
        return foundation


def _run_passes(foundation: Foundation, calls: Sequence[PassCall], done: "Report | None", work: Progress) -> Stage:
    stage: Stage | None = None
    path: tuple[str, ...] = ()
    for index, call in enumerate(calls):
        path = (*path, str(call))
        if path not in foundation.stages:
            foundation.stages[path] = load_plugin("pass", PASSES, call.name)(foundation.source, stage, call.settings)
        stage = foundation.stages[path]
        if done is not None:
            done(Progress(work.work, work.done + index + 1, work.total, call.name))
    if stage is None:
        raise ValueError("a recipe has no passes")
    return stage


def artifact_steps(recipe_name: str) -> int:
    """Return how many steps of progress an artifact of a recipe reports."""
    return len(find_recipe(recipe_name).passes) + 2


def compile_artifact(
    foundation: Foundation, target_name: str, recipe_name: str, folder: Path, *, max_drop: float, report: Report
) -> Artifact:
    """Make and verify one artifact; its blobs go into the build in *folder*.

    Raises:
        PassError: A pass failed.
        VerificationError: A check refused the artifact.
    """
    target, recipe = load_target(target_name), find_recipe(recipe_name)
    work, total = f"compile {target_name}", artifact_steps(recipe_name)
    floating = _run_passes(foundation, recipe.float_passes, None, Progress(work, 0, total))
    stage = _run_passes(foundation, recipe.passes, report, Progress(work, 0, total))
    probabilities = _predict(stage, foundation.data.held_out.inputs)
    golden, difference, tolerance = None, None, 0.0
    if probabilities is not None:
        largest = float(np.abs(probabilities.astype(np.float64) - foundation.float_probabilities).max())
        tolerance = replay_tolerance(largest) if np.isfinite(largest) else 0.0
        golden, difference = _golden(foundation, stage)
    measured = Measured(
        size_bytes=len(stage.content),
        float_bytes=len(floating.content),
        facts=_facts(stage),
        labels=foundation.data.held_out.labels,
        float_probabilities=foundation.float_probabilities,
        probabilities=probabilities,
        replay_difference=difference,
        replay_tolerance=tolerance,
    )
    report(Progress(work, total - 1, total, "verify"))
    verdict = verify_artifact(target, recipe, measured, max_drop=max_drop)
    artifact = Artifact(
        target=target_name,
        format=stage.format,
        runtime=target.runtime,
        blob=add_blob(folder, stage.content),
        inputs=stage.inputs,
        outputs=stage.outputs,
        recipe=tuple(str(call) for call in recipe.passes),
        golden=add_blob(folder, golden) if golden is not None else None,
        golden_tolerance=tolerance,
        metrics=verdict.metrics,
        checks=verdict.checks,
    )
    result = verdict.metrics.get("accuracy")
    report(Progress(work, total, total, f"{len(stage.content)} bytes" + (f", accuracy {result:.3f}" if result else "")))
    return artifact


def _predict(stage: Stage, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | None:
    if stage.format == "onnx":
        from hedgerow.compile.runners.onnx import predict_onnx

        return predict_onnx(stage, inputs)
    if stage.format == "tflite":
        from hedgerow.compile.runners.tflite import predict_tflite

        return predict_tflite(stage, inputs)
    # Core ML predicts on Apple's systems only.
    return None


def _facts(stage: Stage) -> FileFacts:
    if stage.format == "onnx":
        from hedgerow.compile.inspection.onnx import read_onnx

        return read_onnx(stage.content)
    if stage.format == "tflite":
        from hedgerow.compile.inspection.tflite import read_tflite

        return read_tflite(stage.content)
    from hedgerow.compile.inspection.coreml import read_coreml

    return read_coreml(stage.content)


def _golden(foundation: Foundation, stage: Stage) -> tuple[bytes, float]:
    """Return the golden samples, and how far a replay sample by sample is from them."""
    samples = choose_samples(foundation.data.held_out)
    outputs = _predict(stage, samples.inputs)
    replayed = [
        _predict(stage, {name: values[index : index + 1] for name, values in samples.inputs.items()})
        for index in range(len(samples))
    ]
    if outputs is None or any(row is None for row in replayed):
        raise ValueError("golden samples need a format that this host runs")
    difference = float(np.abs(np.concatenate([row for row in replayed if row is not None]) - outputs).max())
    return encode_golden(samples.inputs, {stage.outputs[0].name: outputs}), difference


def compile_train_graph(foundation: Foundation, kind: str, folder: Path, report: Report) -> tuple[TrainGraph, float]:
    """Make one train graph and compare one step of it with torch.

    Returns:
        The graph, and the largest difference from torch.

    Raises:
        PassError: The exporter cannot translate the step.
        UntranslatableError: The model needs a gradient that has no translation.
        VerificationError: A step differs from torch's.
    """
    from hedgerow.compile.train_graph.export import export_train_graph, largest_difference

    work = f"train graph {kind}"
    if kind not in foundation.train_files:
        foundation.train_files[kind] = export_train_graph(foundation.source, kind)
    file = foundation.train_files[kind]
    report(Progress(work, 1, 2, "verify"))
    try:
        difference = largest_difference(foundation.source, file, foundation.data.train)
    # A runtime that cannot load or run the file says so in its own way, and that is a failed check.
    except (RuntimeError, ValueError, KeyError) as exc:
        raise VerificationError(f"the {kind} train graph", "train graph", "a file that runs", str(exc)[:200]) from exc
    verify_train_graph(kind, difference)
    graph = TrainGraph(
        format=file.format,
        runtime=file.runtime,
        blob=add_blob(folder, file.content),
        batch_size=file.batch_size,
        inputs=file.inputs,
        labels=file.labels,
        learning_rate=file.learning_rate,
        loss=file.loss,
        parameters=file.parameters,
        updated=file.updated,
    )
    report(Progress(work, 2, 2, f"{len(file.content)} bytes, differs from torch by {difference:.1e}"))
    return graph, difference


def compile_reference(
    foundation: Foundation, folder: Path, counts: Mapping[str, Sequence[int]] | None, report: Report
) -> ReferenceFacts:
    """Make the reference; measure the float model."""
    task, data = foundation.source.task, foundation.data
    reference = make_reference(task.schema, data.train, foundation.float_probabilities, counts)
    metrics = {
        name: float(metric(foundation.float_probabilities, data.held_out.labels))
        for name, metric in task.metrics.items()
    }
    facts = ReferenceFacts(task.name, task.schema, add_blob(folder, reference.encode()), metrics, fingerprint(data))
    report(Progress("reference", 1, 1, f"{len(reference.features)} features"))
    return facts


def settle_threads() -> None:
    """Let torch use one thread: several workers share the machine, and sums keep one order."""
    torch.set_num_threads(1)
