"""Pack a file that somebody else compiled for every target that can hold it, and name the others."""

import time
from collections.abc import Sequence
from pathlib import Path

from hedgerow.compile.edgetpu import CHECK, why_not_run
from hedgerow.compile.errors import VerificationError
from hedgerow.compile.outcome import Outcome, Refusal
from hedgerow.compile.third_party import pack_third_party
from hedgerow.compile.verify import NOT_RUN
from hedgerow.manifest import Artifact
from hedgerow.progress import Report, silent

__all__ = ["THIRD_PARTY", "pack_targets"]

THIRD_PARTY = "third-party"
"""What stands for the recipe of a file that was not compiled here."""


def pack_targets(file: Path, targets: Sequence[str], out: Path, *, report: Report = silent) -> Outcome:
    """Check a compiled model against targets and write a build of it for those that can hold it.

    Args:
        file: A TFLite or ONNX file.
        targets: Names of hardware targets; each once.
        out: The build's folder; a build that is already there is replaced.
        report: Takes progress.

    Raises:
        ModelFileError: The file cannot be read.
        UnknownNameError: There is no such target.
        BuildFolderError: *out* cannot be used.
        ValueError: No targets, or a repeated one.
    """
    begun = time.monotonic()
    left, refused, build = list(targets), dict[str, Refusal](), None
    while build is None and (left or not targets):
        try:
            build = pack_third_party(file, left, out, report=report)
        except VerificationError as exc:
            refused[exc.subject] = Refusal(target=exc.subject, recipe=THIRD_PARTY, check=exc.check, reason=str(exc))
            left.remove(exc.subject)
    return Outcome(
        build=build,
        refused=tuple(refused[name] for name in targets if name in refused),
        trials=(),
        recipes=dict.fromkeys(left, THIRD_PARTY),
        cached=(),
        latencies={},
        seconds=time.monotonic() - begun,
        not_run={artifact.target: _not_run(artifact) for artifact in (build.artifacts if build else ())},
    )


def _not_run(artifact: Artifact) -> dict[str, str]:
    """Return why checks were not run."""
    nothing = "a compiled file comes without a float model to compare with and without data to measure on"
    return {
        name: why_not_run() if name == CHECK else nothing for name, state in artifact.checks.items() if state == NOT_RUN
    }
