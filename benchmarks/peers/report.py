"""How a simulator's process tells its measurement: one JSON object, the last line of its standard output."""

import argparse
import contextlib
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peers.works import WORKS, Work

__all__ = ["Clock", "cpu_seconds", "parser_of", "peak_rss_bytes", "work_of", "write_report"]


class Clock:
    """Begins when it is made; each :meth:`lap` is the end of a round."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._begun = time.perf_counter()
        self._laps: list[float] = []
        self._cpu_s: list[float] = []

    def elapsed_s(self) -> float:
        """Return the seconds since it was made."""
        return time.perf_counter() - self._begun

    def lap(self) -> None:
        """End a round."""
        self._laps.append(time.perf_counter())
        if len(self._laps) in {self._work.warm_up, self._work.warm_up + self._work.rounds}:
            self._cpu_s.append(cpu_seconds())

    def figures(self) -> dict[str, Any]:
        """Return the seconds until the last round of the warm-up ended, and of each round after it.

        ``round_cpu_s`` is what one round took of all cores together: it tells more than the clock on a busy machine.
        """
        work = self._work
        if len(self._laps) != work.warm_up + work.rounds:
            raise RuntimeError(f"expected {work.warm_up + work.rounds} rounds, measured {len(self._laps)}")
        first = self._laps[work.warm_up - 1]
        timed = self._laps[work.warm_up - 1 :]
        rounds_s = [after - before for before, after in itertools.pairwise(timed)]
        used_s = (self._cpu_s[1] - self._cpu_s[0]) / work.rounds
        return {"startup_s": first - self._begun, "rounds_s": rounds_s, "round_cpu_s": used_s}


def parser_of(name: str, about: str) -> argparse.ArgumentParser:
    """Return the options that every simulator's script has."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.peers.{name}", description=about)
    parser.add_argument("--work", required=True, choices=sorted(WORKS))
    parser.add_argument("--rounds", type=int, help="instead of the work's own")
    parser.add_argument("--processes", type=int, default=1, help="that train clients")
    parser.add_argument("--threads", type=int, default=1, help="of torch in each process")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    return parser


def work_of(chosen: argparse.Namespace) -> Work:
    """Return the chosen work."""
    work = WORKS[chosen.work]
    return replace(work, rounds=chosen.rounds) if chosen.rounds else work


def _tree() -> Iterator[Path]:
    """Yield the folder in /proc of this process, of its children and of theirs; under torchrun, of its siblings too."""
    waiting = [str(os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else os.getpid())]
    while waiting:
        process = Path("/proc") / waiting.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may end meanwhile
            for thread in (process / "task").iterdir():
                waiting += (thread / "children").read_text().split()
            yield process


def cpu_seconds() -> float:
    """Return the processor time of all processes of the measurement that still run."""
    ticks = 0
    for process in _tree():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # After the name, which may hold anything: the 12th and 13th field are user and system time.
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_rss_bytes() -> int:
    """Return the most memory that each process had, added: pages that they share count again.

    Not ``getrusage``, whose peak a process inherits from the one that started it.
    """
    peak = 0
    for process in _tree():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = re.search(r"^VmHWM:\s+(\d+) kB$", (process / "status").read_text(), re.MULTILINE)
            peak += int(found[1]) * 1024 if found else 0
    return peak


def write_report(figures: dict[str, Any], libraries: Sequence[str] = ()) -> None:
    """Print the measurement, with the process's peak memory and the versions of *libraries*."""
    from importlib.metadata import version

    versions = {library: version(library) for library in ("torch", *libraries)}
    sys.stdout.write(json.dumps({"peak_rss_bytes": peak_rss_bytes(), **figures, "versions": versions}) + "\n")
    sys.stdout.flush()
