"""One unit of compile work each: an artifact for a target, a train graph, the reference. They run inside a worker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hedgerow.blame import is_raised_by_hedgerow
from hedgerow.compile.arena import Arena
from hedgerow.compile.build import add_blob
from hedgerow.compile.edgetpu import compiled_for
from hedgerow.compile.errors import VerificationError
from hedgerow.compile.evaluation import baseline, evaluate
from hedgerow.compile.executing import execute
from hedgerow.compile.foundation import Foundation, Made
from hedgerow.compile.layer_losses import layer_losses
from hedgerow.compile.making import Steps, make
from hedgerow.compile.messages import Job, SentRecipe, Unit
from hedgerow.compile.preparation.c_interface import PREPARE
from hedgerow.compile.profile.host import HostLatency
from hedgerow.compile.profile.model import NO_ARENA, profile_model
from hedgerow.compile.recipe import Recipe
from hedgerow.compile.reference_bins import fingerprint, make_reference
from hedgerow.compile.scoring import finite_metrics, largest_held, score_in
from hedgerow.compile.stepwise import state_ends
from hedgerow.compile.toolchains import RUNTIME_NAMES
from hedgerow.compile.train_graph.options import StepOptions, parse_step_options
from hedgerow.compile.verify import (
    NOT_RUN,
    OF_THE_ORACLE,
    PASSED,
    Measured,
    of_outputs,
    verify_artifact,
    verify_train_graph,
)
from hedgerow.hardware.target import Target
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob
from hedgerow.manifest.preparation import Preparation
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.model_schema import ModelSchema
from hedgerow.progress import Progress, Report

__all__ = [
    "CompiledArtifact",
    "ReferenceFacts",
    "artifact_steps",
    "compile_artifact",
    "compile_reference",
    "compile_train_graph",
    "do_unit",
    "settle_threads",
]


NO_TRAIN_GRAPH = (
    "a train graph takes single samples, and this task has state that runs through a sequence; train it with "
    "hedgerow train, and release it anew"
)


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


def artifact_steps(recipe: Recipe | SentRecipe) -> int:
    """Return how many steps of progress an artifact of a recipe reports."""
    if isinstance(recipe, SentRecipe):
        recipe = recipe.read()
    return len(recipe.model_passes) + len(recipe.passes) + 2


def compile_artifact(
    foundation: Foundation, target: Target, recipe: Recipe, folder: Path, *, max_drop: float, report: Report
) -> CompiledArtifact:
    """Make and verify one artifact; its blobs go into the build in *folder*.

    Raises:
        PassError: A pass failed.
        VerificationError: A check refused the artifact.
    """
    work, total = f"compile {target.name}", artifact_steps(recipe)
    made = foundation.made.get((recipe, target.all_integer))
    if made is None:
        made = make(foundation, recipe, Steps(work, total, report), all_integer=target.all_integer)
        foundation.made[recipe, target.all_integer] = made
    stage = made.stage

    def ran(samples: int, of: int) -> None:
        report(Progress(work, total - 2 + samples / of, total, f"{samples} of {of} samples in {target.runtime}"))

    try:
        executed = execute(foundation, recipe, made, target.runtime, ran)
    # A runtime that cannot load or run the file says so in its own way, and that is a failed check.
    except RuntimeError as exc:
        runtime = RUNTIME_NAMES.get(target.runtime)
        if is_raised_by_hedgerow(exc) or runtime is None:
            raise
        said = " ".join(str(exc).split())[:200]
        raise VerificationError(target.name, "runs", f"a file that {runtime} runs", said) from exc
    profile = profile_model(made.facts, target, executed.arena or executed.not_run or NO_ARENA)
    measured = Measured(
        size_bytes=len(stage.content),
        float_bytes=made.float_bytes,
        facts=made.facts,
        outputs=foundation.outputs,
        wanted=foundation.wanted,
        float_answers=foundation.float_answers,
        answers=executed.answers,
        replay_difference=executed.replay_difference,
        replay_tolerance=executed.replay_tolerance,
        not_run=executed.not_run,
        by_reference=stage.format == "mlpackage",
        activation_bytes=profile.peak_memory_bytes,
        latency_ms=profile.target_latency_ms,
        oracle=executed.oracle,
        profile_not_run=profile.not_run,
        state=state_ends(stage),
        largest=largest_held(stage.outputs),
    )
    report(Progress(work, total - 1, total, "verify"))
    verdict = verify_artifact(
        target, recipe, measured, max_drop=max_drop, explain=partial(_worst_layer, foundation, made)
    )
    prepare = _prepare(target, made, folder)
    content, mapped = compiled_for(target, stage.content)
    asked = (*of_outputs(foundation.outputs), *(OF_THE_ORACLE if executed.oracle is not None else ()))
    asked += ("memory",) if executed.arena is not None and target.arena_bytes is not None else ()
    asked = tuple(check for check in asked if check not in verdict.not_run)
    artifact = Artifact(
        target=target.name,
        format=stage.format,
        runtime=target.runtime,
        blob=add_blob(folder, content),
        inputs=stage.inputs,
        outputs=stage.outputs,
        recipe=tuple(str(step) for step in (*recipe.model_passes, *recipe.passes)),
        golden=add_blob(folder, executed.golden) if executed.golden is not None else None,
        golden_tolerance=executed.tolerances.largest,
        golden_tolerances=executed.tolerances.unlike,
        metrics={**verdict.metrics, **profile.metrics(), "bytes": float(len(content))},
        checks={**verdict.checks, **mapped, **prepare.checks},
        prepare=prepare.preparation,
    )
    result, why = score_in(verdict.metrics), executed.not_run or "no score"
    note = f"{len(content)} bytes, " + (f"{foundation.outputs.score_name} {result:.3f}" if result is not None else why)
    report(Progress(work, total, total, note))
    return CompiledArtifact(
        artifact,
        latency=executed.latency,
        not_run={**verdict.not_run, **prepare.not_run},
        evaluation=executed.evaluation,
        executed_by={
            **(dict.fromkeys(asked, executed.executed_by) if executed.executed_by else {}),
            **prepare.executed_by,
        },
        arena=executed.arena,
    )


def _worst_layer(foundation: Foundation, made: Made) -> str:
    """Return which layer of the model loses most by rounding; nothing of a file that rounds nothing, or of state."""
    if not made.facts.quantized_share or foundation.source.task.state:
        return ""
    return str(layer_losses(foundation.source))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepare:
    """What prepares samples for an artifact, with what its check adds to the artifact's."""

    preparation: Preparation | None = None
    checks: Mapping[str, str] = field(default_factory=dict)
    not_run: Mapping[str, str] = field(default_factory=dict)
    executed_by: Mapping[str, str] = field(default_factory=dict)


