"""The child process of a trial: loads one file with its runtime, runs it, says so, and ends.

It takes one request from its channel and answers there. It bounds its own memory, is the first that a kernel short of
memory ends, takes the processor only when the agent leaves it, and dies with the agent.
"""

import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from hedgerow.children.channel import MessageChannel
from hedgerow.children.limits import bound_process
from hedgerow.client.errors import RejectedError
from hedgerow.client.loading import LoadRuntime, try_model, try_train_graph
from hedgerow.client.slot_folders import open_slot
from hedgerow.client.slots import Content, Slot
from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.durable import sha256_of
from hedgerow.errors import HedgerowError

__all__ = ["serve"]

_REASON_CHARS = 1024
_NICE = 5
_NO_MEMORY = "expected to load and run it in the memory that is free, found too little; make room, or compile smaller"
_TRIED = {"model": try_model, "train graph": try_train_graph}


def _runtimes(reference: str) -> LoadRuntime:
    module, _, name = reference.partition(":")
    found: LoadRuntime = getattr(import_module(module), name)
    return found


def _try(request: Fields, channel: MessageChannel) -> dict[str, Any]:
    def enter(step: str) -> None:
        channel.send(encode_json({"step": step}))

    release, digest = request.text("release"), request.text("manifest_sha256")
    folder = Path(request.text("folder", maximum_chars=4096))
    what = request.text("what")
    slot = open_slot(folder, Slot(folder.name), request.text("target"), Content(release, digest))
    _TRIED[what](slot, _runtimes(request.text("runtimes")), enter)
    graph = slot.train_graph
    blob = slot.artifact.blob if what == "model" or graph is None else graph.blob
    return {"manifest_sha256": slot.manifest_sha256, "sha256": sha256_of(slot.blob(blob))}


def _verdict(request: Fields, channel: MessageChannel) -> dict[str, Any]:
    try:
        return {"passed": _try(request, channel)}
    except HedgerowError as exc:
        return _refused(str(exc), is_final=isinstance(exc, RejectedError))
    except MemoryError:
        return _refused(_NO_MEMORY, is_final=False)


def _refused(reason: str, *, is_final: bool) -> dict[str, Any]:
    return {"refused": {"reason": reason[:_REASON_CHARS], "is_final": is_final}}


def serve(channel: MessageChannel) -> None:
    """Answer one request. An error that is none of ours ends the process with a traceback, and no result."""
    request = decode_json(channel.receive() or b"", "request", limit_bytes=channel.limit_bytes)
    sys.path[:] = request.texts("search_path", maximum_chars=4096)
    logging.basicConfig(level=logging.WARNING)
    bound_process(data_bytes=request.integer("ram_bytes"), niceness=_NICE)
    channel.send(encode_json(_verdict(request, channel)))
