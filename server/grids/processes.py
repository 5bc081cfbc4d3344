"""A grid whose nodes are arbitrary Flower ClientApps in worker processes: no Ray, no sockets."""

import pickle
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import spawn
from typing import TYPE_CHECKING, Any

from flwr.app import Message

from hedgerow.children.child import numeric_threads
from hedgerow.children.module_child import ModuleChild
from hedgerow.closing import Closing
from hedgerow.errors import DecodeError
from hedgerow.server.errors import WorkerStartError
from hedgerow.server.flower import ClientCall, error_codes
from hedgerow.server.grids.judging import error_reply
from hedgerow.server.grids.synchronous import SynchronousGrid
from hedgerow.server.replies import ReplyLimits

if TYPE_CHECKING:
    from hedgerow.server.grids.process_worker import NodeCall, NodeResult, Opening

__all__ = ["ProcessGrid"]

_END_S = 5.0
_MESSAGE_LIMIT_BYTES = 2**36
"""Weights and states are bounded before they come here; this is what no message of ours reaches."""


class ProcessGrid(SynchronousGrid, Closing):
    """Runs an unmodified ClientApp for each of *nodes* virtual clients, in *workers* processes.

    As on ``InProcessGrid``, node i (from 1) finds ``partition-id`` i - 1 and ``num-partitions`` in its configuration,
    and a state of its own in its ``Context``. The states are kept here, of those nodes that have some, and travel with
    each message; what an app put there in a call that raised is forgotten. The weights of a round are pickled once and
    sent to each worker once, however many clients it plays. An app that draws from global generators must seed them by
    node and round, for which worker plays a node depends on who is free.

    An exception of the app, and the death of a worker, are error replies to the message concerned; a dead worker is
    replaced. A worker that runs beyond a round's timeout is ended, and what it had not answered is late.

    Workers are spawned, so a script that makes this grid guards its main part with ``if __name__ == "__main__"``.

    The same app runs on Flower's own Ray backend, on one machine or a cluster, with
    ``flwr.simulation.run_simulation(server_app, client_app, num_supernodes=nodes)`` or ``flwr run``, and on real
    SuperNodes; strategies do not see the difference. What differs is the time: Ray takes a third of a second a round
    for its own work (``benchmarks/simulation.py``).
    """

    def __init__(
        self,
        client_app: str | Callable[[], ClientCall],
        nodes: int,
        *,
        workers: int = 2,
        threads: int = 1,
        run_config: Mapping[str, bool | int | float | str] | None = None,
        check_updates: bool = True,
        state_limit_bytes: int = 2**30,
        limits: ReplyLimits | None = None,
        samples: Sequence[int] = (),
    ) -> None:
        """Make the nodes; workers start with the first message.

        Args:
            client_app: ``module:attribute`` or ``file.py:attribute`` of a ``flwr.clientapp.ClientApp``, or a callable
                that makes one and can be pickled, such as a function of a module.
            nodes: How many virtual clients.
            workers: How many processes.
            threads: Of numerical libraries in each.
            run_config: What ClientApps find in ``context.run_config``.
            check_updates: As of ``InProcessGrid``.
            state_limit_bytes: So much all nodes' states may take together; a reply whose state does not fit becomes an
                error reply, and the node's state remains what it was.
            limits: As of ``InProcessGrid``.
            samples: As of ``InProcessGrid``.

        Raises:
            ValueError: A number is below 1.
            FlowerVersionError: The installed Flower was not tested.
        """
        if min(nodes, workers, threads) < 1:
            raise ValueError(f"nodes, workers and threads must be at least 1, not {nodes}, {workers} and {threads}")
        declared = dict(zip(range(1, nodes + 1), samples, strict=bool(samples)))
        super().__init__(limits, declared=declared, check_updates=check_updates)
        self._factory = pickle.dumps(client_app)
        self._threads, self._count = threads, workers
        self._run_config = dict(run_config or {})
        self._nodes = list(range(1, nodes + 1))
        self._states: dict[int, bytes] = {}
        self._state_room_bytes = state_limit_bytes
        self._workers: list[_Worker] = []

    @property
    def kind(self) -> str:
        """``processes``."""
        return "processes"

    def close(self) -> None:
        """End all workers; the grid may be used again, and starts new ones then."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.child.channel.close()
        for worker in workers:
            worker.end(_END_S)

    def get_node_ids(self) -> Sequence[int]:
        """Return 1..nodes: always the same list, which must not be changed."""
        return self._nodes

    def node_name(self, node_id: int) -> str:
        """Return the number of the node's partition."""
        return str(node_id - 1)

    def answer(self, messages: Sequence[Message], timeout_s: float | None) -> Iterable[Message]:
        """Have the workers call the ClientApp once a message.

        Raises:
            WorkerStartError: The ClientApp cannot be made.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        contents = {id(message.content): message for message in messages}
        pickled = {key: pickle.dumps(message.content, protocol=5) for key, message in contents.items()}
        queue: deque[Message] = deque()
        replies: list[Message] = []
        for message in sorted(messages, key=lambda each: id(each.content)):  # so that workers are told contents once
            if 1 <= message.metadata.dst_node_id <= len(self._nodes):
                queue.append(message)
            else:
                replies.append(self._error(message, error_codes().NODE_UNAVAILABLE, "there is no such node"))
        try:
            replies.extend(self._work_off(queue, pickled, deadline))
        except BaseException:
            self.close()  # what is on its way belongs to no later call
            raise
        for worker in self._workers:
            worker.known = None
        return replies

    def _work_off(
        self,
        queue: deque[Message],
        pickled: Mapping[int, bytes],
        deadline: float | None,
    ) -> list[Message]:
        replies: list[Message] = []
        while True:
            at_work = sum(worker.message is not None for worker in self._workers)
            self._start(min(self._count, at_work + len(queue)))
            busy = {message.metadata.dst_node_id for worker in self._workers if (message := worker.message) is not None}
            for worker in self._workers:
                message = _next_message(queue, busy) if worker.message is None else None
                if message is not None:
                    busy.add(message.metadata.dst_node_id)
                    self._hand(worker, message, pickled, deadline)
            working = [worker for worker in self._workers if worker.message is not None]
            if not working:
                return replies
            ready = _readable(working, _left_s(deadline))
            if not ready:
                late = [*(worker.message for worker in working if worker.message is not None), *queue]
                for worker in working:
                    self._discard(worker, 0.0)
                return replies + [
                    self._error(m, error_codes().REPLY_MESSAGE_UNAVAILABLE, "no answer in time") for m in late
                ]
            for worker in ready:
                if worker.message is not None:
                    replies.extend(self._collect(worker, worker.message))

    def _hand(self, worker: "_Worker", message: Message, pickled: Mapping[int, bytes], deadline: float | None) -> None:
        key, node = id(message.content), message.metadata.dst_node_id
        node_config = {"partition-id": node - 1, "num-partitions": len(self._nodes)}
        content = None if worker.known == key else pickled[key]
        worker.message, worker.known = message, key
        state = self._states.get(node)
        call: NodeCall = (content, message.metadata, self.run.run_id, node_config, self._run_config, state)
        # A worker that does not read is late, and one that died before its call is found by :meth:`_collect`.
        with suppress(TimeoutError):
            worker.child.channel.send(pickle.dumps(call, protocol=5), _left_s(deadline))

    def _collect(self, worker: "_Worker", message: Message) -> list[Message]:
        """Return the reply of a worker that has said something; none when it is not whole yet."""
        try:
            payloads = worker.child.channel.take()
        except DecodeError as exc:
            self._discard(worker, 0.0)
            reason = f"its worker process sent what is no reply: {exc}"
            return [self._error(message, error_codes().CLIENT_APP_CRASHED, reason)]
        if payloads is None:
            reason = f"the worker process that played it ended with {self._discard(worker, _END_S)}"
            return [self._error(message, error_codes().CLIENT_APP_CRASHED, reason)]
        if payloads:
            worker.message = None
        return [self._reply(message, payload) for payload in payloads]

    def _reply(self, message: Message, payload: bytes) -> Message:
        node = message.metadata.dst_node_id
        try:
            result: NodeResult = pickle.loads(payload)  # noqa: S301 (from our own worker)
        # What the app put into its reply may refuse to be read here, each thing in its own way.
        except Exception as exc:  # noqa: BLE001
            reason = f"its reply cannot be read: {type(exc).__name__}: {exc}"
            return self._error(message, error_codes().CLIENT_APP_RAISED_EXCEPTION, reason)
        reply, reason, state = result
        if reply is None:
            return self._error(message, error_codes().CLIENT_APP_RAISED_EXCEPTION, reason)
        wrong = self._keep(node, state)
        return reply if wrong is None else self._error(message, error_codes().MOD_FAILED_PRECONDITION, wrong)

    def _keep(self, node: int, state: bytes | None) -> str | None:
        """Keep a node's new state, or return why it cannot be kept."""
        more = len(state or b"") - len(self._states.get(node, b""))
        if more > self._state_room_bytes:
            return f"its state of {len(state or b'')} bytes does not fit beside those of the other nodes"
        self._state_room_bytes -= more
        self._states.pop(node, None)
        if state is not None:
            self._states[node] = state
        return None

    def _error(self, message: Message, code: int, reason: str) -> Message:
        return error_reply(message, code, self.node_name(message.metadata.dst_node_id), reason)

    def _start(self, needed: int) -> None:
        new = [_Worker.started(self._factory, self._threads) for _ in range(needed - len(self._workers))]
        self._workers += new
        for worker in new:
            said = worker.child.channel.receive()
            reason = f"it ended with {worker.end(_END_S)}" if said is None else said.decode()
            if reason:
                self.close()
                raise WorkerStartError(reason)

    def _discard(self, worker: "_Worker", wait_s: float) -> int | None:
        """End *worker* and return its exit code; another takes its place when one is needed."""
        self._workers.remove(worker)
        return worker.end(wait_s)


