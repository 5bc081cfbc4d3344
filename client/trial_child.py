"""The child process of a trial: loads one file with its runtime, runs it, says so, and ends.

``python -m hedgerow.client.trial_child DESCRIPTOR`` reads one request from its standard input and answers on the
descriptor. It bounds its own memory, is the first that a kernel short of memory ends, takes the processor only when the
agent leaves it, and dies with the agent.
"""

import contextlib
import ctypes
import logging
import os
import resource
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from hedgerow.client.errors import RejectedError
from hedgerow.client.loading import LoadRuntime, try_model, try_train_graph
from hedgerow.client.slot_folders import open_slot
from hedgerow.client.slots import Content, Slot
from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.durable import sha256_of
from hedgerow.errors import HedgerowError

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_REQUEST_LIMIT_BYTES = 2**20
_REASON_CHARS = 1024
_NICE = 5
_NO_MEMORY = "expected to load and run it in the memory that is free, found too little; make room, or compile smaller"
_TRIED = {"model": try_model, "train graph": try_train_graph}


def _die_with_parent(parent: int) -> None:
    """End when the thread that started us does; it waits for us, so it ends early only with its process."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _bound(ram_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Private memory that can be written; files that are mapped to be read do not count.
    _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = ram_bytes if hard == resource.RLIM_INFINITY else min(ram_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.nice(_NICE)


def _runtimes(reference: str) -> LoadRuntime:
    module, _, name = reference.partition(":")
    found: LoadRuntime = getattr(import_module(module), name)
    return found


def _try(request: Fields, answers: int) -> dict[str, Any]:
    def enter(step: str) -> None:
        _say(answers, {"step": step})

    release, digest = request.text("release"), request.text("manifest_sha256")
    folder = Path(request.text("folder", maximum_chars=4096))
    what = request.text("what")
    slot = open_slot(folder, Slot(folder.name), request.text("target"), Content(release, digest))
    _TRIED[what](slot, _runtimes(request.text("runtimes")), enter)
    graph = slot.train_graph
    blob = slot.artifact.blob if what == "model" or graph is None else graph.blob
    return {"manifest_sha256": slot.manifest_sha256, "sha256": sha256_of(slot.blob(blob))}


def _say(answers: int, message: dict[str, Any]) -> None:
    payload = encode_json(message) + b"\n"
    while payload:
        payload = payload[os.write(answers, payload) :]


def _verdict(request: Fields, answers: int) -> dict[str, Any]:
    try:
        return {"passed": _try(request, answers)}
    except HedgerowError as exc:
        return _refused(str(exc), is_final=isinstance(exc, RejectedError))
    except MemoryError:
        reason = (
            "expected to load and run it in the memory that is free, found too little; make room, or compile smaller"
        )
        return _refused(reason, is_final=False)


def _refused(reason: str, *, is_final: bool) -> dict[str, Any]:
    return {"refused": {"reason": reason[:_REASON_CHARS], "is_final": is_final}}


def main() -> None:
    """Answer one request. An error that is none of ours ends the process with a traceback, and no result."""
    answers = int(sys.argv[1])
    request = decode_json(sys.stdin.buffer.read(_REQUEST_LIMIT_BYTES), "request", limit_bytes=_REQUEST_LIMIT_BYTES)
    _die_with_parent(request.integer("parent"))
    sys.path[:] = request.texts("search_path", maximum_chars=4096)
    logging.basicConfig(level=logging.WARNING)
    _bound(request.integer("ram_bytes"))
    _say(answers, _verdict(request, answers))


if __name__ == "__main__":
    main()
