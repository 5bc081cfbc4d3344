"""A grid whose nodes are Flower ClientApps in this process: no Ray, no sockets, about 2 ms of overhead a round."""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from flwr.app import Context, Message, RecordDict

from hedgerow.server.flower import ClientCall, error_codes, received_message
from hedgerow.server.grids.judging import error_reply
from hedgerow.server.grids.synchronous import SynchronousGrid, own_copy
from hedgerow.server.replies import ReplyLimits

__all__ = ["InProcessGrid"]

_LOG = logging.getLogger(__name__)


class InProcessGrid(SynchronousGrid):
    """Runs an unmodified ClientApp for each of *nodes* virtual clients.

    Node i (from 1) has a Flower ``Context`` of its own that lives as long as the grid, with ``partition-id`` i - 1 and
    ``num-partitions`` in its node configuration.
    """

    def __init__(
        self,
        client_app: ClientCall,
        nodes: int,
        *,
        run_config: Mapping[str, bool | int | float | str] | None = None,
        check_updates: bool = True,
        workers: int = 1,
        limits: ReplyLimits | None = None,
        samples: Sequence[int] = (),
    ) -> None:
        """Make the nodes.

        Args:
            client_app: A ``flwr.clientapp.ClientApp``, or any callable ``(Message, Context) -> Message``.
            nodes: How many virtual clients.
            run_config: What ClientApps find in ``context.run_config``.
            check_updates: Refuse trained weights whose names or shapes are not those that were sent, that hold NaN or
                that lie far from what was sent. Switch it off for apps whose replies have another form, such as trees.
            workers: Threads that call the ClientApp, for apps that bear it; a node is never called twice at once.
            limits: What replies may say (``hedgerow.server.replies``); None: the default ones.
            samples: How many each node has, in the order of nodes, if that is known: it may not claim more.

        Raises:
            ValueError: *nodes* or *workers* is below 1.
            FlowerVersionError: The installed Flower was not tested.
        """
        if nodes < 1 or workers < 1:
            raise ValueError(f"nodes and workers must be at least 1, not {nodes} and {workers}")
        declared = dict(zip(range(1, nodes + 1), samples, strict=bool(samples)))
        super().__init__(limits, declared=declared, check_updates=check_updates)
        self._client_app = client_app
        self._workers = workers
        self._contexts = {
            node: Context(
                run_id=self.run.run_id,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": nodes},
                state=RecordDict(),
                run_config=dict(run_config or {}),
            )
            for node in range(1, nodes + 1)
        }

    @property
    def kind(self) -> str:
        """The kind ``in-process``: clients train here."""
        return "in-process"

    def get_node_ids(self) -> Sequence[int]:
        """Return 1..nodes."""
        return list(self._contexts)

    def node_name(self, node_id: int) -> str:
        """Return the number of the node's partition, which also seeds its order of samples."""
        return str(node_id - 1)

    def answer(self, messages: Sequence[Message], timeout_s: float | None) -> Iterable[Message]:
        """Run the ClientApp once a message; *timeout_s* does not apply, because nothing here can hang on a network."""
        del timeout_s
        by_node: dict[int, list[Message]] = {}
        for message in messages:
            by_node.setdefault(message.metadata.dst_node_id, []).append(message)

        def call_node(node: int) -> list[Message]:
            return [self._call(message) for message in by_node[node]]

        nodes = sorted(by_node)
        if self._workers == 1 or len(nodes) < 2:
            answered = [call_node(node) for node in nodes]
        else:
            with ThreadPoolExecutor(min(self._workers, len(nodes)), "client-app") as pool:
                answered = list(pool.map(call_node, nodes))
        return [reply for replies in answered for reply in replies]

    def _call(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if node not in self._contexts:
            reason = "there is no such node"
            return error_reply(message, error_codes().NODE_UNAVAILABLE, str(node), reason)
        name = self.node_name(node)
        received = received_message(message, own_copy(message.content))
        try:
            reply: object = self._client_app(received, self._contexts[node])
        except KeyboardInterrupt:
            # Only the main thread is interrupted from outside; in another one it is the app that raised it.
            if threading.current_thread() is threading.main_thread():
                raise
            return self._failed(message, name, "KeyboardInterrupt")
        # A ClientApp is a node's outermost loop, and its code is the user's: Flower's contract makes any exception
        # an error reply, and an app that exits has ended its node and not the run.
        except BaseException as exc:  # noqa: BLE001
            _LOG.exception("the ClientApp of node %s raised", name)
            return self._failed(message, name, f"{type(exc).__name__}: {exc}")
        if not isinstance(reply, Message):
            return self._failed(message, name, f"the ClientApp returned {type(reply).__name__} instead of a Message")
        return reply

    def _failed(self, message: Message, name: str, reason: str) -> Message:
        return error_reply(message, error_codes().CLIENT_APP_RAISED_EXCEPTION, name, reason)
