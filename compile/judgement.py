"""Whether a target can hold a file from elsewhere as it is, and how good the file is in the target's own runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.answering import Answering, find_answering
from hedgerow.compile.arena import Arena, installed_version
from hedgerow.compile.bench import Bench
from hedgerow.compile.edgetpu import CHECK, COMPILED_OPERATOR, COMPILER, compiled_for
from hedgerow.compile.errors import CompileError, ForeignFileError, RuntimeRefusedError, VerificationError
from hedgerow.compile.evaluation import evaluate_parts
from hedgerow.compile.foreign import Replay
from hedgerow.compile.inspection.border import Border
from hedgerow.compile.model_file import ModelFile
from hedgerow.compile.profile.host import HostLatency
from hedgerow.compile.profile.model import NO_ARENA, Profile, profile_model
from hedgerow.compile.samples import SampleSet
from hedgerow.compile.scoring import all_finite, chosen, finite_metrics, mean_score, why_unscored
from hedgerow.compile.toolchains import MICRO, NO_MCU
from hedgerow.compile.verify import NOT_RUN, OF_THE_ORACLE, PASSED, Oracle, judge_file, together
from hedgerow.errors import DecodeError
from hedgerow.hardware.target import Target
from hedgerow.outputs import NO_OUTPUTS, Outputs
from hedgerow.outputs.outputs import Arrays

__all__ = ["LEFT_OUT", "FileScores", "Judged", "judge_as_it_is", "score_file", "wanted_of"]

LEFT_OUT = "all outputs"
"""The check that is not run where a file has outputs that no schema holds."""
_NO_SAMPLES = "there is no data to measure on; give some with --data or --task"
_NO_CHIP = "this machine has no Edge TPU, and nothing else runs a file that was compiled for it"
_NO_SOURCE = "the file is packed as it is, without a float model to compare with"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScores:
    """The file itself in this machine's own runtime.

    Attributes:
        answering: Which of its outputs answer what; None: nothing can be measured.
        answers: To the held-out samples that are measured; None: nothing was.
        wanted: Their target values.
        outputs: What the answers are for, with what was measured of them.
        metrics: The mean score and what else is measured of it.
        why: Why there are none.
    """

    answering: Answering | None = None
    answers: Arrays | None = None
    wanted: Arrays = field(default_factory=dict)
    outputs: Outputs = NO_OUTPUTS
    metrics: Mapping[str, float] = field(default_factory=dict)
    why: str = _NO_SAMPLES

    @property
    def check(self) -> str:
        """What the check of the score is called."""
        return self.outputs.score_key if self.outputs else "accuracy"


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
        tolerances: Output -> its own tolerance, where there are several.
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
    tolerances: Mapping[str, float] = field(default_factory=dict)


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
    found = find_answering(model.schema, samples)
    if isinstance(found, str):
        return FileScores(why=found)
    try:
        outputs = bench.held_out(runtime).outputs
    except (CompileError, DecodeError) as exc:
        why = f"the file does not run on this machine: {exc}"
        return FileScores(answering=found, outputs=found.outputs, why=why)
    answers = chosen(found.answers(outputs), samples.scored)
    if found.classes is not None and found.classes.is_class and not all_finite(answers):
        last = found.classes.classes - 1
        why = f"the output {found.classes.name!r} gives whole numbers that are no class from 0 to {last}"
        return FileScores(why=f"{why}; give labels and a file that count classes from 0")
    wanted = wanted_of(found, samples)
    measured = found.outputs.measured(answers, wanted)
    score = mean_score(measured, answers, wanted)
    metrics = {} if score is None else {measured.score_key: score}
    # They get copies, and what each of them is made for: an array, or with several outputs all of them.
    for name, metric in samples.metrics.items():
        pair = ({of: np.array(values) for of, values in arrays.items()} for arrays in (answers, wanted))
        metrics[name] = float(metric(*(part if len(part) > 1 else next(iter(part.values())) for part in pair)))
    return FileScores(
        answering=found, answers=answers, wanted=wanted, outputs=measured, metrics=finite_metrics(metrics), why=""
    )


def wanted_of(answering: Answering, samples: SampleSet) -> dict[str, NDArray[Any]]:
    """Return the target values of the samples that are measured, by the names of what answers."""
    if (labels := samples.classes) is not None:
        return dict.fromkeys(answering.outputs, labels[samples.scored])
    return chosen(samples.wanted, samples.scored)


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
        return _compiled_before(target, model, own)
    if target.runtime == MICRO and installed_version() is None:
        return _unseen(target, model, NO_MCU, ("golden", *OF_THE_ORACLE, own.check))
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
    ran += (own.check,) if own.check in measured.metrics else ()
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
    if samples is None or own.answering is None:
        return _Measured(not_run={own.check: own.why})
    try:
        given = bench.held_out(target.runtime, arena.bytes if arena is not None else 0).outputs
    except RuntimeRefusedError as exc:
        raise VerificationError(target.name, own.check, exc.expected, exc.found) from exc
    answers = chosen(own.answering.answers(given), samples.scored)
    if not all_finite(answers):
        raise VerificationError(target.name, own.check, "finite outputs", "NaN, infinity or no class")
    wanted = wanted_of(own.answering, samples)
    score = mean_score(own.outputs, answers, wanted)
    scored = samples.held_out.take(samples.scored)
    evaluation = evaluate_parts(own.outputs, answers, wanted, scored, samples.subgroup)
    if score is None:
        return _Measured(evaluation=evaluation, not_run={own.check: why_unscored(own.outputs)})
    known = float(own.outputs.known(wanted).sum())
    return _Measured(metrics={own.check: score, "held_out_samples": known}, evaluation=evaluation)


def _compiled_before(target: Target, model: ModelFile, own: FileScores) -> Judged:
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
    judged = _unseen(target, replace(model, facts=facts), _NO_CHIP, ("golden", own.check))
    return replace(judged, checks={**judged.checks, CHECK: PASSED})


def _unseen(target: Target, model: ModelFile, why: str, unseen: tuple[str, ...]) -> Judged:
    """Return what is written for a target whose runtime is not there: what the file says of itself."""
    profile = profile_model(model.facts, target, why)
    asked = _fitting(target, model, profile)
    not_run = {**profile.not_run, **dict.fromkeys(unseen, why), "parity": _NO_SOURCE, **left_out(model)}
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
