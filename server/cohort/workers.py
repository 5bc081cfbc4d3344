"""A cohort trained by resident single-threaded processes, one for each core, that share memory. Needs torch.

Small batches leave nothing for a second thread to do: an operation of a step takes microseconds, so clients, not
operations, are what cores should share. Weights go in once a round, nothing is serialized but tickets of 16 bytes, and
each client trains in place in the row of memory that its result is read from.

**Why fork.** Tasks hold functions that cannot be pickled (lambdas, closures of a test or a notebook), the data set must
not be copied, and importing torch takes a second a process; a fork costs milliseconds and brings all three. What makes
it dangerous elsewhere is avoided: a child calls ``torch.set_num_threads(1)`` before its first operation, so it never
waits for OpenMP threads that the fork left behind; it uses no GPU; signal handlers and everything registered for the
parent's end are left out; and it answers a first ticket before it is trusted, so a lock that another thread held during
the fork is an error after a minute, not a hang. (torch's own DataLoader forks in the same way.)
"""

import logging
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from hedgerow.closing import Closing
from hedgerow.local_work import LocalWork
from hedgerow.server.cohort.client_steps import ClientSteps
from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.cohort.engine import CohortUpdate, StackedWeights, Weights
from hedgerow.server.cohort.errors import CohortMemoryError
from hedgerow.server.cohort.memory import fitting_clients, free_bytes
from hedgerow.server.cohort.sequential import ResidentData
from hedgerow.server.cohort.shared_round import SharedRound
from hedgerow.server.cohort.worker_loop import Ticket, TicketKind, WorkerLoop, encode_tickets
from hedgerow.server.cohort.worker_pool import WorkerPool
from hedgerow.server.local_steps import draws_random_numbers, torch_threads
from hedgerow.task import Dataset, Task

__all__ = ["WorkersEngine"]

_LOG = logging.getLogger(__name__)
_MOST_ROWS = 2**14
_TICKETS_A_WORKER = 16
_SUMMED_HERE = 2**20
"""So many numbers are summed sooner by the parent than workers are woken for it."""
_START_S = 60.0


