"""What a worker process of ``ProcessGrid`` does: it makes one ClientApp and calls it for each message it is sent.

Imports next to nothing at the top: what a call needs is imported once the app is there.
"""

import gc
import pickle
import sys
from multiprocessing import process, spawn
from typing import TYPE_CHECKING, Any

from hedgerow.children.channel import MessageChannel

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict

    from hedgerow.server.flower import ClientCall

__all__ = ["NodeCall", "NodeResult", "Opening", "serve"]

Opening = tuple[dict[str, Any], bytes, int]
"""What makes the parent's main module importable, the pickled factory, threads of numerical libraries."""

NodeCall = tuple[bytes | None, Any, int, dict[str, Any], dict[str, Any], bytes | None]
"""Pickled content (None: as in the call before), metadata, run, node configuration, run configuration, state."""

NodeResult = tuple["Message | None", str, bytes | None]
"""The reply (None: there is none), why there is none, the node's new state (None: empty)."""


def serve(channel: MessageChannel) -> None:
    """Answer calls until the other side closes.

    Args:
        channel: Brings an :data:`Opening` first, a pickled callable that returns the ClientApp in it, or a pickled
            reference to one. The first thing sent is an empty text when the app is there, or why it could not be made.
            Then it brings a :data:`NodeCall` each time, and takes its :data:`NodeResult`. All of it is pickled, by us
            and by our own parent.
    """
    opening = channel.receive()
    if opening is None:
        return
    try:
        threads, app = _made_app(opening)
    # The factory is the user's code, and this is the process's outermost frame: the parent reports it.
    except Exception as exc:  # noqa: BLE001
        channel.send(f"{type(exc).__name__}: {exc}".encode())
        return
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    # Apps collect garbage with each message that they empty, which takes 0.1 s in a process that has imported torch.
    gc.collect()
    gc.freeze()
    channel.send(b"")
    content: Any = None
    while (message := channel.receive()) is not None:
        call: NodeCall = pickle.loads(message)  # noqa: S301 (from our own parent)
        if call[0] is not None:
            content = pickle.loads(call[0])  # noqa: S301 (from our own parent)
        channel.send(_pickled(_answer(app, content, call), call))


def _pickled(result: NodeResult, call: NodeCall) -> bytes:
    try:
        return pickle.dumps(result, protocol=5)
    # Whatever the app put into its reply may refuse, each thing in its own way.
    except Exception as exc:  # noqa: BLE001
        return pickle.dumps((None, f"its reply cannot be sent: {type(exc).__name__}: {exc}", call[-1]), protocol=5)


def _made_app(opening: bytes) -> "tuple[int, ClientCall]":
    from hedgerow.server.flower import adopt_flower
    from hedgerow.task import load_attribute

    adopt_flower()
    parent, factory, threads = pickle.loads(opening)  # noqa: S301 (from our own parent)
    _import_main(parent)
    source = pickle.loads(factory)  # noqa: S301 (from our own parent)
    app: ClientCall = load_attribute(source) if isinstance(source, str) else source()
    return threads, app


def _import_main(parent: dict[str, Any]) -> None:
    """Import the parent's main module, for a factory may be a function of the script that was started.

    As in a process of ``multiprocessing``, the mark keeps a script without a guarded main part from starting processes
    here, which would start processes.
    """
    this: Any = process.current_process()
    this._inheriting = True  # noqa: SLF001 - it has no other name
    try:
        spawn.prepare(parent)
    finally:
        del this._inheriting  # noqa: SLF001 - likewise


def _answer(app: "ClientCall", content: "RecordDict", call: NodeCall) -> NodeResult:
    from flwr.app import Context, Message, RecordDict

    from hedgerow.server.grids.synchronous import own_copy

    _content, metadata, run_id, node_config, run_config, state = call
    make: Any = Message  # the keyword is Flower's own and in no overload
    context = Context(
        run_id=run_id,
        node_id=metadata.dst_node_id,
        node_config=node_config,
        state=pickle.loads(state) if state is not None else RecordDict(),  # noqa: S301 (from our own parent)
        run_config=run_config,
    )
    try:
        reply: object = app(make(own_copy(content), metadata=metadata), context)
    # A ClientApp is a node's outermost loop, and its code is the user's: Flower's contract makes any exception an
    # error reply, and an app that exits has ended its node and not the worker.
    except BaseException as exc:  # noqa: BLE001
        return None, f"{type(exc).__name__}: {exc}", state
    if not isinstance(reply, Message):
        return None, f"the ClientApp returned {type(reply).__name__} instead of a Message", state
    return reply, "", pickle.dumps(context.state, protocol=5) if len(context.state) else None
