"""Count what pytest's reports (JUnit XML) say: what ran, what was skipped and why, and which part has no report.

python tools/what_ran.py FOLDER PART...   # exit code 1 when a part failed, ran nothing or left no report
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET


@dataclass(frozen=True, slots=True)
class Part:
    """One run of pytest."""

    name: str
    passed: int
    failed: int
    skipped: tuple[str, ...]
    """The reason of each skipped test."""
    seconds: float

    def __str__(self) -> str:
        """Return its line of the summary."""
        return f"{self.name}: {_counts(self.passed, self.failed, len(self.skipped))} in {self.seconds:.0f} s"


def read_part(path: Path) -> Part:
    """Read one report, which pytest on this machine wrote."""
    (suite,) = ET.parse(path).getroot().iter("testsuite")  # noqa: S314 (written by our own run)
    cases = list(suite.iter("testcase"))
    failed = sum(1 for case in cases if case.find("failure") is not None or case.find("error") is not None)
    skips = [skip for case in cases if (skip := case.find("skipped")) is not None]
    reasons = tuple(str(skip.get("message", "")) for skip in skips)
    return Part(path.stem, len(cases) - failed - len(reasons), failed, reasons, float(suite.get("time", "0")))


def summary(parts: Sequence[Part], absent: Sequence[str]) -> str:
    """Return the summary of *parts*, and of parts that were asked for and left no report."""
    lines = [str(part) for part in parts]
    skipped = Counter(reason for part in parts for reason in part.skipped)
    lines += [f"skipped {count}: {reason}" for reason, count in sorted(skipped.items())]
    lines += [f"not run: {name}" for name in absent]
    failed = sum(part.failed for part in parts)
    return "\n".join([*lines, f"total: {_counts(sum(part.passed for part in parts), failed, skipped.total())}"])


def _counts(passed: int, failed: int, skipped: int) -> str:
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def main(folder: Path, names: Sequence[str]) -> int:
    """Print the summary; return the exit code."""
    parts = [read_part(path) for name in names if (path := folder / f"{name}.xml").is_file()]
    absent = [name for name in names if name not in {part.name for part in parts}]
    print(summary(parts, absent))
    return 1 if absent or any(part.failed or not part.passed for part in parts) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
