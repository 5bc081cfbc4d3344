"""Compile a checkpoint: see what is known already, let the workers do the rest, put the build together."""

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hedgerow.checkpoint import WEIGHTS_FILE, Checkpoint, load_checkpoint
from hedgerow.compile.budget import Budget
from hedgerow.compile.build import BLOB_FOLDER, Build, save_build
from hedgerow.compile.build_folder import new_build_folder, put_in_place
from hedgerow.compile.c_array import write_c_arrays
from hedgerow.compile.cache import ResultCache
from hedgerow.compile.errors import BadWeightsError, CompileError, RecipeMismatchError
from hedgerow.compile.outcome import Outcome
from hedgerow.compile.recipes import find_recipe
from hedgerow.compile.report import write_report
from hedgerow.compile.request import Request
from hedgerow.compile.search import PREFERENCES, UNMODELLED_PREFERENCE, Contest
from hedgerow.compile.session import Session
from hedgerow.compile.toolchains import TOOLCHAINS, check_installed
from hedgerow.compile.train_graph.options import StepOptions
from hedgerow.compile.workers import CompileWorkers
from hedgerow.durable import sha256_of
from hedgerow.hardware.lookup import load_target
from hedgerow.progress import Report, silent

__all__ = ["compile_checkpoint", "compile_targets", "toolchains"]

DEFAULT_BUDGET, PLAIN_STEP = Budget(), StepOptions()


