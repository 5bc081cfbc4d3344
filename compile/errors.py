"""What can go wrong while compiling.

::

HedgerowError
+-- CompileError
    +-- BadWeightsError         the checkpoint holds nothing that can be compiled
    +-- RecipeMismatchError     a recipe that makes another format than the target runs
    +-- BuildFolderError        the output folder cannot be used, or a build in it is damaged
    +-- PassError               a compile step failed inside its library
    +-- UntranslatableError     a model uses an operator that a train graph cannot hold
    +-- VerificationError       an artifact was made, but a check refused it
    +-- WorkerError             a compile process ended without an answer
"""

from hedgerow.errors import HedgerowError

__all__ = [
    "BadWeightsError",
    "BuildFolderError",
    "CompileError",
    "PassError",
    "RecipeMismatchError",
    "UntranslatableError",
    "VerificationError",
    "WorkerError",
]


class CompileError(HedgerowError):
    """Compiling failed."""


class BadWeightsError(CompileError):
    """The checkpoint holds nothing that can be compiled."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"the checkpoint cannot be compiled: expected {expected}, found {found}; train again")
        self.expected, self.found = expected, found


class RecipeMismatchError(CompileError):
    """A recipe makes another format than the target runs."""

    def __init__(self, target: str, wanted: str, recipe: str, made: str) -> None:
        super().__init__(
            f"{target} runs {wanted} files, but the recipe {recipe!r} makes {made}; choose a recipe for {wanted}"
        )
        self.target, self.wanted, self.recipe, self.made = target, wanted, recipe, made


class BuildFolderError(CompileError):
    """The output folder cannot be used, or a build in it is damaged."""


class PassError(CompileError):
    """A compile step failed inside its library.

    Attributes:
        step: The pass.
        cause: What the library said, in one line.
    """

    def __init__(self, step: str, cause: str) -> None:
        super().__init__(f"{step}: expected a model that this step can convert, but it failed: {cause}")
        self.step, self.cause = step, cause


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


class VerificationError(CompileError):
    """An artifact was made, but a check refused it; it is not kept.

    Attributes:
        subject: What was checked, such as a target or a train graph.
        check: Name of the check, as in ``Artifact.checks``.
        expected, found: What the check compares.
    """

    def __init__(self, subject: str, check: str, expected: str, found: str) -> None:
        super().__init__(
            f"the artifact for {subject} failed the check {check!r}: expected {expected}, found {found}; "
            "choose another recipe, allow more, or train further"
        )
        self.subject, self.check, self.expected, self.found = subject, check, expected, found


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
