"""Pack a model that somebody else compiled: checked against targets, run, and with samples measured and quantized.

What can be known of the file alone is checked as always. With samples it is measured in each target's own runtime, and
a float file that does not fit a target is quantized by the file passes of the target's recipes and compared with
itself; without them accuracy and parity are ``not run``, the reference holds no features, and devices count no drift.
The file is run in processes of its own: one that kills its runtime costs the targets of that runtime, and nothing else.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hedgerow.compile.arena import Arena
from hedgerow.compile.bench import HOST_RUNTIMES, Bench, golden_inputs
from hedgerow.compile.budget import Budget
from hedgerow.compile.build import Build, add_blob, save_build
from hedgerow.compile.build_folder import new_build_folder, put_in_place
from hedgerow.compile.c_array import write_c_arrays
from hedgerow.compile.errors import CompileError, ForeignFileError, InternalError, RuntimeRefusedError
from hedgerow.compile.evaluation import baseline, evaluate
from hedgerow.compile.foreign import ForeignFile
from hedgerow.compile.judgement import FileScores, Judged, judge_as_it_is, score_file
from hedgerow.compile.model_file import ModelFile, open_model_file, plain_name, read_model_file
from hedgerow.compile.profile.host import HostLatency
from hedgerow.compile.reference_bins import fingerprint, make_reference
from hedgerow.compile.requantizing import Requantizer
from hedgerow.compile.samples import SampleOrigin, SampleSet
from hedgerow.compile.search import TriedRecipe
from hedgerow.errors import DecodeError, HedgerowError
from hedgerow.hardware.lookup import load_target
from hedgerow.hardware.target import Target
from hedgerow.manifest.artifact import Artifact
from hedgerow.model_schema import ModelSchema
from hedgerow.progress import Progress, Report, silent
from hedgerow.reference import Reference

__all__ = ["THIRD_PARTY", "FileWishes", "Packed", "pack_passing", "pack_third_party"]

THIRD_PARTY = "third-party"
"""What stands for the recipe of a file that is packed as it is."""

Refuse = Callable[[str, HedgerowError], None]
"""Called with a target that is refused, and why."""

WriteReport = Callable[[Path, "Packed"], None]
"""Called with the folder of a build that was measured, before it is put in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWishes:
    """What is wanted of a file.

    Attributes:
        schema: Names, units and valid ranges of its tensors; None: read from the file.
        task: Name of the task; None: the file's name.
        seed: Of golden inputs that are drawn evenly from the valid range of each input, where there are no samples.
        shapes: Input -> its sizes, where the file leaves one open.
        state: Input -> the output that it takes from the call before, as the file names them.
        samples: Where samples come from; None: nothing is measured.
        recipes: Target -> recipe, where the file is not to be packed as it is.
        budget: What a quantized file may lose.
    """

    schema: ModelSchema | None = None
    task: str | None = None
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    samples: SampleOrigin | None = None
    recipes: Mapping[str, str] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A build of a file from elsewhere, with what its manifest does not hold.

    Attributes:
        build: It; None when every target was refused.
        not_run: Target -> check that was not run -> why.
        executed_by: Target -> check -> what really ran it.
        arenas: Target -> the smallest arena, where it was measured.
        recipes: Target -> recipe of its artifact.
        trials: Every recipe that was tried.
        latencies: Target -> what a prediction took on this machine.
        evaluations: Target -> its artifact per class and subgroup, where it was measured.
        evaluation: Of the file itself in this machine's runtime; None: it was not measured.
    """

    build: Build | None
    not_run: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    executed_by: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    arenas: Mapping[str, Arena] = field(default_factory=dict)
    recipes: Mapping[str, str] = field(default_factory=dict)
    trials: tuple[TriedRecipe, ...] = ()
    latencies: Mapping[str, HostLatency] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None


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

    The arguments are those of :func:`pack_passing` and :class:`FileWishes`. The first refusal ends it.

    Returns:
        The build. Its checkpoint is the file itself, its reference has no features.

    Raises:
        VerificationError: A target cannot hold the file, its runtime does not take it, or the file does not give the
            same outputs twice.
        ForeignFileError: The file kills or hangs a runtime or a parser.
        HedgerowError: As :func:`pack_passing`.
    """

    def refuse(_target: str, error: HedgerowError) -> None:
        raise error

    packed = pack_passing(file, targets, out, refuse, FileWishes(schema=schema, task=task, seed=seed), report=report)
    if packed.build is None:
        raise RuntimeError("nothing was packed, and nothing was refused")
    return packed.build