@dataclass(eq=False)
class _Worker:
    """A process, and what it works on.

    Attributes:
        child: The process.
        message: What it has not answered yet.
        known: Identity of the content that it was sent last.
    """

    child: ModuleChild
    message: Message | None = None
    known: int | None = None

    @classmethod
    def started(cls, factory: bytes, threads: int) -> "_Worker":
        # What an app prints is its user's, and so are its temporary files.
        child = ModuleChild(
            "hedgerow.server.grids.process_worker",
            limit_bytes=_MESSAGE_LIMIT_BYTES,
            name="client-app",
            environment=numeric_threads(threads),
        )
        opening: Opening = (_main_module(), factory, threads)
        child.channel.send(pickle.dumps(opening))
        return cls(child)

    def end(self, wait_s: float) -> int | None:
        """Wait for the process, which ends with its channel, then kill it, and return its exit code."""
        self.child.channel.close()
        self.child.wait(wait_s)
        return self.child.end().code


def _main_module() -> dict[str, Any]:
    """Return what makes this process's main module and search path those of another, as ``multiprocessing`` does."""
    found: dict[str, Any] = spawn.get_preparation_data("client-app")
    # A secret for connections of multiprocessing, of which there are none.
    del found["authkey"]
    return found


def _left_s(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _readable(workers: Sequence[_Worker], timeout_s: float | None) -> list[_Worker]:
    """Wait until some have said something, and return them; none: the time is over."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.child.channel, selectors.EVENT_READ, worker)
        return [key.data for key, _events in selector.select(timeout_s)]


def _next_message(queue: deque[Message], busy: set[int]) -> Message | None:
    """Take the first message from *queue* whose node no worker plays now: a node is never called twice at once."""
    for position, message in enumerate(queue):
        if message.metadata.dst_node_id not in busy:
            del queue[position]
            return message
    return None
