"""Say in one sentence why Hedgerow cannot be installed by this Python on this machine; say nothing when it can.

python tools/installable.py EXTRA...   # exit code 1 when it cannot

What is known of pins without wheels stands in pyproject.toml. Runs before anything is installed: standard library only.
"""

import platform
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NEWEST = re.compile(r"Programming Language :: Python :: 3\.(\d+)")


def with_inner(extras: Iterable[str], optional: Mapping[str, Sequence[str]]) -> set[str]:
    """Return *extras* and those of Hedgerow's own that they ask for."""
    found: set[str] = set()
    waiting = list(extras)
    while waiting:
        extra = waiting.pop()
        if extra not in found:
            found.add(extra)
            inner = [re.fullmatch(r"hedgerow\[(.*)\]", line) for line in optional[extra]]
            waiting += [name for match in inner if match for name in match[1].split(",")]
    return found


def refusal(project: Mapping[str, Any], extras: Sequence[str], version: tuple[int, int], machine: str) -> str:
    """Return why *extras* cannot be installed, or nothing.

    Args:
        project: What pyproject.toml holds.
        extras: Names of extras; none is the device agent alone.
        version: Python's, such as (3, 14).
        machine: As the kernel calls it, such as ``aarch64``.
    """
    optional = project["project"]["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in optional]:
        return f"expected extras out of {', '.join(optional)}, found {', '.join(unknown)}"
    minimum = tuple(int(part) for part in project["project"]["requires-python"].removeprefix(">=").split("."))
    if version < minimum:
        return f"expected Python {'.'.join(map(str, minimum))} or later, found {version[0]}.{version[1]}"
    wanted = with_inner(extras, optional)
    lacking: dict[str, list[str]] = {}
    for entry in project["tool"]["hedgerow"]["without-wheels"]:
        since = tuple(int(part) for part in entry.get("python", "0").split("."))
        if version >= since and machine in entry.get("machines", [machine]) and wanted & set(entry["extras"]):
            lacking.setdefault(entry["pin"], sorted(wanted & set(entry["extras"])))
    if not lacking:
        return ""
    newest = max(int(minor) for line in project["project"]["classifiers"] for minor in NEWEST.findall(line))
    need = "; ".join(f"{pin} (for {', '.join(names)})" for pin, names in lacking.items())
    return (
        f"expected wheels of everything pinned, found none for Python {version[0]}.{version[1]} on {machine} of {need}:"
        f" use Python {'.'.join(map(str, minimum))} to 3.{newest} on x86_64, or leave these extras out"
    )


def main(extras: Sequence[str]) -> int:
    """Print the refusal for this Python; return the exit code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    reason = refusal(project, extras, sys.version_info[:2], platform.machine())
    if reason:
        print(reason)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