def pack_passing(
    file: Path,
    targets: Sequence[str],
    out: Path,
    refuse: Refuse,
    wishes: FileWishes = FileWishes(),
    *,
    write_report: WriteReport | None = None,
    report: Report = silent,
) -> Packed:
    """Check a compiled model against targets and write a build of it for those that can hold it.

    Args:
        file: A TFLite or ONNX file.
        targets: Names of hardware targets; each once.
        out: The build's folder; a build that is already there is replaced.
        refuse: Takes the others.
        wishes: What else is wanted.
        write_report: Writes the report of a build that was measured.
        report: Takes progress.

    Raises:
        ModelFileError: The file cannot be read, or does not fit the schema or the state that is wished for.
        DataFileError: The samples do not fit the file.
        InputShapeError: The sizes do not fit the file.
        UnknownNameError: There is no such target or recipe.
        BuildFolderError: *out* cannot be used.
        ValueError: No targets, or a repeated one.
    """
    if not targets or len(set(targets)) != len(targets):
        raise ValueError(f"expected at least one target, each once, found {list(targets)}")
    wanted = [load_target(name) for name in targets]
    with contextlib.ExitStack() as stack:
        foreign = stack.enter_context(open_model_file(file))
        folder = stack.enter_context(new_build_folder(out))
        report(Progress(f"pack {file.name}", 0, len(wanted) + 1, "read"))
        try:
            work = _open(foreign, wishes, stack)
        except (ForeignFileError, InternalError, RuntimeRefusedError) as exc:
            for name in targets:
                refuse(name, exc)
            return Packed(build=None)
        judged, trials = list[Judged](), list[TriedRecipe]()
        for done, target in enumerate(wanted, 1):
            try:
                judged.append(work.judge(target, trials))
            except (CompileError, DecodeError) as exc:
                refuse(target.name, exc)
            report(Progress(f"pack {file.name}", done, len(wanted) + 1, target.name))
        packed = _packed(work, judged, trials, _build(file, work, judged, folder) if judged else None)
        if packed.build is not None:
            names = {each.target.name: each.target for each in judged}
            write_c_arrays(folder, packed.build, names, packed.arenas, is_foreign=True)
            if write_report is not None and packed.evaluation is not None:
                write_report(folder, packed)
            save_build(folder, packed.build)
            put_in_place(folder, out)
    return packed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A file that was read, with what is measured of it."""

    model: ModelFile
    wishes: FileWishes
    bench: Bench
    samples: SampleSet | None
    own: FileScores
    requantizer: Requantizer

    def judge(self, target: Target, trials: list[TriedRecipe]) -> Judged:
        """Return what is written for a target: the file as it is, else what the first recipe that passes makes of it.

        Raises:
            CompileError: It cannot be had, or its runtime does not take it.
        """
        if target.name in self.wishes.recipes:
            return self.requantizer.judge(target, (self.wishes.recipes[target.name],), trials)
        try:
            return judge_as_it_is(target, self.model, self.bench, self.own)
        except (CompileError, DecodeError) as exc:
            return self.requantizer.instead(target, exc, trials)


def _open(foreign: ForeignFile, wishes: FileWishes, stack: contextlib.ExitStack) -> _Work:
    """Read a file, and run it once where there are samples to measure it with.

    Raises:
        HedgerowError: As :func:`pack_passing`.
    """
    if wishes.shapes:
        foreign = stack.enter_context(foreign.fixed(wishes.shapes))
    model = read_model_file(foreign, wishes.schema, wishes.state)
    samples = None
    if wishes.samples is not None:
        model = model.with_inputs(wishes.samples.inputs_for(model))
        samples = wishes.samples.samples_for(model)
    golden = golden_inputs(model, samples, wishes.seed)
    bench = Bench(foreign, model.border, model.facts, golden, samples, model.state)
    own = score_file(model, bench, samples, HOST_RUNTIMES[model.format])
    if own.answering is not None and samples is not None:
        before, model = model, _answering_model(model, own)
        bench.rename(model.border)
        pairs = zip(before.schema.outputs, model.schema.outputs, strict=True)
        own = replace(own, answering=own.answering.renamed({old.name: new.name for old, new in pairs}))
    return _Work(
        model=model,
        wishes=wishes,
        bench=bench,
        samples=samples,
        own=own,
        requantizer=Requantizer(model, bench, own, wishes.budget, stack),
    )


def _answering_model(model: ModelFile, own: FileScores) -> ModelFile:
    """Return the file that says what its outputs are for, as far as devices can read them so."""
    answering = own.answering
    if answering is None:
        return model
    if answering.classes is None:
        named = model.with_answers(own.outputs, answering.of)
        return named if not own.outputs.misfit(named.schema.outputs) else model
    [output] = own.outputs.values()
    scores = next(iter(own.answers.values())) if own.answers is not None else None
    return model.with_classes(answering.classes, scores, output.part_names)


def _packed(work: _Work, judged: Sequence[Judged], trials: Sequence[TriedRecipe], build: Build | None) -> Packed:
    return Packed(
        build=build,
        not_run={each.target.name: each.not_run for each in judged},
        executed_by={each.target.name: each.executed_by for each in judged},
        arenas={each.target.name: each.arena for each in judged if each.arena is not None},
        recipes={each.target.name: each.recipe or THIRD_PARTY for each in judged},
        trials=tuple(trials),
        latencies={each.target.name: each.latency for each in judged if each.latency is not None},
        evaluations={each.target.name: each.evaluation for each in judged if each.evaluation is not None},
        evaluation=_evaluation(work),
    )


def _evaluation(work: _Work) -> Mapping[str, Any] | None:
    """Return the file's own evaluation for the report; None: it was not measured."""
    own, samples = work.own, work.samples
    if samples is None or own.answers is None:
        return None
    found = evaluate(own.outputs, own.answers, own.wanted, samples.held_out.take(samples.scored), samples.subgroup)
    return {**found, "baseline": _baseline(own, samples), "train_samples": samples.train_samples}


