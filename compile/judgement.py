"""Whether a target can hold a file from elsewhere as it is, and how good the file is in the target's own runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.arena import Arena, installed_version
from hedgerow.compile.bench import Bench
from hedgerow.compile.class_output import ClassOutput, class_scores, find_class_output
from hedgerow.compile.edgetpu import CHECK, COMPILED_OPERATOR, COMPILER, compiled_for
from hedgerow.compile.errors import CompileError, ForeignFileError, RuntimeRefusedError, VerificationError
from hedgerow.compile.evaluation import evaluate_parts
from hedgerow.compile.foreign import Replay
from hedgerow.compile.inspection.border import Border
from hedgerow.compile.model_file import ModelFile
from hedgerow.compile.profile.host import HostLatency
from hedgerow.compile.profile.model import NO_ARENA, Profile, profile_model
from hedgerow.compile.samples import SampleSet
from hedgerow.compile.toolchains import MICRO, NO_MCU
from hedgerow.compile.verify import NOT_RUN, OF_THE_ORACLE, PASSED, Oracle, judge_file, together
from hedgerow.errors import DecodeError
from hedgerow.hardware.target import Target
from hedgerow.task import accuracy

__all__ = ["LEFT_OUT", "FileScores", "Judged", "judge_as_it_is", "score_file"]

LEFT_OUT = "all outputs"
"""The check that is not run where a file has outputs that no schema holds."""
_NO_SAMPLES = "there is no data to measure on; give some with --data or --task"
_NO_CHIP = "this machine has no Edge TPU, and nothing else runs a file that was compiled for it"
_NO_SOURCE = "the file is packed as it is, without a float model to compare with"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScores:
    """The file itself in this machine's own runtime.

    Attributes:
        output: The output that is classes; None: nothing can be measured.
        scores: Its scores on the held-out samples that have a label; None: nothing was measured.
        metrics: Accuracy and what else is measured of it.
        labels: Names of the classes.
        why: Why there are none.
    """

    output: ClassOutput | None = None
    scores: NDArray[np.float32] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    why: str = _NO_SAMPLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is written for one target.

    Attributes:
        target: It.
        content, border: The file and its tensors.
        profile: Of the file on the target.
        checks: Check -> state.
        not_run: Check that was not run -> why.
        executed_by: Check -> what really ran it.
        golden: Golden samples, encoded; None: nothing ran the file.
        tolerance: Of the golden samples.
        arena: The smallest that works, where it was measured.
        metrics: What was measured of its outputs.
        latency: On this machine; None: not measured.
        evaluation: Per class and subgroup; None: not measured.
        recipe: Name of the recipe that made it; empty: the file as it is.
        steps: The recipe's passes, in words.
    """

    target: Target
    content: bytes
    border: Border
    profile: Profile
    checks: Mapping[str, str]
    not_run: Mapping[str, str]
    executed_by: Mapping[str, str]
    golden: bytes | None
    tolerance: float
    arena: Arena | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    latency: HostLatency | None = None
    evaluation: Mapping[str, Any] | None = None
    recipe: str = ""
    steps: tuple[str, ...] = ()


def score_file(model: ModelFile, bench: Bench, samples: SampleSet | None, runtime: str) -> FileScores:
    """Run the file itself on the held-out samples.

    Args:
        model: The file.
        bench: Runs it.
        samples: None: nothing is measured.
        runtime: Of this machine.
    """
    if samples is None:
        return FileScores()
    labels = samples.held_out.labels[samples.scored]
    found = find_class_output(model.schema, np.append(labels, len(samples.labels) - 1))
    if isinstance(found, str):
        return FileScores(why=found)
    known = samples.labels or model.schema.labels
    named = known if len(known) == found.classes else tuple(map(str, range(found.classes)))
    try:
        outputs = bench.held_out(runtime).outputs
    except (CompileError, DecodeError) as exc:
        return FileScores(output=found, labels=named, why=f"the file does not run on this machine: {exc}")
    scores = class_scores(found, outputs)[samples.scored]
    if found.is_class and not np.isfinite(scores).all():
        why = f"the output {found.name!r} gives whole numbers that are no class from 0 to {found.classes - 1}"
        return FileScores(why=f"{why}; give labels and a file that count classes from 0")
    metrics = {"accuracy": accuracy(scores, labels)}
    metrics |= {name: float(metric(np.array(scores), np.array(labels))) for name, metric in samples.metrics.items()}
    return FileScores(output=found, scores=scores, metrics=metrics, labels=named, why="")


