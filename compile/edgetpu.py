"""Google's ``edgetpu_compiler``: does every operator of a file really run on the Edge TPU?

The operator table of a target says what the chip may run; only the compiler knows its limits on shapes and sizes. It
is a program of its own for x86-64 Linux, never a dependency: where it is absent, the check is ``not run``. It maps what
it can to the chip and leaves the rest to the CPU without failing, which is many times slower, so its report decides.
"""

import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hedgerow.children.child import Child
from hedgerow.children.output import OutputFile
from hedgerow.children.parent_death import CANNOT_RUN
from hedgerow.compile.errors import VerificationError
from hedgerow.hardware.target import Target

__all__ = [
    "CHECK",
    "COMPILED_OPERATOR",
    "COMPILER",
    "EdgeTpuReport",
    "OperatorLine",
    "compile_for_edgetpu",
    "compiled_for",
    "find_compiler",
    "parse_report",
]

CHECK = "edgetpu compiler"
"""Name of the check in ``Artifact.checks``."""
COMPILED_OPERATOR = "edgetpu-custom-op"
"""What stands in a compiled file for all that runs on the chip."""
COMPILER = "edgetpu_compiler"
TIMEOUT_S = 180.0
"""What the compiler itself gives a model."""

_MAPPED = "Mapped to Edge TPU"
_LINE = re.compile(r"^([A-Za-z][A-Za-z0-9_-]{0,63})\s+(\d{1,6})\s+(\S.{0,199})$", re.MULTILINE)
_LIMIT_CHARS = 1_000_000
_LIMIT_BYTES = 512 * 2**20
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OperatorLine:
    """One line of the compiler's table.

    Attributes:
        operator: In TFLite's own name.
        count: How many of the model's operators are meant.
        status: What became of them.
    """

    operator: str
    count: int
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTpuReport:
    """What the compiler made of a file.

    Attributes:
        state: ``passed`` (every operator runs on the chip), ``failed`` or ``not run``.
        reason: Why it is not ``passed``; empty when it is.
        lines: The compiler's table.
        compiled: The file for the chip; None where there is none.
    """

    state: str
    reason: str
    lines: tuple[OperatorLine, ...] = ()
    compiled: bytes | None = field(default=None, repr=False)

    @property
    def mapped(self) -> int:
        """How many operators run on the chip."""
        return sum(line.count for line in self.lines if line.status == _MAPPED)

    @property
    def total(self) -> int:
        """How many operators the model has."""
        return sum(line.count for line in self.lines)


def parse_report(output: str) -> tuple[OperatorLine, ...]:
    """Return the table that ``edgetpu_compiler --show_operations`` prints; empty when there is none."""
    return tuple(
        OperatorLine(operator, int(count), status.strip()) for operator, count, status in _LINE.findall(output)
    )


def find_compiler(search_path: str | None = None) -> str | None:
    """Return where the compiler is, or None.

    Args:
        search_path: Folders to look in, as in ``PATH``; None: those of ``PATH``.
    """
    return shutil.which(COMPILER, path=search_path)


def compiled_for(target: Target, content: bytes, *, search_path: str | None = None) -> tuple[bytes, Mapping[str, str]]:
    """Return the file that a target's devices get.

    A file that was not compiled for the Edge TPU runs on the CPU beside it, many times slower and without a word. So a
    target with that chip gets the compiled file or none.

    Args:
        target: Any target.
        content: Its file.
        search_path: As for :func:`find_compiler`.

    Returns:
        The file, and what was checked: check -> ``passed``; *content* and nothing for a target without the chip.

    Raises:
        VerificationError: The compiler is absent, fails, or leaves operators to the CPU.
    """
    if target.accelerator != "edgetpu":
        return content, {}
    report = compile_for_edgetpu(content, search_path=search_path)
    if report.state != "passed" or report.compiled is None:
        expected = f"a file that {COMPILER} compiled, with every operator on the Edge TPU"
        raise VerificationError(target.name, CHECK, expected, report.reason)
    return report.compiled, {CHECK: report.state}


def compile_for_edgetpu(
    content: bytes, *, search_path: str | None = None, timeout_s: float = TIMEOUT_S
) -> EdgeTpuReport:
    """Run the compiler on a TFLite file, if it is installed.

    Args:
        content: The file.
        search_path: As for :func:`find_compiler`.
        timeout_s: The compiler is stopped after this time, and the check has failed.
    """
    program = find_compiler(search_path)
    if program is None:
        return EdgeTpuReport(state="not run", reason=f"{COMPILER} is not installed")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.tflite"
        model.write_bytes(content)
        command = [program, "--show_operations", "--out_dir", folder, str(model)]
        # The compiler is a script that starts another program, which ends with it.
        with Child(
            command, name=COMPILER, output=OutputFile(Path(folder) / "output.txt"), folder=Path(folder)
        ) as child:
            is_in_time = child.wait(timeout_s)
            ended = child.end()
        if not is_in_time:
            return EdgeTpuReport(state="failed", reason=f"{COMPILER} took more than {timeout_s:g} s")
        if ended.code == CANNOT_RUN:
            return EdgeTpuReport(state="not run", reason=f"{COMPILER} cannot be started: {ended.last_line}")
        with (Path(folder) / "output.txt").open("rb") as file:
            said = file.read(_LIMIT_CHARS).decode("utf-8", "replace")
        _LOGGER.debug("%s: %s", COMPILER, said)
        return _judge(ended.code, said, _read(Path(folder) / "model_edgetpu.tflite"))


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= _LIMIT_BYTES else None
    except OSError:
        return None


def _judge(code: int | None, output: str, compiled: bytes | None) -> EdgeTpuReport:
    lines = parse_report(output)
    if code != 0 or compiled is None:
        said = next((line.strip() for line in reversed(output.splitlines()) if "fail" in line.lower()), "")
        found = said[:200] or f"exit code {code}"
        return EdgeTpuReport(state="failed", reason=f"{COMPILER} made no file: {found}", lines=lines)
    left: Mapping[str, str] = {line.operator: line.status for line in lines if line.status != _MAPPED}
    if left or not lines:
        listed = "; ".join(f"{operator}: {status}" for operator, status in sorted(left.items()))
        reason = f"operators that run on the CPU: {listed}" if left else f"{COMPILER} listed no operators"
        return EdgeTpuReport(state="failed", reason=reason, lines=lines, compiled=compiled)
    return EdgeTpuReport(state="passed", reason="", lines=lines, compiled=compiled)