def _baseline(own: FileScores, samples: SampleSet) -> Mapping[str, Any] | None:
    """Return what looks at nothing; None where nobody knows what the file was trained on."""
    if samples.train_samples is None or own.answering is None:
        return None
    known = samples.outputs.named(samples.known.target_values, len(samples.known))
    renamed = dict(zip(own.outputs, known.values(), strict=True))
    return baseline(own.outputs, renamed, own.wanted)


def _build(file: Path, work: _Work, judged: Sequence[Judged], folder: Path) -> Build:
    model, samples = work.model, work.samples
    return Build(
        task=plain_name(file.stem, "model", "-") if work.wishes.task is None else work.wishes.task,
        model_schema=model.schema,
        artifacts=tuple(
            Artifact(
                target=each.target.name,
                format=model.format,
                runtime=each.target.runtime,
                blob=add_blob(folder, each.content),
                inputs=each.border[0],
                outputs=each.border[1],
                recipe=(THIRD_PARTY, *each.steps),
                golden=add_blob(folder, each.golden) if each.golden is not None else None,
                golden_tolerance=each.tolerance,
                golden_tolerances=each.tolerances,
                metrics={**each.metrics, "bytes": float(len(each.content)), **each.profile.metrics()},
                checks=each.checks,
            )
            for each in judged
        ),
        train_graphs=(),
        reference=add_blob(folder, _reference(work).encode()),
        checkpoint_sha256=hashlib.sha256(model.content).hexdigest(),
        run=f"{THIRD_PARTY} {file.name}"[:128],
        data_fingerprint=fingerprint(samples.fingerprint_of) if samples is not None else "",
        metrics=work.own.metrics,
        parent=None,
    )


def _reference(work: _Work) -> Reference:
    """Return what devices compare their inputs with; nothing where they would count no classes, or count state."""
    samples, answers, schema = work.samples, work.own.answers, work.model.schema
    if samples is None or answers is None or work.model.state or not schema.answers:
        return Reference(())
    named = dict(zip(schema.answers, answers, strict=True))
    given = {name: answers[of] for name, of in named.items()}
    return make_reference(schema, samples.known, given, {name: work.own.wanted[of] for name, of in named.items()})
