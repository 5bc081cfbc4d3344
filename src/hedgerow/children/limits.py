"""What a child process may take, said by itself before it touches what is not trusted."""

import contextlib
import os
import resource
from pathlib import Path

__all__ = ["bound_process"]


def bound_process(*, address_space_bytes: int | None = None, data_bytes: int | None = None, niceness: int = 0) -> None:
    """Bound this process for the rest of its life; it writes no core file, and goes first where memory ends.

    Args:
        address_space_bytes: All that it may map, files included; None: as before.
        data_bytes: Private memory that can be written; files that are mapped to be read do not count. None: as before.
        niceness: How far it stands back for others, from 0 to 19.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, wanted in ((resource.RLIMIT_AS, address_space_bytes), (resource.RLIMIT_DATA, data_bytes)):
        if wanted is not None:
            hard = resource.getrlimit(kind)[1]
            limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(kind, (limit, limit))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    os.nice(niceness)
