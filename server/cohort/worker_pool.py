"""Forked worker processes that share one pipe for tickets and one for answers. Needs torch in what they serve.

They are copies of this process (:mod:`hedgerow.children.forked`): what they train must not be pickled or copied.
"""

import os
import selectors
import time

from hedgerow.children.forked import ForkedChild, fork_child
from hedgerow.interrupts import hold_interrupts
from hedgerow.server.cohort.errors import ClientTrainingError
from hedgerow.server.cohort.shared_round import SharedRound
from hedgerow.server.cohort.worker_loop import Ticket, TicketKind, WorkerLoop, read_ticket

__all__ = ["WorkerPool"]


class WorkerPool:
    """Forked workers and the two pipes that they share."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self.workers: list[ForkedChild] = []
        self._ticket_end, self._tickets = os.pipe()
        self._answers, self._answer_end = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._answers, selectors.EVENT_READ)
        self._open = True

    def start(self, loop: WorkerLoop) -> None:
        """Fork a process that serves *loop*."""
        # An interrupt between a process's start and its place in the list would leave it to nobody.
        with hold_interrupts():
            worker = fork_child(loop.serve, name=f"worker {len(self.workers)}", leave=(self._tickets, self._answers))
            self.workers.append(worker)
            self._selector.register(worker, selectors.EVENT_READ, worker)

    @property
    def descriptors(self) -> tuple[int, int]:
        """What workers read tickets from, and write answers to."""
        return self._ticket_end, self._answer_end

    def hand_out(self, tickets: bytes) -> None:
        """Let workers take *tickets*."""
        os.write(self._tickets, tickets)

    def answers(self, count: int, shared: SharedRound, *, timeout_s: float | None = None) -> list[Ticket]:
        """Wait for *count* answers and return them in the order in which they came.

        Raises:
            ClientTrainingError: One failed, or a worker ended or did not answer in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        found: list[Ticket] = []
        while len(found) < count:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            events = self._selector.select(left_s)
            if not events:
                raise ClientTrainingError(None, f"a worker process did not answer in {timeout_s:g} s")
            for key, _mask in events:
                if key.data is not None:
                    raise self._death(key.data, shared)
                answer = read_ticket(self._answers)
                if answer is None or answer.job == TicketKind.FAILED:
                    raise self._failure(0 if answer is None else answer.stamp, shared)
                found.append(answer)
        return found

    def has_lost_workers(self) -> bool:
        """Tell whether a process has ended that should not have."""
        return any(key.data is not None for key, _mask in self._selector.select(0))

    def _failure(self, number: int, shared: SharedRound) -> ClientTrainingError:
        row = int(shared.in_hand[number])
        return ClientTrainingError(None if row < 0 else shared.client(row)[0], shared.read_text(number))

    def _death(self, worker: ForkedChild, shared: SharedRound) -> ClientTrainingError:
        number = self.workers.index(worker)
        ended = worker.wait()
        code = "" if ended.code is None else f" with code {ended.code}"
        how = f" by {ended.signal_name}" if ended.signal_name else code
        row = int(shared.in_hand[number])
        client = None if row < 0 else shared.client(row)[0]
        return ClientTrainingError(client, f"its worker process was ended{how} (was memory short?)")

    def end(self) -> None:
        """End all processes at once and wait for them; they hold nothing that is not free with them."""
        if not self._open or os.getpid() != self._owner:
            return
        self._open = False
        with hold_interrupts():
            self._selector.close()
            for worker in self.workers:
                worker.kill()
            for worker in self.workers:
                worker.close()
            self.workers.clear()
            for descriptor in (self._ticket_end, self._tickets, self._answers, self._answer_end):
                os.close(descriptor)
