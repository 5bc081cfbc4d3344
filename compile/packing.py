"""Pack a file that somebody else compiled for every target that can hold it, and name the others."""

import time
from collections.abc import Sequence
from pathlib import Path

from hedgerow.compile.outcome import Outcome
from hedgerow.compile.refused import RefusedTarget, refused_by
from hedgerow.compile.report import write_report
from hedgerow.compile.search import PASSED, TriedRecipe
from hedgerow.compile.third_party import THIRD_PARTY, FileWishes, Packed, pack_passing
from hedgerow.errors import HedgerowError
from hedgerow.progress import Report, silent

__all__ = ["pack_targets"]


def pack_targets(
    file: Path,
    targets: Sequence[str],
    out: Path,
    wishes: FileWishes = FileWishes(),  # noqa: B008 - frozen
    *,
    report: Report = silent,
) -> Outcome:
    """Check a compiled model against targets and write a build of it for those that can hold it.

    Args:
        file: A TFLite or ONNX file.
        targets: Names of hardware targets; each once.
        out: The build's folder; a build that is already there is replaced.
        wishes: What else is wanted of it. With samples the build has a report.
        report: Takes progress.

    Raises:
        ModelFileError: The file cannot be read.
        DataFileError: The samples do not fit it.
        InputShapeError: The sizes do not fit it.
        UnknownNameError: There is no such target or recipe.
        BuildFolderError: *out* cannot be used.
        ValueError: No targets, or a repeated one.
    """
    begun = time.monotonic()
    refused: list[RefusedTarget] = []

    def refuse(target: str, error: HedgerowError) -> None:
        details = getattr(error, "details", "")
        recipe = wishes.recipes.get(target, THIRD_PARTY)
        refused.append(
            RefusedTarget(target=target, recipe=recipe, check=refused_by(error), reason=str(error), details=details)
        )

    def outcome(packed: Packed) -> Outcome:
        return Outcome(
            build=packed.build,
            refused=tuple(_with_further(refusal, packed.trials) for refusal in refused),
            trials=packed.trials,
            recipes=packed.recipes,
            cached=(),
            latencies=packed.latencies,
            seconds=time.monotonic() - begun,
            not_run=packed.not_run,
            evaluations=packed.evaluations,
            executed_by=packed.executed_by,
            arenas=packed.arenas,
            instead_of={
                target: before
                for target in packed.recipes
                if (before := tuple(t for t in packed.trials if t.target == target and t.state != PASSED))
            },
        )

    def write(folder: Path, packed: Packed) -> None:
        write_report(folder, outcome(packed), packed.evaluation or {}, max_drop=wishes.budget.max_drop)

    return outcome(pack_passing(file, targets, out, refuse, wishes, write_report=write, report=report))


def _with_further(refusal: RefusedTarget, trials: Sequence[TriedRecipe]) -> RefusedTarget:
    """Return a refusal that names the other recipes that were refused."""
    others = [t for t in trials if t.target == refusal.target and t.reason != refusal.reason]
    listed = ", ".join(f"{trial.recipe} ({trial.check})" for trial in others)
    if not listed:
        return refusal
    return RefusedTarget(
        target=refusal.target,
        recipe=refusal.recipe,
        check=refusal.check,
        reason=refusal.reason,
        further=f"refused, too: {listed}",
        details=refusal.details,
    )
