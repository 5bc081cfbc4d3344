"""What can go wrong while compiling.

- CompileError: the root of this folder's errors.
  - BadWeightsError: the checkpoint holds nothing that can be compiled.
  - BuildFolderError: the output folder cannot be used, or a build in it is damaged.
  - CArrayError: a model cannot be written as C source.
  - DataFileError: samples to measure a file with do not fit it.
  - DiskError: a file cannot be written or read, because the disk is full for example.
  - ForeignFileError: a runtime or parser died, hung or failed on a file from elsewhere.
  - InputShapeError: a shape that was given for a model's input does not fit it.
  - InternalError: a step met a bug of Hedgerow's own.
  - ModelFileError: a file that should hold a model cannot be read.
  - NotRunnableError: an artifact cannot be run on this machine.
  - PassError: a compile step failed inside its library.
  - PassSettingsError: a recipe gives a compile step settings that make no sense.
  - RecipeError: a recipe whose passes do not follow from one another.
  - RecipeMismatchError: a recipe makes another format than the target runs.
  - RuntimeRefusedError: a runtime does not take a file.
  - StepOptionError: what a train graph shall hold cannot be.
  - TimeLimitError: a compile process was ended because it took too long.
  - UnsuitableError: a recipe needs something that the task does not have.
  - UntranslatableError: a model uses an operator that a train graph cannot hold.
  - VerificationError: an artifact was made, but a check refused it.
  - WorkerError: a compile process ended without an answer.
"""

import traceback
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hedgerow.compile.advice import OTHER_LAYERS, advice_for
from hedgerow.errors import HedgerowError

__all__ = [
    "BadWeightsError",
    "BuildFolderError",
    "CArrayError",
    "CompileError",
    "DataFileError",
    "DiskError",
    "Failure",
    "ForeignFileError",
    "InputShapeError",
    "InternalError",
    "ModelFileError",
    "NotRunnableError",
    "PassError",
    "PassSettingsError",
    "RecipeError",
    "RecipeMismatchError",
    "RuntimeRefusedError",
    "StepOptionError",
    "TimeLimitError",
    "UnsuitableError",
    "UntranslatableError",
    "VerificationError",
    "WorkerError",
    "internal_error",
]


class CompileError(HedgerowError):
    """Compiling failed."""


class BadWeightsError(CompileError):
    """The checkpoint holds nothing that can be compiled."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"the checkpoint cannot be compiled: expected {expected}, found {found}; train again")
        self.expected, self.found = expected, found


class RecipeError(CompileError):
    """A recipe whose passes do not follow from one another, or that promises what cannot be.

    Attributes:
        recipe: Its name; empty while it is made.
        expected, found: What it compares.
    """

    def __init__(self, recipe: str, expected: str, found: str) -> None:
        of = f"the recipe {recipe!r}" if recipe else "a recipe"
        super().__init__(f"{of}: expected {expected}, found {found}; correct the recipe")
        self.recipe, self.expected, self.found = recipe, expected, found


class RecipeMismatchError(CompileError):
    """A recipe makes another format than the target runs."""

    def __init__(self, target: str, wanted: str, recipe: str, made: str) -> None:
        super().__init__(
            f"{target} runs {wanted} files, but the recipe {recipe!r} makes {made}; choose a recipe for {wanted}"
        )
        self.target, self.wanted, self.recipe, self.made = target, wanted, recipe, made


class BuildFolderError(CompileError):
    """The output folder cannot be used, or a build in it is damaged."""


class CArrayError(CompileError):
    """A model cannot be written as C source."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"the model as C source: expected {expected}, found {found}; choose another name or model")
        self.expected, self.found = expected, found


class DataFileError(CompileError):
    """Samples that a file is to be measured with do not fit it, or cannot be read.

    Attributes:
        place: Where they are from.
        expected, found: What it compares.
    """

    def __init__(self, place: str, expected: str, found: str, advice: str = "correct the data") -> None:
        super().__init__(f"{place}: expected {expected}, found {found}; {advice}")
        self.place, self.expected, self.found = place, expected, found