def toolchains(targets: Sequence[str], recipes: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the toolchains that compiling for *targets* needs, to warm workers up with.

    Raises:
        UnknownNameError: There is no such target or recipe.
    """
    contests = _contests(targets, recipes or {}, None)
    return tuple(sorted({find_recipe(contest.candidates[0]).toolchain for contest in contests}))


def compile_checkpoint(
    task_reference: str,
    checkpoint: Path,
    targets: Sequence[str],
    out: Path,
    *,
    budget: Budget = DEFAULT_BUDGET,
    train_options: StepOptions = PLAIN_STEP,
    jobs: int | None = None,
    reference_counts: Mapping[str, Sequence[int]] | None = None,
    recipes: Mapping[str, str] | None = None,
    prefer: str | None = None,
    cache: Path | None = None,
    workers: CompileWorkers | None = None,
    report: Report = silent,
) -> Build:
    """Compile a checkpoint for hardware targets, verify every artifact and write a build of all of them, or of none.

    The arguments are those of :func:`compile_targets`. The first refusal ends it: nothing is left at *out*, and what
    was there before stays. What was made until then is in the cache, if there is one.

    Raises:
        VerificationError: An artifact failed a check.
        CompileError: Compiling failed otherwise, or *out* cannot be used.
        HedgerowError: As :func:`compile_targets`.
    """
    outcome = _compile(
        task_reference,
        checkpoint,
        targets,
        out,
        budget=budget,
        train_options=train_options,
        jobs=jobs,
        counts=reference_counts or {},
        recipes=recipes or {},
        prefer=prefer,
        cache=cache,
        workers=workers,
        report=report,
        strict=True,
    )
    if outcome.build is None:
        raise RuntimeError("a strict compile ended without a build and without an error")
    return outcome.build


def compile_targets(
    task_reference: str,
    checkpoint: Path,
    targets: Sequence[str],
    out: Path,
    *,
    budget: Budget = DEFAULT_BUDGET,
    train_options: StepOptions = PLAIN_STEP,
    jobs: int | None = None,
    reference_counts: Mapping[str, Sequence[int]] | None = None,
    recipes: Mapping[str, str] | None = None,
    prefer: str | None = None,
    cache: Path | None = None,
    workers: CompileWorkers | None = None,
    report: Report = silent,
) -> Outcome:
    """Compile a checkpoint for hardware targets, verify every artifact and write a build of those that passed.

    The same checkpoint, task and targets give the same ``build.json`` and blobs. A target that is refused, or whose
    process crashes, is recorded with its reason and stops no other. When none passes, nothing is written.

    Args:
        task_reference: The task, ``module:attribute`` or ``file.py:attribute``.
        checkpoint: Folder of :func:`hedgerow.checkpoint.save_checkpoint`.
        targets: Names of hardware targets; each once.
        out: The build's folder; a build that is already there is replaced.
        budget: What an artifact may lose, and how long making it may take.
        train_options: What the train graphs hold beyond plain SGD.
        jobs: How many processes work at once; None: one for each toolchain. Not used when *workers* is given.
        reference_counts: Feature -> counts in the reference's bins that devices made of the data they trained on; they
            replace the counts of the task's training data.
        recipes: Target -> recipe, where neither the target's own nor a search is wanted.
        prefer: ``size``, ``latency`` or ``energy``: search the target's recipes for the best one by it, or by size
            where the target's latency is not known; None: take each target's first recipe that passes, those that
            train another model left out.
        cache: Folder of results from earlier compiles, see :class:`hedgerow.compile.cache.ResultCache`; None: none.
        workers: Warm processes to use; None: processes for this call alone.
        report: Takes progress.

    Raises:
        UnknownNameError: There is no such target or recipe.
        CheckpointError: There is no checkpoint, or it is damaged.
        BadWeightsError: Its weights are empty or not finite.
        CheckpointMismatchError: It belongs to another task or model.
        TaskError: The task cannot be imported, or its data is wrong.
        ExtraNotInstalledError: The packages that compile are absent.
        CompileError: The reference cannot be made, or *out* cannot be used.
        ValueError: No targets, a repeated target, a senseless preference.
    """
    return _compile(
        task_reference,
        checkpoint,
        targets,
        out,
        budget=budget,
        train_options=train_options,
        jobs=jobs,
        counts=reference_counts or {},
        recipes=recipes or {},
        prefer=prefer,
        cache=cache,
        workers=workers,
        report=report,
        strict=False,
    )


def _compile(
    task_reference: str,
    checkpoint: Path,
    targets: Sequence[str],
    out: Path,
    *,
    budget: Budget,
    train_options: StepOptions,
    jobs: int | None,
    counts: Mapping[str, Sequence[int]],
    recipes: Mapping[str, str],
    prefer: str | None,
    cache: Path | None,
    workers: CompileWorkers | None,
    report: Report,
    strict: bool,
) -> Outcome:
    begun = time.monotonic()
    if not targets or len(set(targets)) != len(targets):
        raise ValueError(f"expected at least one target, each once, found {list(targets)}")
    if prefer is not None and prefer not in PREFERENCES:
        raise ValueError(f"expected a preference among {', '.join(PREFERENCES)}, found {prefer!r}")
    contests = _contests(targets, recipes, prefer)
    loaded = load_checkpoint(checkpoint)
    _check_weights(loaded)
    request = Request(
        task=_absolute(task_reference),
        checkpoint=str(checkpoint.resolve()),
        weights_sha256=sha256_of(checkpoint / WEIGHTS_FILE),
        search_path=tuple(str(Path(entry or ".").resolve()) for entry in sys.path),
        budget=budget,
        train_options=train_options,
        counts={feature: tuple(values) for feature, values in counts.items()},
    )
    results = ResultCache(cache) if cache is not None else None
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(new_build_folder(out))
        session = Session(request, contests, folder, results, strict=strict, report=report)
        waiting = session.jobs()
        if waiting:
            for toolchain in sorted({job.toolchain for job in waiting}):
                check_installed(toolchain, ("torch", *TOOLCHAINS[toolchain]))
            if workers is None:
                workers = stack.enter_context(CompileWorkers(jobs=jobs))
            workers.run(waiting, session.take, report, refuse=session.refuse_job, more=session.jobs_after)
        outcome = session.outcome(loaded, lambda: time.monotonic() - begun)
        if outcome.build is not None:
            _remove_unused(folder, outcome.build)
            write_report(folder, outcome, session.evaluation, max_drop=budget.max_drop)
            write_c_arrays(
                folder, outcome.build, {contest.target.name: contest.target for contest in contests}, outcome.arenas
            )
            save_build(folder, outcome.build)
            put_in_place(folder, out)
        if results is not None:
            results.prune()
    return outcome


def _remove_unused(folder: Path, build: Build) -> None:
    """Remove what a search made and did not choose."""
    wanted = {blob.sha256 for blob in build.blobs()}
    for path in (folder / BLOB_FOLDER).iterdir():
        if path.name not in wanted:
            path.unlink()


def _contests(targets: Sequence[str], recipes: Mapping[str, str], prefer: str | None) -> tuple[Contest, ...]:
    wanted_targets = [load_target(name) for name in targets]
    names = [target.name for target in wanted_targets]
    if repeated := ", ".join(sorted({name for name in names if names.count(name) > 1})):
        raise CompileError(f"expected each target once, found several called {repeated}; rename the file of one")
    if unknown := sorted(set(recipes) - set(names)):
        raise CompileError(f"a recipe is given for {', '.join(unknown)}, which is not compiled for; add it as a target")
    found = []
    for target in wanted_targets:
        name = target.name
        candidates = (recipes[name],) if name in recipes else target.recipes
        for recipe in candidates:
            made = find_recipe(recipe).format
            if made != target.format:
                raise RecipeMismatchError(name, target.format, recipe, made)
        wanted = prefer if target.is_modelled or prefer is None else UNMODELLED_PREFERENCE
        found.append(Contest(target, candidates, wanted if len(candidates) > 1 else None))
    return tuple(found)


def _check_weights(checkpoint: Checkpoint) -> None:
    if not any(values.size for values in checkpoint.weights.values()):
        raise BadWeightsError("weights", "none")
    for name, values in sorted(checkpoint.weights.items()):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise BadWeightsError("finite weights", f"NaN or infinity in {name}")


def _absolute(task_reference: str) -> str:
    place, separator, attribute = task_reference.rpartition(":")
    return f"{Path(place).resolve()}{separator}{attribute}" if place.endswith(".py") else task_reference
