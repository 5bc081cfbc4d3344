"""One unit of compile work each: an artifact for a target, a train graph, the reference. They run inside a worker."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.blame import is_raised_by_hedgerow
from hedgerow.compile.arena import Arena, installed_version
from hedgerow.compile.baseline import fingerprint, make_reference
from hedgerow.compile.build import add_blob
from hedgerow.compile.edgetpu import compiled_for
from hedgerow.compile.errors import ForeignFileError, RuntimeRefusedError, VerificationError
from hedgerow.compile.evaluation import evaluate, evaluate_parts
from hedgerow.compile.foreign import ForeignFile
from hedgerow.compile.foundation import Foundation, Made, Micro
from hedgerow.compile.golden import choose_samples, encode_golden, replay_tolerance
from hedgerow.compile.inspection.model import read_facts
from hedgerow.compile.messages import Job, Unit
from hedgerow.compile.profile.host import HostLatency, measure_latency
from hedgerow.compile.profile.model import profile_model
from hedgerow.compile.recipes import MODEL_PASSES, PASSES, PassCall, Recipe, find_recipe
from hedgerow.compile.stage import Source, Stage
from hedgerow.compile.toolchains import NO_MCU
from hedgerow.compile.verify import Measured, Oracle, verify_artifact, verify_train_graph
from hedgerow.hardware.target import load_target
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.plugins import load_plugin
from hedgerow.progress import Progress, Report
from hedgerow.schema import ModelSchema
from hedgerow.task import Dataset
from hedgerow.tensor_border import to_stored
from hedgerow.weights import decode_arrays

if TYPE_CHECKING:
    from hedgerow.compile.coreml_reference.evaluate import UnknownOperator

__all__ = [
    "CompiledArtifact",
    "ReferenceFacts",
    "compile_artifact",
    "compile_reference",
    "compile_train_graph",
    "do_unit",
]


@dataclass(frozen=True, slots=True)
class ReferenceFacts:
    """What the reference's unit finds out about task and float model on the way."""

    task: str
    model_schema: ModelSchema
    reference: Blob
    metrics: Mapping[str, float]
    data_fingerprint: str
    evaluation: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CompiledArtifact:
    """An artifact that passed, with what its manifest does not hold.

    Attributes:
        artifact: It.
        latency: A prediction on this machine; None where this host cannot run it.
        not_run: Check that was not run -> why.
        evaluation: Per class and subgroup, see :func:`hedgerow.compile.evaluation.evaluate_parts`; None as above.
        executed_by: Check -> what really ran the file for it: runtime, version, provider or delegate.
        arena: The smallest tensor arena, for a target with one; None: not measured.
    """

    artifact: Artifact
    latency: HostLatency | None
    not_run: Mapping[str, str]
    evaluation: Mapping[str, Any] | None
    executed_by: Mapping[str, str]
    arena: Arena | None

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "artifact": self.artifact.to_record(),
            "latency": self.latency.to_record() if self.latency is not None else None,
            "not_run": dict(self.not_run),
            "evaluation": self.evaluation,
            "executed_by": dict(self.executed_by),
            "arena": self.arena.to_record() if self.arena is not None else None,
        }


class _Steps:
    """Counts an artifact's passes for its progress bar."""

    def __init__(self, work: str, total: int, report: Report) -> None:
        self._work, self._done, self._total, self._report = work, 0, total, report

    def __call__(self, note: str) -> None:
        self._done += 1
        self._report(Progress(self._work, self._done, self._total, note))


def _run_model_passes(foundation: Foundation, calls: Sequence[PassCall], done: _Steps) -> Source:
    source, path = foundation.source, tuple[str, ...]()
    for call in calls:
        path = (*path, str(call))
        if path not in foundation.sources:
            foundation.sources[path] = load_plugin("pass", MODEL_PASSES, call.name)(source, call.settings)
        source = foundation.sources[path]
        done(call.name)
    return source


def _run_passes(
    foundation: Foundation, source: Source, before: Sequence[PassCall], calls: Sequence[PassCall], done: _Steps | None
) -> Stage:
    """Return the file that *calls* make of *source*, which the model passes *before* made."""
    stage: Stage | None = None
    path = tuple(str(call) for call in before)
    for call in calls:
        path = (*path, str(call))
        if path not in foundation.stages:
            foundation.stages[path] = load_plugin("pass", PASSES, call.name)(source, stage, call.settings)
        stage = foundation.stages[path]
        if done is not None:
            done(call.name)
    if stage is None:
        raise ValueError("a recipe has no passes")
    return stage


def artifact_steps(recipe_name: str) -> int:
    """Return how many steps of progress an artifact of a recipe reports."""
    recipe = find_recipe(recipe_name)
    return len(recipe.model_passes) + len(recipe.passes) + 2