class DiskError(CompileError):
    """A file cannot be written or read.

    Attributes:
        found: What the system said.
    """

    def __init__(self, found: str) -> None:
        super().__init__(
            f"expected files that can be read and written, found: {found}; make room or correct the folders of --out, "
            "of the checkpoint and of temporary files (TMPDIR)"
        )
        self.found = found


class ForeignFileError(CompileError):
    """A runtime or parser died, hung or failed on a file from elsewhere; only the process that ran it ended.

    Attributes:
        file: Name of the file.
        runtime: What was at work, such as ``LiteRT``.
        step: What it was doing.
        found: What became of it.
        signal_name: Such as ``SIGSEGV`` where a signal ended it; else empty.
    """

    def __init__(self, file: str, runtime: str, step: str, found: str, *, signal_name: str = "") -> None:
        super().__init__(
            f"{step} {file} in {runtime}: expected a process that ends by itself, found {found}; do not run this file "
            "in this runtime, or convert it anew"
        )
        self.file, self.runtime, self.step, self.found, self.signal_name = file, runtime, step, found, signal_name


class InputShapeError(CompileError):
    """A shape that was given for a model's input does not fit it.

    Attributes:
        name: Of the input.
    """

    def __init__(self, name: str, expected: str, found: str) -> None:
        super().__init__(f"the shape of the input {name!r}: expected {expected}, found {found}; correct --shape")
        self.name, self.expected, self.found = name, expected, found


class InternalError(CompileError):
    """A step met a bug of Hedgerow's own; neither the file nor the task is to blame.

    Attributes:
        step: What was being done.
        cause: The exception, in one line.
        details: Its traceback, for the report.
    """

    exit_code = 70
    """``EX_SOFTWARE`` of ``sysexits.h``."""

    def __init__(self, step: str, cause: str, details: str = "") -> None:
        super().__init__(
            f"{step}: expected no error of Hedgerow's own, found {cause}; this is a bug in Hedgerow, not in what you "
            "gave it: report it with the traceback"
        )
        self.step, self.cause, self.details = step, cause, details


def internal_error(step: str, exc: BaseException) -> InternalError:
    """Return the error that says that *exc*, raised in *step*, is ours."""
    said = (str(exc).strip().splitlines() or [""])[0][:300]
    return InternalError(step, f"{type(exc).__name__}: {said}", "".join(traceback.format_exception(exc))[-20_000:])


class ModelFileError(CompileError):
    """A file that should hold a model cannot be read.

    Attributes:
        path: The file.
    """

    def __init__(
        self, path: str, expected: str, found: str, advice: str = "give a model as the converter wrote it"
    ) -> None:
        super().__init__(f"{path}: expected {expected}, found {found}; {advice}")
        self.path, self.expected, self.found = path, expected, found


class NotRunnableError(CompileError):
    """An artifact cannot be run on this machine."""

    def __init__(self, target: str, runtime: str, known: Sequence[str]) -> None:
        super().__init__(
            f"expected an artifact for one of {', '.join(known)}, which this machine can run, found the one of "
            f"{target} for {runtime}; choose another --target, or predict with the checkpoint"
        )
        self.target, self.runtime = target, runtime


class PassError(CompileError):
    """A compile step failed inside its library.

    Attributes:
        step: The pass.
        cause: What it met, or what the library said, in one line.
        advice: What to do about it, where that is known.
    """

    def __init__(self, step: str, cause: str, advice: str = "") -> None:
        met = f", but it met {cause}; {advice}" if advice else f", but it failed: {cause}"
        super().__init__(f"{step}: expected a model that this step can convert{met}")
        self.step, self.cause = step, cause


class PassSettingsError(CompileError):
    """A recipe gives a compile step settings that make no sense.

    Attributes:
        step: The pass.
        setting: Name of the setting.
        expected, found: What it compares.
    """

    def __init__(self, step: str, setting: str, expected: str, found: str) -> None:
        super().__init__(f"{step}: expected {expected} for the setting {setting!r}, found {found}; correct the recipe")
        self.step, self.setting, self.expected, self.found = step, setting, expected, found