def _prepare(target: Target, made: Made, folder: Path) -> _Prepare:
    """Put what prepares samples for a file into the build.

    Raises:
        VerificationError: The C does something else than the task's pre-processing.
    """
    beside = made.beside
    if beside is None:
        return _Prepare()
    check = beside.check
    if check.found:
        raise VerificationError(target.name, PREPARE, check.expected, check.found)
    preparation = Preparation(
        blob=add_blob(folder, beside.file.content),
        source=add_blob(folder, beside.source.encode()),
        inputs=beside.file.inputs,
        outputs=beside.file.outputs,
    )
    return _Prepare(
        preparation=preparation,
        checks={PREPARE: NOT_RUN if check.not_run else PASSED},
        not_run={PREPARE: check.not_run} if check.not_run else {},
        executed_by={PREPARE: check.executed_by} if check.executed_by else {},
    )


def compile_train_graph(
    foundation: Foundation, kind: str, folder: Path, report: Report, options: StepOptions
) -> tuple[TrainGraph, float]:
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
    key = (kind, *options.pairs())
    if key not in foundation.train_files:
        foundation.train_files[key] = export_train_graph(foundation.source, kind, options)
    file = foundation.train_files[key]
    report(Progress(work, 1, 2, "verify"))
    try:
        difference = largest_difference(foundation.source, file, foundation.data.train, options)
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
        targets=file.targets,
        learning_rate=file.learning_rate,
        loss=file.loss,
        parameters=file.parameters,
        updated=file.updated,
        extras=file.extras,
    )
    report(Progress(work, 2, 2, f"{len(file.content)} bytes, differs from torch by {difference:.1e}"))
    return graph, difference


def _last_value_score(foundation: Foundation) -> float | None:
    if not foundation.steps:
        return None
    sequences = {name: rows.reshape(-1, foundation.steps, *rows.shape[1:]) for name, rows in foundation.wanted.items()}
    return foundation.outputs.last_value_score(sequences)


def compile_reference(
    foundation: Foundation, folder: Path, counts: Mapping[str, Sequence[int]] | None, report: Report
) -> ReferenceFacts:
    """Make the reference; measure the float model."""
    task, data, answers = foundation.source.task, foundation.data, foundation.float_answers
    schema = replace(task.schema, answers=foundation.outputs)
    reference = make_reference(schema, data.train, answers, foundation.wanted, counts)
    measured = replace(task, outputs=foundation.outputs)
    # Of sequences the rows are samples already.
    metrics = finite_metrics(replace(measured, state={}).measure(answers, foundation.wanted))
    evaluation = evaluate(foundation.outputs, answers, foundation.wanted, data.held_out, task.subgroup)
    trained_on = foundation.outputs.named(data.train.target_values, len(data.train))
    facts = ReferenceFacts(
        task.name,
        schema,
        add_blob(folder, reference.encode()),
        metrics,
        fingerprint((data.train, data.held_out, foundation.source.calibration)),
        {
            **evaluation,
            "baseline": baseline(foundation.outputs, trained_on, foundation.wanted),
            "last_value": _last_value_score(foundation),
            "train_samples": len(data.train),
        },
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
        recipe = job.artifacts[unit.name].read()
        compiled = compile_artifact(
            foundation, job.targets[unit.name], recipe, folder, max_drop=job.max_drop, report=report
        )
        return {"recipe": unit.recipe, **compiled.to_record()}
    if unit.kind == "train_graph":
        options = parse_step_options(job.train_options)
        if foundation.source.task.state and options == StepOptions():
            # Nobody asked for it but the target; whoever states options gets the refusal.
            report(Progress(f"train graph {unit.name}", 2, 2, NO_TRAIN_GRAPH))
            return {"format": unit.name, "graph": None, "difference": None, "not_run": NO_TRAIN_GRAPH}
        graph, difference = compile_train_graph(foundation, unit.name, folder, report, options)
        return {"format": unit.name, "graph": graph.to_record(), "difference": difference}
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
