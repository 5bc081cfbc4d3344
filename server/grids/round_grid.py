"""What a run needs of a grid beside Flower's interface: its kind, names, border, and a clock where time is virtual.

Needs Flower.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from hedgerow.decode import Fields
from hedgerow.server.flower import FlowerRun, answering_clients

__all__ = ["ForeignGrid", "RoundGrid", "as_round_grid"]


class RoundGrid(Grid):
    """A Flower grid that says what it is; what it does not override holds for grids without a clock of their own."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """Where this grid trains, for the run's record, such as ``in-process``."""

    @abstractmethod
    def node_name(self, node_id: int) -> str:
        """Return what people call a node."""

    def reply_names(self, reply: Message) -> tuple[str, ...]:
        """Return the names of the clients that *reply* stands for: several, where a cohort answers as one."""
        clients = answering_clients(reply)
        return (self.node_name(reply.metadata.src_node_id),) if clients is None else tuple(map(str, clients))

    @property
    def trouble(self) -> str:
        """Why nobody can say which nodes are there; empty if that is known."""
        return ""

    def fit_to(self, needed: Mapping[str, tuple[float, float]], *, clips: bool) -> None:
        """Fit the border that replies pass to a strategy; a grid without a border has nothing to fit.

        Args:
            needed: Metrics that trained replies must have, for it computes with them -> between what they may lie.
            clips: It clips each update itself, so that updates may be of any length unless a norm was declared.
        """

    @property
    def virtual_s(self) -> float | None:
        """Now, on the grid's own clock; None: its time is everybody's."""
        return None

    def state(self) -> Mapping[str, Any] | None:
        """Return what carries on to the next round as plain JSON values; None: nothing does."""
        return None

    def restore(self, fields: Fields) -> None:
        """Take over what :meth:`state` returned.

        Raises:
            DecodeError: It is another document.
            ValueError: This grid carries nothing on.
        """
        raise ValueError(f"the grid {self.kind} carries nothing on, and {fields.names()} are to be restored")


class ForeignGrid(RoundGrid):
    """A grid that knows Flower's interface alone, behind ours."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    @property
    def kind(self) -> str:
        """The name of its class."""
        return type(self._grid).__name__

    def node_name(self, node_id: int) -> str:
        """Return the node's number."""
        return str(node_id)

    def set_run(self, run: FlowerRun) -> None:
        """Hand Flower's record of the run on."""
        self._grid.set_run(run)

    @property
    def run(self) -> FlowerRun:
        """Flower's record of the run."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Have the grid make a message."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the grid's nodes."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have the grid send messages."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have come."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Have the grid send messages and wait for the replies."""
        return self._grid.send_and_receive(messages, timeout=timeout)


def as_round_grid(grid: Grid) -> RoundGrid:
    """Return *grid* itself if it is one of ours, else behind a :class:`ForeignGrid`."""
    return grid if isinstance(grid, RoundGrid) else ForeignGrid(grid)