def judge_as_it_is(target: Target, model: ModelFile, bench: Bench, own: FileScores) -> Judged:
    """Return what is written for a target.

    Raises:
        ForeignFileError: The file kills or hangs its runtime.
        VerificationError: The target cannot hold it, or its runtime does not take it.
    """
    if target.format != model.format:
        # A profile compares operators, and those of another format mean nothing to this target.
        _, failures = judge_file(target, model.format, len(model.content), model.facts)
        first, *more = failures
        raise VerificationError(target.name, first.check, first.expected, first.found, further=more)
    if COMPILED_OPERATOR in model.facts.operators:
        return _compiled_before(target, model)
    if target.runtime == MICRO and installed_version() is None:
        return _unseen(target, model, NO_MCU, ("golden", *OF_THE_ORACLE))
    unmeasured = profile_model(model.facts, target)
    try:
        # A microcontroller's runtime says itself which operator it does not have; no other is asked in vain.
        arena = bench.arena() if target.runtime == MICRO else None
        _fitting(target, model, unmeasured)
        replay = bench.replay(target.runtime, arena.bytes if arena is not None else 0)
    except RuntimeRefusedError as exc:
        if target.runtime != MICRO:
            raise VerificationError(target.name, "golden", exc.expected, exc.found) from exc
        _fitting(target, model, unmeasured, Oracle(failure=exc.failure()))
        raise
    except ForeignFileError:
        _fitting(target, model, unmeasured)
        raise
    profile = profile_model(model.facts, target, arena or NO_ARENA)
    asked = _fitting(target, model, profile)
    tolerance = _tolerance(model, replay)
    if not all(np.isfinite(values).all() for values in replay.outputs.values()):
        raise VerificationError(target.name, "golden", "finite outputs of the golden samples", "NaN or infinity")
    if not replay.difference <= tolerance:
        expected = f"the golden samples again, within {tolerance:g}"
        raise VerificationError(target.name, "golden", expected, f"a difference of {replay.difference}")
    content, chip = compiled_for(target, model.content)
    measured = _measure(target, bench, own, arena)
    not_run = {**profile.not_run, **measured.not_run, "parity": _NO_SOURCE, **left_out(model)}
    ran = ("golden", *((*OF_THE_ORACLE, "memory") if arena is not None else ()))
    ran += ("accuracy",) if "accuracy" in measured.metrics else ()
    return Judged(
        target=target,
        content=content,
        border=model.border,
        profile=profile,
        checks={**dict.fromkeys((*asked, *ran), PASSED), **chip, **dict.fromkeys(not_run, NOT_RUN)},
        not_run=not_run,
        executed_by=dict.fromkeys(ran, replay.executed_by),
        golden=bench.golden_file(replay),
        tolerance=tolerance,
        arena=arena,
        metrics=measured.metrics,
        latency=replay.latency,
        evaluation=measured.evaluation,
    )


def left_out(model: ModelFile) -> dict[str, str]:
    """Return why not all outputs of a file are in its artifacts; nothing where they are."""
    return {LEFT_OUT: f"not in the release: {'; '.join(model.left_out)}"} if model.left_out else {}


@dataclass(frozen=True, slots=True)
class _Measured:
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None
    not_run: Mapping[str, str] = field(default_factory=dict)


