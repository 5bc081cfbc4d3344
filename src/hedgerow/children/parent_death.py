"""A child process ends when its parent does, however the parent ends.

On Linux the kernel is asked for it (prctl(2), ``PR_SET_PDEATHSIG``): it sends SIGKILL when the *thread* that made the
child ends, so whoever makes one keeps that thread as long as the child lives. The setting survives execve, but neither
a fork nor a change of user: a grandchild asks for itself, and programs that drop privileges lose it. Where the kernel
cannot be asked, a thread of a Python child looks twice a second who the parent is.

This module is also a program, for children that are not Python: ``python -I -S parent_death.py PARENT PROGRAM
ARGUMENT...`` asks, and becomes that program. It is run as a file, with the standard library alone, and so costs some
20 ms. Such a program has no thread of ours to look: where a Linux kernel refuses, it is not run at all (exit code
:data:`CANNOT_RUN`); on a system without prctl it runs, and outlives a parent that is killed.
"""

import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["CANNOT_RUN", "die_with_parent", "main"]

CANNOT_RUN = 127
"""Exit code of a child that could not become its program, as shells have it."""

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.5


def die_with_parent(parent: int, *, ask_kernel: bool = True) -> None:
    """End when *parent* does; at once when it has ended already.

    Args:
        parent: Its process id, as it told us: it may have ended before this could be asked for.
        ask_kernel: False where the thread that made this process may end before it.
    """
    if not (ask_kernel and sys.platform == "linux" and _is_tied_by_kernel()):
        import threading

        threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _is_tied_by_kernel() -> bool:
    """Ask the kernel, and return whether it agrees; a sandbox may forbid it."""
    import ctypes

    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)


def _watch(parent: int) -> None:
    import time

    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


def main(argv: Sequence[str]) -> int:
    """Become ``argv[1:]``, a child of the process ``argv[0]``; return only when that fails."""
    parent, program = int(argv[0]), list(argv[1:])
    if sys.platform == "linux" and not _is_tied_by_kernel():
        sys.stderr.write(f"cannot run {program[0]}: the kernel refuses to end it with its parent (prctl)\n")
        return CANNOT_RUN
    # The parent may have ended before the setting was made; then nothing would ever end this process.
    if os.getppid() != parent:
        return CANNOT_RUN
    try:
        os.execvp(program[0], program)  # noqa: S606 - our own argv, no shell wanted
    except OSError as exc:
        sys.stderr.write(f"cannot run {program[0]}: {exc.strerror}\n")
    return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
