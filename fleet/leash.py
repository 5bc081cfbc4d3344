"""The first thing a child process runs: tie its life to its parent's, then become the real program.

Run as a file (``python -I -S leash.py PARENT PROGRAM ARGUMENT...``), with the standard library alone, so that it costs
some 20 ms. On Linux the kernel then kills the child when the parent ends for any reason, SIGKILL included (prctl(2),
PR_SET_PDEATHSIG). The setting survives execve, but not a change of user: programs that drop privileges lose it.
Elsewhere there is no such thing, and a child of a killed parent runs on.
"""

import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_CANNOT_RUN = 127


def main(argv: Sequence[str]) -> int:
    """Become ``argv[1:]``, a child of the process ``argv[0]``; return only when that fails."""
    parent, program = int(argv[0]), list(argv[1:])
    if sys.platform == "linux":
        import ctypes

        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            sys.stderr.write(f"leash: prctl failed: {os.strerror(ctypes.get_errno())}\n")
            return _CANNOT_RUN
    # The parent may have ended before the setting was made; then nothing would ever end this process.
    if os.getppid() != parent:
        return _CANNOT_RUN
    try:
        os.execvp(program[0], program)  # noqa: S606 - our own argv, no shell wanted
    except OSError as exc:
        sys.stderr.write(f"leash: cannot run {program[0]}: {exc.strerror}\n")
    return _CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