class RuntimeRefusedError(CompileError):
    """A runtime does not take a file.

    Attributes:
        runtime: Its name.
        expected: What it takes.
        found: What it said.
        operator: Name of the operator that it refused; empty: it refused the file as a whole.
    """

    def __init__(self, runtime: str, does: str, found: str, *, operator: str = "") -> None:
        self.expected = f"{'operators' if operator else 'a file'} that {runtime} {does}"
        advice = OTHER_LAYERS if operator else f"convert it for {runtime}, or leave this target out"
        super().__init__(f"expected {self.expected}, found: {found}; {advice}")
        self.runtime, self.found, self.operator = runtime, found, operator

    def failure(self) -> "Failure":
        """Return the check that this fails: ``operators``, or ``oracle`` for the file as a whole."""
        return Failure("operators" if self.operator else "oracle", self.expected, self.found)


class StepOptionError(CompileError):
    """What a train graph shall hold cannot be.

    Attributes:
        option: Its name.
    """

    def __init__(self, option: str, expected: str, found: str) -> None:
        super().__init__(
            f"the train graph's {option}: expected {expected}, found {found}; correct --train-graph "
            "(docs/train-graph.md lists what there is)"
        )
        self.option, self.expected, self.found = option, expected, found


class TimeLimitError(CompileError):
    """A compile process was ended because it took too long.

    Attributes:
        work: What it was doing.
        limit_s: What it had.
        step: The last thing that it told of.
    """

    def __init__(self, work: str, limit_s: float, step: str) -> None:
        last = f"; the last step that was done is {step!r}" if step else ""
        super().__init__(
            f"{work}: expected an end within the {limit_s:.0f} s that it had left, found it still at work{last}; give "
            "it more time with --time-limit, or make the model smaller (unrolled loops take longest)"
        )
        self.work, self.limit_s, self.step = work, limit_s, step


class UnsuitableError(CompileError):
    """A recipe needs something that the task does not have; it will be missing the next time, too.

    Attributes:
        step: The pass.
        expected, found: What it compares.
    """

    def __init__(self, step: str, expected: str, found: str, advice: str) -> None:
        super().__init__(f"{step}: expected {expected}, found {found}; {advice}")
        self.step, self.expected, self.found = step, expected, found


class UntranslatableError(CompileError):
    """A model uses operators that a train graph cannot hold.

    Attributes:
        operators: Names of the operators, sorted.
    """

    def __init__(self, operators: tuple[str, ...]) -> None:
        super().__init__(
            "the train graph cannot hold the operators "
            f"{', '.join(operators)}; use layers whose gradients need convolution, pooling, matrix products and "
            "element-wise operators only"
        )
        self.operators = operators


class Failure(NamedTuple):
    """A check that failed.

    Attributes:
        check: Its name.
        expected, found: What it compares.
    """

    check: str
    expected: str
    found: str


class VerificationError(CompileError):
    """An artifact was made, but a check refused it; it is not kept.

    Attributes:
        subject: What was checked, such as a target or a train graph.
        check: Name of the first check that failed, as in ``Artifact.checks``.
        expected, found: What that check compares.
        failures: Everything that failed, the first included, as (check, expected, found).
        measured: What was measured of the artifact, as (metric, number).
    """

    def __init__(
        self,
        subject: str,
        check: str,
        expected: str,
        found: str,
        *,
        further: Sequence[Failure] = (),
        measured: Mapping[str, float] | None = None,
        note: str = "",
    ) -> None:
        listed = "".join(f", and the check {f.check!r}: expected {f.expected}, found {f.found}" for f in further)
        super().__init__(
            f"the artifact for {subject} failed the check {check!r}: expected {expected}, found {found}{listed}; "
            f"{note}{'; ' if note else ''}{advice_for([check, *(f.check for f in further)])}"
        )
        self.subject, self.check, self.expected, self.found = subject, check, expected, found
        self.failures = ((check, expected, found), *((f.check, f.expected, f.found) for f in further))
        self.measured = tuple(sorted((measured or {}).items()))


class WorkerError(CompileError):
    """A compile process ended without an answer.

    Attributes:
        work: What it was doing.
        status: Exit code of the process; negative: the signal that ended it.
    """

    def __init__(self, work: str, status: int | None, last_output: str) -> None:
        said = f" (last output: {last_output})" if last_output else ""
        super().__init__(
            f"the process that compiled {work} ended without an answer, exit code {status}{said}; free memory or "
            "compile fewer targets at once with --jobs 1"
        )
        self.work, self.status = work, status
