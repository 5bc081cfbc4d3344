"""What a worker process does: take tickets from a pipe that all workers read, train clients, sum columns. Needs torch.

A ticket is 16 bytes. A pipe hands each of them to exactly one reader, so the workers share the work by who is free
without a lock or a thread.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import torch

from hedgerow.local_work import LocalWork
from hedgerow.server.cohort.client_steps import ClientSteps
from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.cohort.shared_round import SharedRound

__all__ = ["Ticket", "TicketKind", "WorkerLoop", "encode_tickets", "read_ticket"]

_TICKET = struct.Struct("<IIII")


class TicketKind(IntEnum):
    """What a ticket asks for (TRAIN or SUM), and what an answer tells."""

    READY = 0
    TRAIN = 1
    SUM = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Ticket:
    """A range of work.

    Attributes:
        job: What is to be done; in an answer, what was.
        stamp: Number of the slice; in an answer, of the worker.
        start: First of the places in the order of rows, or of the blocks of columns.
        stop: The one after the last.
    """

    job: TicketKind
    stamp: int
    start: int
    stop: int


def encode_tickets(job: TicketKind, stamp: int, ranges: Sequence[tuple[int, int]]) -> bytes:
    """Return tickets to write to the pipe at once."""
    return b"".join(_TICKET.pack(job, stamp, start, stop) for start, stop in ranges)


def read_ticket(descriptor: int) -> Ticket | None:
    """Wait for a ticket; None: nobody can write one any more."""
    payload = os.read(descriptor, _TICKET.size)
    if len(payload) != _TICKET.size:
        return None
    job, stamp, start, stop = _TICKET.unpack(payload)
    return Ticket(TicketKind(job), stamp, start, stop)


class WorkerLoop:
    """One worker.

    Args:
        number: Its own, from 0.
        steps: Trains a client.
        shared: Where work and results lie.
        clients: Who owns which samples.
        tickets: Descriptor to read tickets from.
        answers: Descriptor to write answers to.
    """

    def __init__(
        self,
        number: int,
        steps: ClientSteps,
        shared: SharedRound,
        clients: ClientIndex,
        *,
        tickets: int,
        answers: int,
    ) -> None:
        self._number, self._steps, self._shared, self._clients = number, steps, shared, clients
        self._tickets, self._answers = tickets, answers
        self._stamp = -1
        self._work: tuple[LocalWork, list[str]] | None = None

    def serve(self) -> None:
        """Work until the pipe is closed."""
        # Before anything else: threads of OpenMP do not survive a fork, and one thread never starts any.
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        # A lock that was held while this process was forked shows here and not in the middle of a round.
        torch.ones(8, 8) @ torch.ones(8, 8)
        os.write(self._answers, _TICKET.pack(TicketKind.READY, self._number, 0, 0))
        failed = False
        while (ticket := read_ticket(self._tickets)) is not None:
            if failed:
                continue  # the parent is about to end this process; what it failed at must stay readable
            job = ticket.job
            try:
                self._do(ticket)
            # The outermost loop of this process: the parent raises it as the failure of this client.
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - see above
                said = " ".join(str(exc).split())
                self._shared.write_text(self._number, f"it raised {type(exc).__name__}: {said}")
                job, failed = TicketKind.FAILED, True
            os.write(self._answers, _TICKET.pack(job, self._number, ticket.start, ticket.stop))

    def _do(self, ticket: Ticket) -> None:
        if ticket.job == TicketKind.TRAIN:
            if ticket.stamp != self._stamp or self._work is None:
                self._work, self._stamp = self._shared.read_work(), ticket.stamp
            for row in self._shared.order[ticket.start : ticket.stop].tolist():
                self._train(row, *self._work)
        else:
            for number in range(ticket.start, ticket.stop):
                self._shared.add_block(number)

    def _train(self, row: int, work: LocalWork, corrected: Sequence[str]) -> None:
        shared = self._shared
        shared.in_hand[self._number] = row
        client, epochs = shared.client(row)
        taken = self._steps.train(
            shared.sent,
            shared.target(row),
            torch.from_numpy(np.array(self._clients.indices(client), dtype=np.int64)),
            replace(work.of_client(client), epochs=epochs),
            shared.corrections(row, corrected) if corrected else None,
        )
        shared.losses[row], shared.norms[row] = taken.loss, taken.norm
        shared.in_hand[self._number] = -1
