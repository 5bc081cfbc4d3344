"""Pack a file that somebody else compiled for every target that can hold it, and name the others."""

import time
from collections.abc import Sequence
from pathlib import Path

from hedgerow.compile.errors import CompileError
from hedgerow.compile.outcome import Outcome
from hedgerow.compile.refused import RefusedTarget, refused_by
from hedgerow.compile.third_party import pack_passing
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
    refused: list[RefusedTarget] = []

    def refuse(target: str, error: CompileError) -> None:
        details = getattr(error, "details", "")
        check = refused_by(error)
        refused.append(
            RefusedTarget(target=target, recipe=THIRD_PARTY, check=check, reason=str(error), details=details)
        )

    packed = pack_passing(file, targets, out, refuse, report=report)
    named = {refusal.target for refusal in refused}
    return Outcome(
        build=packed.build,
        refused=tuple(refused),
        trials=(),
        recipes={name: THIRD_PARTY for name in targets if name not in named},
        cached=(),
        latencies={},
        seconds=time.monotonic() - begun,
        not_run=packed.not_run,
        arenas=packed.arenas,
        executed_by=packed.executed_by,
    )