def _make(foundation: Foundation, recipe: Recipe, done: _Steps) -> Made:
    floating = _run_passes(foundation, foundation.source, (), recipe.float_passes, None)
    source = _run_model_passes(foundation, recipe.model_passes, done)
    stage = _run_passes(foundation, source, recipe.model_passes, recipe.passes, done)
    held_out = foundation.data.held_out
    predicted = _predict(stage, held_out.inputs)
    probabilities = predicted if isinstance(predicted, np.ndarray) else None
    golden, difference, tolerance, latency, evaluation = None, None, 0.0, None, None
    if probabilities is not None:
        largest = float(np.abs(probabilities.astype(np.float64) - foundation.float_probabilities).max())
        tolerance = replay_tolerance(largest) if np.isfinite(largest) else 0.0
        golden, difference = _golden(foundation, stage)
        latency = _latency(stage, held_out) if stage.format != "mlpackage" else None
        task = foundation.source.task
        evaluation = evaluate_parts(task.schema.labels, probabilities, held_out, task.subgroup)
    return Made(
        stage=stage,
        float_bytes=len(floating.content),
        facts=read_facts(stage.format, stage.content, _one_sample(foundation, stage)),
        probabilities=probabilities,
        not_run="" if isinstance(predicted, np.ndarray) else predicted.reason,
        golden=golden,
        replay_difference=difference,
        replay_tolerance=tolerance,
        latency=latency,
        executed_by=_executed_by(stage) if probabilities is not None else "",
        evaluation=evaluation,
    )


