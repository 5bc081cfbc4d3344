"""Forked worker processes that share one pipe for tickets and one for answers. Needs torch in what they serve.

Every worker also holds one end of a pipe of its own, which nobody writes to: the parent finds the other end closed when
the process has ended, whatever ended it.
"""

import os
import selectors
import signal
import threading
import time
import warnings
from dataclasses import dataclass

from hedgerow.interrupts import hold_interrupts
from hedgerow.server.cohort.errors import ClientTrainingError
from hedgerow.server.cohort.shared_round import SharedRound
from hedgerow.server.cohort.worker_loop import Job, Ticket, WorkerLoop, child_of, die_with_parent, read_ticket

__all__ = ["WorkerPool"]


@dataclass(frozen=True, slots=True)
class _Worker:
    """A process, and the end of a pipe whose other end closes when the process ends."""

    process_id: int
    life: int


def _wait(worker: _Worker) -> int | None:
    """Return how a process ended; None: somebody else has waited for it."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(worker.process_id, 0)[1])
    except ChildProcessError:
        return None


class WorkerPool:
    """Forked workers and the two pipes that they share."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self.workers: list[_Worker] = []
        self._ticket_end, self._tickets = os.pipe()
        self._answers, self._answer_end = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._answers, selectors.EVENT_READ)
        self._open = True

    def start(self, loop: WorkerLoop) -> None:
        """Fork a process that serves *loop*."""
        parent, ask_kernel = os.getpid(), threading.current_thread() is threading.main_thread()
        life, life_end = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of every fork of a process with threads; the module's text says why this one may.
            warnings.simplefilter("ignore", DeprecationWarning)
            process_id = os.fork()
        if process_id == 0:
            os.close(self._tickets)
            os.close(self._answers)
            die_with_parent(parent, ask_kernel=ask_kernel)
            child_of(loop.serve)
        os.close(life_end)
        worker = _Worker(process_id, life)
        self.workers.append(worker)
        self._selector.register(life, selectors.EVENT_READ, worker)

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
                if answer is None or answer.job == Job.FAILED:
                    raise self._failure(0 if answer is None else answer.stamp, shared)
                found.append(answer)
        return found

    def has_lost_workers(self) -> bool:
        """Tell whether a process has ended that should not have."""
        return any(key.data is not None for key, _mask in self._selector.select(0))

    def _failure(self, number: int, shared: SharedRound) -> ClientTrainingError:
        row = int(shared.in_hand[number])
        return ClientTrainingError(None if row < 0 else shared.client(row)[0], shared.read_text(number))

    def _death(self, worker: _Worker, shared: SharedRound) -> ClientTrainingError:
        number = self.workers.index(worker)
        code = _wait(worker)
        how = "" if code is None else f" by {signal.Signals(-code).name}" if code < 0 else f" with code {code}"
        row = int(shared.in_hand[number])
        client = None if row < 0 else shared.client(row)[0]
        return ClientTrainingError(client, f"its worker process was ended{how} (was memory short?)")

    def end(self) -> None:
        """End all processes at once and wait for them; they hold nothing that is not free with them."""
        if not self._open or os.getpid() != self._owner:
            return
        self._open = False
        with hold_interrupts():
            ended = [key.data for key, _mask in self._selector.select(0)]
            for worker in self.workers:
                if worker not in ended:
                    os.kill(worker.process_id, signal.SIGKILL)
            for worker in self.workers:
                _wait(worker)
                os.close(worker.life)
            self.workers.clear()
            self._selector.close()
            for descriptor in (self._ticket_end, self._tickets, self._answers, self._answer_end):
                os.close(descriptor)
