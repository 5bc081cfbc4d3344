"""What became of what was refused: which check refused it, why, and what else was tried."""

from collections.abc import Sequence
from dataclasses import dataclass

from hedgerow.compile.errors import (
    DiskError,
    ForeignFileError,
    InternalError,
    PassError,
    TimeLimitError,
    UnsuitableError,
    UntranslatableError,
    VerificationError,
    WorkerError,
)
from hedgerow.compile.messages import Unit
from hedgerow.compile.search import REFUSED, Contest, TriedRecipe
from hedgerow.errors import HedgerowError, TaskError, UnknownNameError

__all__ = ["INTERNAL", "RefusedTarget", "further_recipes", "refused_by", "refused_trial"]

INTERNAL = "internal"
"""What stands for the check where a bug of Hedgerow's own ended a target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedTarget:
    """A target without an artifact, or a train graph that was not made.

    Attributes:
        target: Name of the target; for a train graph ``the onnx train graph``.
        recipe: The first recipe that was tried; empty for a train graph.
        check: What refused it: a check's name, ``pass`` for a step that failed, ``process`` for a process that ended,
            ``time`` for one that took too long, ``disk`` for a file that could not be written, ``task`` for a recipe
            that needs what the task lacks and for what the task's own code raised, ``internal`` for a bug of
            Hedgerow's own.
        reason: One sentence.
        further: What became of the other recipes, in one sentence; empty where there are none.
        details: For a bug, its traceback.
    """

    target: str
    recipe: str
    check: str
    reason: str
    further: str = ""
    details: str = ""

    def to_record(self) -> dict[str, str]:
        """Return this as plain JSON values."""
        record = {
            "target": self.target,
            "recipe": self.recipe,
            "check": self.check,
            "reason": self.reason,
            "further": self.further,
        }
        return record | ({"details": self.details} if self.details else {})


def refused_by(error: HedgerowError) -> str:
    """Return the name of the check that *error* stands for."""
    if isinstance(error, VerificationError):
        return error.check
    kinds = {
        WorkerError: "process",
        ForeignFileError: "process",
        TimeLimitError: "time",
        DiskError: "disk",
        InternalError: INTERNAL,
        UnsuitableError: "task",
        TaskError: "task",
        UnknownNameError: "task",
        UntranslatableError: "operators",
    }
    return next((check for kind, check in kinds.items() if isinstance(error, kind)), "pass")


def refused_trial(unit: Unit, runtime: str, error: HedgerowError) -> TriedRecipe:
    """Return the trial that an artifact's refusal is."""
    return TriedRecipe(
        target=unit.name,
        recipe=unit.recipe,
        state=REFUSED,
        check=refused_by(error),
        reason=str(error),
        runtime=runtime,
        step=error.step if isinstance(error, PassError) else "",
        metrics=dict(error.measured) if isinstance(error, VerificationError) else {},
    )


def further_recipes(contest: Contest, first: TriedRecipe, trials: Sequence[TriedRecipe]) -> str:
    """Return one sentence about the recipes of a refused target other than its first."""
    own = [trial for trial in trials if trial.target == contest.target.name]
    refused = [f"{trial.recipe} ({trial.check})" for trial in own if trial is not first]
    tried = {trial.recipe for trial in own}
    left = [name for name in contest.candidates if name not in tried]
    sentences = [f"refused, too: {', '.join(refused)}"] if refused else []
    sentences += [f"not tried: {', '.join(left)}"] if left else []
    return "; ".join(sentences)