class WorkersEngine(Closing):
    """Trains clients in worker processes. The result is the same to the bit for any number of workers.

    Processes are forked when the engine is made: do that before other threads of the program train. They end with
    :meth:`close`, with the program however it ends, and when a client fails; the next round then starts new ones.

    What ``each`` brings are views of shared memory, which the next call of :meth:`train` writes over.

    Args:
        task: What to learn; its functions need not be picklable.
        dataset: The samples of all clients; not copied.
        clients: Who owns which. Asked in the workers, so what changes in it later has no effect.
        workers: How many processes; None: as many as there are cores for this process.
        device: Only ``cpu``.
        rows: So many clients' weights are held at once; None: what fits into the free memory, for the whole cohort.

    Raises:
        ValueError: Another device, or fewer than one worker.
        CohortMemoryError: The free memory does not hold one client.
    """

    name = "workers"
    device = "cpu"

    def __init__(
        self,
        task: Task,
        dataset: Dataset,
        clients: ClientIndex,
        *,
        workers: int | None = None,
        device: str = "cpu",
        rows: int | None = None,
    ) -> None:
        if torch.device(device).type != "cpu":
            raise ValueError(f"expected the device cpu, found {device}: workers are for cores")
        self._count = _cores() if workers is None else workers
        if self._count < 1:
            raise ValueError(f"expected at least one worker, found {workers}")
        self._task, self._clients = task, clients
        self._data = ResidentData(task, dataset, "cpu")
        self._draws = draws_random_numbers(task, dataset)
        self._steps = self._make_steps(task.local.batch_size)
        layout = self._steps.layout
        free, a_client = free_bytes("cpu"), 2 * layout.row_bytes  # its weights and its corrections
        if free < a_client:
            raise CohortMemoryError("cpu", f"{free} bytes")
        capacity = min(fitting_clients(free, a_client), _MOST_ROWS) if rows is None else rows
        self._shared = SharedRound(layout, max(1, capacity), self._count)
        self._stamp = 0
        self._pool: WorkerPool | None = None
        self._start()

    def close(self) -> None:
        """End the workers. Their memory is free when the last result that views it is dropped."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.end()

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Ids of the workers."""
        return () if self._pool is None else tuple(worker.process_id for worker in self._pool.workers)

    @property
    def step(self) -> str:
        """How a client's steps are taken: ``traced``, or ``plain`` and why."""
        return "traced" if self._steps.traced else f"plain: {self._steps.reason}"

    def train(
        self,
        weights: Weights,
        clients: Sequence[int],
        work: LocalWork,
        *,
        each: bool,
        corrections: StackedWeights | None = None,
    ) -> Iterator[CohortUpdate]:
        """Train *clients* from *weights*; see :class:`hedgerow.server.cohort.engine.CohortEngine`.

        Raises:
            ClientTrainingError: A client failed, or a worker ended.
            ValueError: The weights are another model's.
        """
        if work.batch_size != self._steps.batch_size:
            self.close()
            self._steps = self._make_steps(work.batch_size)
        if self._pool is not None and self._pool.has_lost_workers():
            _LOG.warning("a worker process ended between rounds; starting new ones")
            self.close()
        if self._pool is None:
            self._start()
        self._shared.send_weights(weights)
        examples = np.fromiter((self._clients.size(client) for client in clients), dtype=np.int64, count=len(clients))
        shares = examples / max(1, examples.sum())
        size = self._shared.capacity
        slices = [slice(start, min(start + size, len(clients))) for start in range(0, len(clients), size)]
        losses, norms = np.empty(len(clients)), np.empty(len(clients))
        for number, part in enumerate(slices):
            chosen = tuple(clients[part])
            own = {name: stack[part] for name, stack in corrections.items()} if corrections else None
            self._shared.begin_slice(work, chosen, examples[part], shares[part], own)
            summed = self._train_rows(len(chosen), sums=not each, anew=number == 0)
            losses[part], norms[part] = self._shared.losses[: len(chosen)], self._shared.norms[: len(chosen)]
            if each:
                stacked = self._shared.stacked()
                # The next slice writes over this one, and its receiver may keep both.
                kept = stacked if len(slices) == 1 else {name: stack.clone() for name, stack in stacked.items()}
                yield CohortUpdate(chosen, examples[part], losses[part], norms[part], each=kept)
            else:
                self._sum(summed, len(chosen), anew=number == 0 and not summed)
        if not each and slices:
            yield CohortUpdate(tuple(clients), examples, losses, norms, mean=self._shared.mean())

    def _make_steps(self, batch_size: int) -> ClientSteps:
        with torch_threads(1):
            return ClientSteps(self._task, self._data, batch_size, draws=self._draws)

    def _start(self) -> None:
        pool = self._pool = WorkerPool()
        weakref.finalize(self, pool.end)
        ticket_end, answer_end = pool.descriptors
        try:
            for number in range(self._count):
                self._shared.in_hand[number] = -1
                loop = WorkerLoop(
                    number, self._steps, self._shared, self._clients, tickets=ticket_end, answers=answer_end
                )
                pool.start(loop)
            pool.answers(self._count, self._shared, timeout_s=_START_S)
        except BaseException:
            self.close()
            raise

    def _hand_out(self, job: TicketKind, count: int) -> int:
        """Let the workers begin *count* pieces of a job, and return how many answers they will give."""
        width = max(1, count // (_TICKETS_A_WORKER * self._count))
        ranges = [(start, min(start + width, count)) for start in range(0, count, width)]
        self._open_pool().hand_out(encode_tickets(job, self._stamp, ranges))
        return len(ranges)

    def _answers(self, count: int) -> list[Ticket]:
        return self._open_pool().answers(count, self._shared)

    def _open_pool(self) -> WorkerPool:
        if self._pool is None:
            raise RuntimeError("the engine was closed while it trained")
        return self._pool

    @contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        """Let the next round start new workers if this one leaves tickets in the pipe and rows half done."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _train_rows(self, count: int, *, sums: bool, anew: bool) -> int:
        """Train the slice's rows, and return how many of the first ones were summed as well.

        Who finds no client left to train sums what is there, while the last clients are still trained.

        Raises:
            ClientTrainingError: A client failed.
        """
        self._stamp = (self._stamp + 1) % 2**32
        with self._closing_on_failure():
            tickets = self._hand_out(TicketKind.TRAIN, count)
            last = min(self._count - 1, tickets)
            trained = np.zeros(count + 1, dtype=bool)
            for answer in self._answers(tickets - last):
                trained[self._shared.order[answer.start : answer.stop]] = True
            first = int(np.argmin(trained))
            summing = 0
            if sums and self._is_worth_sharing(first):
                self._shared.begin_sums(0, first, anew=anew)
                summing = self._hand_out(TicketKind.SUM, len(self._shared.blocks))
            self._answers(last + summing)
        return first if summing else 0

    def _sum(self, start: int, stop: int, *, anew: bool) -> None:
        self._shared.begin_sums(start, stop, anew=anew)
        blocks = len(self._shared.blocks)
        if self._is_worth_sharing(stop - start):
            with self._closing_on_failure():
                self._answers(self._hand_out(TicketKind.SUM, blocks))
        else:
            for number in range(blocks):
                self._shared.add_block(number)

    def _is_worth_sharing(self, rows: int) -> bool:
        return rows * self._shared.layout.row_bytes > 4 * _SUMMED_HERE


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