def _measure(target: Target, bench: Bench, own: FileScores, arena: Arena | None) -> _Measured:
    """Measure a file in a target's own runtime.

    Raises:
        VerificationError: Its outputs are no numbers, or its runtime does not run all samples.
    """
    samples = bench.samples
    if samples is None or own.output is None:
        return _Measured(not_run={"accuracy": own.why})
    try:
        outputs = bench.held_out(target.runtime, arena.bytes if arena is not None else 0).outputs
    except RuntimeRefusedError as exc:
        raise VerificationError(target.name, "accuracy", exc.expected, exc.found) from exc
    scores = class_scores(own.output, outputs)[samples.scored]
    if not np.isfinite(scores).all():
        raise VerificationError(target.name, "accuracy", "finite outputs", "NaN, infinity or no class")
    scored = samples.held_out.take(samples.scored)
    return _Measured(
        metrics={"accuracy": accuracy(scores, scored.labels), "held_out_samples": float(len(scored))},
        evaluation=evaluate_parts(own.labels, scores, scored, samples.subgroup),
    )


def _compiled_before(target: Target, model: ModelFile) -> Judged:
    """Return what is written for a target of a file that was compiled for the Edge TPU already.

    Raises:
        VerificationError: The target has no such chip, or the compiler left operators to the CPU.
    """
    if target.accelerator != "edgetpu":
        expected = f"a file that {target.runtime} runs by itself"
        found = f"one that {COMPILER} compiled for the Edge TPU, which runs on that chip alone"
        raise VerificationError(target.name, "format", expected, found)
    if left := sorted(model.facts.operators - {COMPILED_OPERATOR}):
        expected = f"a file that {COMPILER} compiled, with every operator on the Edge TPU"
        raise VerificationError(target.name, CHECK, expected, f"operators that run on the CPU: {', '.join(left)}")
    # What is inside is the compiler's matter, not that of a table.
    facts = replace(model.facts, operators=frozenset(), operator_versions={})
    judged = _unseen(target, replace(model, facts=facts), _NO_CHIP, ("golden",))
    return replace(judged, checks={**judged.checks, CHECK: PASSED})


def _unseen(target: Target, model: ModelFile, why: str, unseen: tuple[str, ...]) -> Judged:
    """Return what is written for a target whose runtime is not there: what the file says of itself."""
    profile = profile_model(model.facts, target, why)
    asked = _fitting(target, model, profile)
    not_run = {**profile.not_run, **dict.fromkeys((*unseen, "accuracy"), why), "parity": _NO_SOURCE, **left_out(model)}
    return Judged(
        target=target,
        content=model.content,
        border=model.border,
        profile=profile,
        checks={**dict.fromkeys(asked, PASSED), **dict.fromkeys(not_run, NOT_RUN)},
        not_run=not_run,
        executed_by={},
        golden=None,
        tolerance=0.0,
        arena=None,
    )


def _fitting(target: Target, model: ModelFile, profile: Profile, oracle: Oracle | None = None) -> tuple[str, ...]:
    """Return the checks that a target asks for, all passed.

    Args:
        target: It.
        model: The file.
        profile: Of the file on the target.
        oracle: What its runtime says of the file, where it was asked.

    Raises:
        VerificationError: It cannot hold the model.
    """
    asked, failures = judge_file(
        target,
        model.format,
        len(model.content),
        model.facts,
        activation_bytes=profile.peak_memory_bytes,
        latency_ms=profile.target_latency_ms,
    )
    if found := together(failures, oracle):
        first, *more = found
        raise VerificationError(target.name, first.check, first.expected, first.found, further=more)
    return asked


def _tolerance(model: ModelFile, replay: Replay) -> float:
    """Return the absolute difference at which a replay elsewhere counts as the same.

    Without a float model nobody knows how far two right executions lie apart: two steps of a quantized output, or a
    hundredth of the largest number.
    """
    largest = max((float(np.abs(values).max(initial=0.0)) for values in replay.outputs.values()), default=0.0)
    steps = max((2 * tensor.scale for tensor in model.outputs if tensor.scale is not None), default=0.0)
    tolerance = max(steps, 0.01 * largest)
    return tolerance if np.isfinite(tolerance) else 0.0
