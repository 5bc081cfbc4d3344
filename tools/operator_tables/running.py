"""Run one-operator files in a runtime, many to a process; a file that ends its process costs that process alone."""

import contextlib
import faulthandler
import os
import select
import signal
import sys
from collections.abc import Callable

__all__ = ["Outcome", "run_apart"]

_TIMEOUT_S = 30.0
_LONGEST = 400
_ENDS = "ends its process"

Outcome = str
"""Empty: it ran; else what was in the way: the runtime's own words, or the signal that ended the process."""


def run_apart(run: Callable[[int], None], count: int) -> list[Outcome]:
    """Run files in copies of this process and return what came of each.

    Args:
        run: Runs the file of a place, and raises what its runtime raises.
        count: How many files there are.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        found = _run_until_death(run, len(outcomes), count)
        last = len(outcomes) + len(found) - 1
        if len(found) > 1 and found[-1].startswith(_ENDS):
            # An earlier file may have overwritten what this one died of: what it does alone is what counts.
            found[-1] = _run_until_death(run, last, last + 1)[0]
        outcomes += found
    return outcomes


def _run_until_death(run: Callable[[int], None], begin: int, count: int) -> list[Outcome]:
    """Return what came of the files from *begin* on, up to the first that ended its process, or to the last."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _work(run, begin, count, writing)
    os.close(writing)
    outcomes: list[Outcome] = []
    buffered = b""
    with contextlib.closing(os.fdopen(reading, "rb", buffering=0)) as pipe:
        while len(outcomes) < count - begin:
            ready, _, _ = select.select([pipe], [], [], _TIMEOUT_S)
            more = os.read(pipe.fileno(), 2**16) if ready else b""
            if not more:
                break
            *lines, buffered = (buffered + more).split(b"\n")
            outcomes += [line.decode("utf-8", "replace") for line in lines]
    if len(outcomes) < count - begin:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL if ready else signal.SIGTERM)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if len(outcomes) < count - begin:
        outcomes.append(f"hangs for {_TIMEOUT_S:g} s" if not ready else _ended(code))
    return outcomes


def _ended(code: int) -> str:
    return f"{_ENDS} by {signal.Signals(-code).name}" if code < 0 else f"{_ENDS} with {code}"


def _work(run: Callable[[int], None], begin: int, count: int, writing: int) -> None:
    """Be the child: run files and tell of each; never return."""
    sys.stdout.flush()
    # Whoever asked may have it print the stack of a process that dies, and here that is nothing but an outcome.
    faulthandler.disable()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    for place in range(begin, count):
        try:
            run(place)
            said = ""
        # Runtimes raise classes of their own that share no base but Exception; what they say is the result.
        except Exception as exc:  # noqa: BLE001 - see above
            said = " ".join(f"{type(exc).__name__}: {exc}".split())[:_LONGEST]
        os.write(writing, said.encode() + b"\n")
    os._exit(0)
