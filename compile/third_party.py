"""Pack a model that somebody else compiled: checked against targets, run on golden samples, and nothing more.

There is no float model to compare with and no data to measure on, so accuracy and parity are ``not run``, the
reference holds no features, and devices count no drift. What can be known of the file alone is checked as always. The
file is run in processes of its own: one that kills its runtime costs the targets of that runtime, and nothing else.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hedgerow.compile.arena import Arena, installed_version
from hedgerow.compile.build import Build, add_blob, save_build
from hedgerow.compile.build_folder import new_build_folder, put_in_place
from hedgerow.compile.c_array import write_c_arrays
from hedgerow.compile.edgetpu import compiled_for
from hedgerow.compile.errors import (
    CompileError,
    ForeignFileError,
    InternalError,
    RuntimeRefusedError,
    VerificationError,
)
from hedgerow.compile.foreign import ForeignFile, Replay
from hedgerow.compile.golden import encode_golden
from hedgerow.compile.model_file import ModelFile, draw_samples, open_model_file, plain_name, read_model_file
from hedgerow.compile.profile.model import NO_ARENA, Profile, profile_model
from hedgerow.compile.toolchains import MICRO, NO_MCU
from hedgerow.compile.verify import NOT_RUN, OF_THE_ORACLE, PASSED, Oracle, judge_file, together
from hedgerow.hardware.lookup import load_target
from hedgerow.hardware.target import Target
from hedgerow.manifest.artifact import Artifact
from hedgerow.progress import Progress, Report, silent
from hedgerow.reference import Reference
from hedgerow.schema import ModelSchema

__all__ = ["Packed", "pack_passing", "pack_third_party"]

_RECIPE = "third-party"
_NO_SOURCE = "a compiled file comes without a float model to compare with and without data to measure on"

Refuse = Callable[[str, CompileError], None]
"""Called with a target that is refused, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A build of a file from elsewhere, with what its manifest does not hold.

    Attributes:
        build: It; None when every target was refused.
        not_run: Target -> check that was not run -> why.
        executed_by: Target -> check -> what really ran it.
        arenas: Target -> the smallest arena, where it was measured.
    """

    build: Build | None
    not_run: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    executed_by: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    arenas: Mapping[str, Arena] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """One target that can hold the file."""

    target: Target
    content: bytes
    profile: Profile
    checks: Mapping[str, str]
    not_run: Mapping[str, str]
    executed_by: Mapping[str, str]
    golden: bytes | None
    tolerance: float
    arena: Arena | None


def pack_third_party(
    file: Path,
    targets: Sequence[str],
    out: Path,
    *,
    schema: ModelSchema | None = None,
    task: str | None = None,
    seed: int = 0,
    report: Report = silent,
) -> Build:
    """Check a compiled model against targets and write a build of it, or of nothing.

    The arguments are those of :func:`pack_passing`. The first refusal ends it.

    Returns:
        The build. Its checkpoint is the file itself, its reference has no features.

    Raises:
        VerificationError: A target cannot hold the file, its runtime does not take it, or the file does not give the
            same outputs twice.
        ForeignFileError: The file kills or hangs a runtime or a parser.
        HedgerowError: As :func:`pack_passing`.
    """

    def refuse(_target: str, error: CompileError) -> None:
        raise error

    packed = pack_passing(file, targets, out, refuse, schema=schema, task=task, seed=seed, report=report)
    if packed.build is None:
        raise RuntimeError("nothing was packed, and nothing was refused")
    return packed.build


def pack_passing(
    file: Path,
    targets: Sequence[str],
    out: Path,
    refuse: Refuse,
    *,
    schema: ModelSchema | None = None,
    task: str | None = None,
    seed: int = 0,
    report: Report = silent,
) -> Packed:
    """Check a compiled model against targets and write a build of it for those that can hold it.

    Args:
        file: A TFLite or ONNX file.
        targets: Names of hardware targets; each once.
        out: The build's folder; a build that is already there is replaced.
        refuse: Takes the others.
        schema: Names, units and valid ranges of its tensors; None: read from the file.
        task: Name of the task; None: the file's name.
        seed: Of the golden inputs, which are drawn evenly from the valid range of each input.
        report: Takes progress.

    Raises:
        ModelFileError: The file cannot be read, or does not fit *schema*.
        UnknownNameError: There is no such target.
        BuildFolderError: *out* cannot be used.
        ValueError: No targets, or a repeated one.
    """
    if not targets or len(set(targets)) != len(targets):
        raise ValueError(f"expected at least one target, each once, found {list(targets)}")
    wanted = [load_target(name) for name in targets]
    with open_model_file(file) as foreign, new_build_folder(out) as folder:
        try:
            model = read_model_file(foreign, schema)
        except (ForeignFileError, InternalError) as exc:
            for name in targets:
                refuse(name, exc)
            return Packed(build=None)
        bench, judged = _Bench(foreign, model, seed), list[_Judged]()
        for done, target in enumerate(wanted, 1):
            try:
                judged.append(_judge(target, model, bench))
            except (ForeignFileError, InternalError, VerificationError) as exc:
                refuse(target.name, exc)
            report(Progress(f"pack {file.name}", done, len(wanted), target.name))
        arenas = {each.target.name: each.arena for each in judged if each.arena is not None}
        build = _build(file, model, judged, folder, task) if judged else None
        if build is not None:
            write_c_arrays(folder, build, {each.target.name: each.target for each in judged}, arenas, is_foreign=True)
            save_build(folder, build)
            put_in_place(folder, out)
    return Packed(
        build=build,
        not_run={each.target.name: each.not_run for each in judged},
        executed_by={each.target.name: each.executed_by for each in judged},
        arenas=arenas,
    )


def _build(file: Path, model: ModelFile, judged: Sequence[_Judged], folder: Path, task: str | None) -> Build:
    return Build(
        task=plain_name(file.stem, "model", "-") if task is None else task,
        model_schema=model.schema,
        artifacts=tuple(
            Artifact(
                target=each.target.name,
                format=model.format,
                runtime=each.target.runtime,
                blob=add_blob(folder, each.content),
                inputs=model.inputs,
                outputs=model.outputs,
                recipe=(_RECIPE,),
                golden=add_blob(folder, each.golden) if each.golden is not None else None,
                golden_tolerance=each.tolerance,
                metrics={"bytes": float(len(each.content)), **each.profile.metrics()},
                checks=each.checks,
            )
            for each in judged
        ),
        train_graphs=(),
        reference=add_blob(folder, Reference(()).encode()),
        checkpoint_sha256=hashlib.sha256(model.content).hexdigest(),
        run=f"{_RECIPE} {file.name}"[:128],
        data_fingerprint="",
        metrics={},
        parent=None,
    )


class _Bench:
    """Runs the file in one runtime after the other, in each once for all targets that have it."""

    def __init__(self, foreign: ForeignFile, model: ModelFile, seed: int) -> None:
        self._foreign, self._model = foreign, model
        self.samples = draw_samples(model.schema, seed)
        self._replays: dict[str, Replay | CompileError] = {}
        self._arena: Arena | CompileError | None = None

    def arena(self) -> Arena:
        """Return the smallest arena.

        Raises:
            ForeignFileError: TensorFlow Lite Micro died or hung.
            RuntimeRefusedError: It does not take the file.
        """
        if self._arena is None:
            try:
                self._arena = self._foreign.arena()
            except (ForeignFileError, RuntimeRefusedError) as exc:
                self._arena = exc
        if isinstance(self._arena, CompileError):
            raise self._arena
        return self._arena

    def replay(self, runtime: str, arena_bytes: int = 0) -> Replay:
        """Return the golden samples' predictions.

        Raises:
            ForeignFileError: The runtime died or hung.
            RuntimeRefusedError: It does not take the file.
        """
        if runtime not in self._replays:
            try:
                found = self._foreign.replay(runtime, self.samples, self._model.border, arena_bytes=arena_bytes)
            except (ForeignFileError, RuntimeRefusedError) as exc:
                self._replays[runtime] = exc
            else:
                self._replays[runtime] = found
        replay = self._replays[runtime]
        if isinstance(replay, CompileError):
            raise replay
        return replay


def _judge(target: Target, model: ModelFile, bench: _Bench) -> _Judged:
    """Return what is written for a target.

    Raises:
        ForeignFileError: The file kills or hangs its runtime.
        VerificationError: It cannot hold the file, or its runtime does not take it.
    """
    if target.format != model.format:
        # A profile compares operators, and those of another format mean nothing to this target.
        _, failures = judge_file(target, model.format, len(model.content), model.facts)
        first, *more = failures
        raise VerificationError(target.name, first.check, first.expected, first.found, further=more)
    if target.runtime == MICRO and installed_version() is None:
        return _unseen(target, model)
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
    if not replay.difference <= tolerance:
        expected = f"the golden samples again, within {tolerance:g}"
        raise VerificationError(target.name, "golden", expected, f"a difference of {replay.difference}")
    content, chip = compiled_for(target, model.content)
    not_run = {**profile.not_run, "accuracy": _NO_SOURCE, "parity": _NO_SOURCE}
    ran = ("golden", *((*OF_THE_ORACLE, "memory") if arena is not None else ()))
    return _Judged(
        target=target,
        content=content,
        profile=profile,
        checks={**dict.fromkeys((*asked, *ran), PASSED), **chip, **dict.fromkeys(not_run, NOT_RUN)},
        not_run=not_run,
        executed_by=dict.fromkeys(ran, replay.executed_by),
        golden=encode_golden(bench.samples, replay.outputs),
        tolerance=tolerance,
        arena=arena,
    )


def _unseen(target: Target, model: ModelFile) -> _Judged:
    """Return what is written for a microcontroller whose interpreter is not there: what the file says of itself."""
    profile = profile_model(model.facts, target, NO_MCU)
    asked = _fitting(target, model, profile)
    not_run = {**profile.not_run, **dict.fromkeys(("golden", *OF_THE_ORACLE), NO_MCU)}
    not_run |= {"accuracy": _NO_SOURCE, "parity": _NO_SOURCE}
    return _Judged(
        target=target,
        content=model.content,
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