def _one_sample(foundation: Foundation, stage: Stage) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of one prediction for an ONNX file, which leaves the batch open."""
    if stage.format != "onnx":
        return None
    specs = {spec.name: spec.shape for spec in foundation.source.task.schema.inputs}
    return {tensor.tensor: (1, *specs[tensor.name]) for tensor in stage.inputs}


def _executed_by(stage: Stage) -> str:
    if stage.format == "onnx":
        from hedgerow.compile.runners.onnx import executed_by as of_onnx
        from hedgerow.compile.runners.onnx import open_session

        return of_onnx(open_session(stage.content))
    if stage.format == "tflite":
        from hedgerow.compile.runners.tflite import executed_by as of_tflite

        return of_tflite(stage.content)
    return "Hedgerow's reference evaluation of Core ML's operators"


def _on_micro(foundation: Foundation, recipe_name: str, made: Made) -> Micro:
    """Run a file as on a microcontroller, in a process of its own, once for all targets."""
    found = foundation.micro.get(recipe_name)
    if found is None:
        found = foundation.micro[recipe_name] = _run_on_micro(foundation, made)
    return found


def _run_on_micro(foundation: Foundation, made: Made) -> Micro:
    stage = made.stage
    if installed_version() is None:
        return Micro(oracle=Oracle(not_run=NO_MCU))
    samples = choose_samples(foundation.data.held_out)
    name = f"{foundation.source.task.name}.tflite"
    with ForeignFile(name, stage.format, stage.content) as file:
        try:
            arena = file.arena()
            replay = file.replay("tflite-micro", samples.inputs, (stage.inputs, stage.outputs), arena_bytes=arena.bytes)
        except RuntimeRefusedError as exc:
            return Micro(oracle=Oracle(expected=exc.expected, found=exc.found))
        except ForeignFileError as exc:
            expected = f"{exc.runtime} to live through {exc.step} the file"
            return Micro(oracle=Oracle(expected=expected, found=exc.found))
    differences = [replay.difference]
    if made.golden is not None:
        wanted = decode_arrays(made.golden, "golden samples", limit_bytes=len(made.golden))
        differences += [
            float(np.abs(values.astype(np.float64) - wanted[f"output.{output}"]).max(initial=0.0))
            for output, values in replay.outputs.items()
        ]
    largest = float(np.nan_to_num(differences, nan=np.inf).max())
    return Micro(
        oracle=Oracle(difference=largest),
        arena=arena,
        golden=encode_golden(samples.inputs, replay.outputs),
        executed_by=replay.executed_by,
    )


def compile_artifact(
    foundation: Foundation, target_name: str, recipe_name: str, folder: Path, *, max_drop: float, report: Report
) -> CompiledArtifact:
    """Make and verify one artifact; its blobs go into the build in *folder*.

    Raises:
        PassError: A pass failed.
        VerificationError: A check refused the artifact.
    """
    target, recipe = load_target(target_name), find_recipe(recipe_name)
    work, total = f"compile {target_name}", artifact_steps(recipe_name)
    made = foundation.made.get(recipe_name)
    if made is None:
        made = foundation.made[recipe_name] = _make(foundation, recipe, _Steps(work, total, report))
    stage, micro = made.stage, None
    if target.runtime == "tflite-micro" and target.format == stage.format:
        micro = _on_micro(foundation, recipe_name, made)
        profile = profile_model(made.facts, target, micro.arena or micro.oracle.not_run or "no arena works")
    else:
        profile = profile_model(made.facts, target)
    measured = Measured(
        size_bytes=len(stage.content),
        float_bytes=made.float_bytes,
        facts=made.facts,
        labels=foundation.data.held_out.labels,
        float_probabilities=foundation.float_probabilities,
        probabilities=made.probabilities,
        replay_difference=made.replay_difference,
        replay_tolerance=made.replay_tolerance,
        not_run=made.not_run,
        by_reference=stage.format == "mlpackage",
        activation_bytes=profile.peak_memory_bytes,
        latency_ms=profile.target_latency_ms,
        oracle=micro.oracle if micro is not None else None,
        profile_not_run=profile.not_run,
    )
    report(Progress(work, total - 1, total, "verify"))
    verdict = verify_artifact(target, recipe, measured, max_drop=max_drop)
    content, mapped = compiled_for(target, stage.content)
    golden = micro.golden if micro is not None and micro.golden is not None else made.golden
    executed_by = dict.fromkeys(("accuracy", "parity", "golden"), made.executed_by) if made.executed_by else {}
    if micro is not None and micro.executed_by:
        executed_by["oracle"] = micro.executed_by
    artifact = Artifact(
        target=target_name,
        format=stage.format,
        runtime=target.runtime,
        blob=add_blob(folder, content),
        inputs=stage.inputs,
        outputs=stage.outputs,
        recipe=tuple(str(call) for call in (*recipe.model_passes, *recipe.passes)),
        golden=add_blob(folder, golden) if golden is not None else None,
        golden_tolerance=made.replay_tolerance,
        metrics={**verdict.metrics, **profile.metrics(), "bytes": float(len(content))},
        checks={**verdict.checks, **mapped},
    )
    result = verdict.metrics.get("accuracy")
    note = f"{len(content)} bytes, " + (f"accuracy {result:.3f}" if result is not None else made.not_run)
    report(Progress(work, total, total, note))
    arena = micro.arena if micro is not None else None
    return CompiledArtifact(artifact, made.latency, verdict.not_run, made.evaluation, executed_by, arena)


def _predict(stage: Stage, inputs: Mapping[str, NDArray[Any]]) -> "NDArray[np.float32] | UnknownOperator":
    if stage.format == "onnx":
        from hedgerow.compile.runners.onnx import predict_onnx

        return predict_onnx(stage, inputs)
    if stage.format == "tflite":
        from hedgerow.compile.runners.tflite import predict_tflite

        return predict_tflite(stage, inputs)
    # Core ML itself predicts on Apple's systems only.
    from hedgerow.compile.coreml_reference.evaluate import predict_coreml

    return predict_coreml(stage.content, {t.tensor: to_stored(inputs[t.name], t) for t in stage.inputs})


def _latency(stage: Stage, held_out: Dataset) -> HostLatency:
    """Time single predictions of a file that this host runs."""
    values = {t.tensor: to_stored(held_out.inputs[t.name][:1], t) for t in stage.inputs}
    if stage.format == "onnx":
        from hedgerow.compile.runners.onnx import open_session

        session = open_session(stage.content)
        return measure_latency(lambda: session.run(None, values), time.perf_counter)
    from hedgerow.compile.runners.tflite import open_signature

    run = open_signature(stage.content)
    return measure_latency(lambda: run(values), time.perf_counter)


def _golden(foundation: Foundation, stage: Stage) -> tuple[bytes, float]:
    """Return the golden samples, and how far a replay sample by sample is from them."""
    samples = choose_samples(foundation.data.held_out)
    outputs = _predict(stage, samples.inputs)
    replayed = [
        _predict(stage, {name: values[index : index + 1] for name, values in samples.inputs.items()})
        for index in range(len(samples))
    ]
    rows = [row for row in replayed if isinstance(row, np.ndarray)]
    if not isinstance(outputs, np.ndarray) or len(rows) != len(samples):
        raise ValueError("golden samples need a file that this host runs or evaluates")
    difference = float(np.abs(np.concatenate(rows) - outputs).max())
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
        if is_raised_by_hedgerow(exc):
            raise
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
        extras=file.extras,
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
    evaluation = evaluate(task.schema.labels, foundation.float_probabilities, data.held_out, task.subgroup)
    blob = add_blob(folder, reference.encode())
    facts = ReferenceFacts(
        task.name, task.schema, blob, metrics, fingerprint(data), {**evaluation, "train_samples": len(data.train)}
    )
    report(Progress("reference", 1, 1, f"{len(reference.features)} features"))
    return facts


def do_unit(foundation: Foundation, unit: Unit, job: Job, report: Report) -> dict[str, Any]:
    """Make one unit of a job; return its answer as plain JSON values.

    Raises:
        CompileError: It was refused.
    """
    folder = Path(job.folder)
    if unit.kind == "artifact":
        compiled = compile_artifact(foundation, unit.name, unit.recipe, folder, max_drop=job.max_drop, report=report)
        return {"recipe": unit.recipe, **compiled.to_record()}
    if unit.kind == "train_graph":
        graph, difference = compile_train_graph(foundation, unit.name, folder, report)
        return {"graph": graph.to_record(), "difference": difference}
    facts = compile_reference(foundation, folder, job.counts or None, report)
    return {
        "task": facts.task,
        "model_schema": facts.model_schema.to_record(),
        "reference": facts.reference.to_record(),
        "metrics": dict(facts.metrics),
        "data_fingerprint": facts.data_fingerprint,
        "evaluation": dict(facts.evaluation),
    }


def settle_threads() -> None:
    """Let torch use one thread: several workers share the machine, and sums keep one order."""
    torch.set_num_threads(1)
