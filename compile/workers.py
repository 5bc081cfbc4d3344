"""The pool of compile processes: one for each toolchain, kept warm between compiles.

Converters are slow to import (litert-torch about 4 s, coremltools about 5 s) and not made for threads, so each
toolchain has processes of its own. A second compile in the same pool pays for its work alone.
"""

import math
import selectors
import time
from collections.abc import Callable, Iterable, Sequence

from hedgerow.children.child import numeric_threads
from hedgerow.children.module_child import ModuleChild
from hedgerow.children.output import OutputFile
from hedgerow.closing import Closing
from hedgerow.compile.errors import TimeLimitError, WorkerError
from hedgerow.compile.failures import decode_failure
from hedgerow.compile.messages import MESSAGE_LIMIT_BYTES, Job, decode_message, progress_from
from hedgerow.decode import Fields, encode_json
from hedgerow.errors import HedgerowError
from hedgerow.interrupts import hold_interrupts
from hedgerow.progress import Report, silent

__all__ = ["Answer", "CompileWorkers", "Refuse"]

Answer = Callable[[str, Fields], None]
"""Called with each result: its kind (``artifact``, ``train_graph``, ``reference``, ``refused``) and its fields."""

Refuse = Callable[[Job, HedgerowError], None]
"""Called with a job that ended early, and why."""

_END_TIMEOUT_S = 10.0


class _Worker:
    """One process and what it works on."""

    def __init__(self, toolchain: str) -> None:
        self.toolchain = toolchain
        self.job: Job | None = None
        self.ready = self.ended = False
        self.begun_s, self.last_step = 0.0, ""
        self.child = ModuleChild(
            "hedgerow.compile.worker",
            limit_bytes=MESSAGE_LIMIT_BYTES,
            name=f"the {toolchain} compiler",
            # A file: nobody listens to a process that warms itself up.
            output=OutputFile(),
            environment={
                **numeric_threads(1),
                "TQDM_DISABLE": "1",
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "PYTHONHASHSEED": "0",
            },
            # Converters leave files behind when their process is ended, megabytes for each compile.
            scratch=True,
        )

    def take(self, job: Job) -> None:
        """Begin a job."""
        self.job, self.ready = job, False
        self.begun_s, self.last_step = time.monotonic(), ""
        self.child.channel.send(job.encode())

    @property
    def elapsed_s(self) -> float:
        """How long it has worked on its job."""
        return time.monotonic() - self.begun_s

    @property
    def left_s(self) -> float:
        """How long it may still work on its job."""
        return self.job.limit_s - self.elapsed_s if self.job is not None else math.inf

    def read(self) -> list[bytes] | None:
        """Return messages that have come, or None at the end of the process."""
        messages = self.child.channel.take()
        self.ended = messages is None
        return messages


class CompileWorkers(Closing):
    """Warm compile processes. Use one pool from one thread at a time.

    Args:
        jobs: How many processes there may be; a toolchain gets several when its work is left waiting, and a process
            ends when another toolchain needs its place. None: one for each toolchain.
    """

    def __init__(self, *, jobs: int | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"expected at least one job, found {jobs}")
        self._jobs = jobs
        self._workers: list[_Worker] = []

    def close(self) -> None:
        """End all processes."""
        while self._workers:
            self._workers.pop().child.end()

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Ids of the processes that run now."""
        return tuple(worker.child.process_id for worker in self._workers if worker.child.is_running)

    def warm(self, toolchains: Iterable[str]) -> None:
        """Start processes and let them import their toolchains while the caller does something else."""
        self._drop_ended()
        for toolchain in sorted(set(toolchains)):
            if not any(worker.toolchain == toolchain for worker in self._workers):
                self._start(toolchain).child.channel.send(encode_json({"warm": {"toolchain": toolchain}}))

    def _start(self, toolchain: str) -> _Worker:
        # An interrupt between a process's start and its place in the list would leave it to nobody.
        with hold_interrupts():
            worker = _Worker(toolchain)
            self._workers.append(worker)
        return worker

    def _drop_ended(self) -> None:
        for worker in [worker for worker in self._workers if worker.job is None and not worker.child.is_running]:
            self._end(worker)

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.child.end()

    def run(
        self,
        jobs: Sequence[Job],
        answer: Answer,
        report: Report = silent,
        *,
        refuse: Refuse | None = None,
        more: Callable[[Job, float], Sequence[Job]] | None = None,
    ) -> None:
        """Do all *jobs*, in parallel, and return when the last one is done.

        Args:
            jobs: What to do; of one toolchain's, the first is begun first.
            answer: Takes every result.
            report: Takes progress.
            refuse: Called when a job ends early although its task and checkpoint are right: its process ended, it
                took longer than its limit, or a bug was met. The other jobs go on. None: that is an error like any
                other.
            more: Asked for further jobs whenever one has ended, and told how long that took, in seconds.

        Raises:
            HedgerowError: A job's task or checkpoint is wrong, or *answer* or *refuse* raised it; the other jobs are
                stopped.
            WorkerError: A process ended before it had read task and checkpoint, or there is no *refuse*.
        """
        waiting = list(jobs)
        with selectors.DefaultSelector() as selector:
            try:
                while waiting or any(worker.job for worker in self._workers):
                    while (found := self._choose(waiting)) is not None:
                        job, worker = found
                        waiting.remove(job)
                        worker.take(job)
                        selector.register(worker.child.channel, selectors.EVENT_READ, worker)
                    for worker in self._due(selector):
                        done = worker.job
                        if self._advance(worker, answer, report, refuse):
                            selector.unregister(worker.child.channel)
                            elapsed_s, worker.job = worker.elapsed_s, None
                            if worker.ended:
                                self._end(worker)
                            waiting += more(done, elapsed_s) if more is not None and done is not None else ()
            except BaseException:
                # A stopped job leaves its process in an unknown state; the next compile starts a new one. A process
                # that answered with an error is idle, and stays warm.
                for worker in [worker for worker in self._workers if worker.job is not None]:
                    self._end(worker)
                raise

    def _due(self, selector: selectors.BaseSelector) -> list[_Worker]:
        """Wait; return the workers that said something, and those whose time is over."""
        least_s = min(worker.left_s for worker in self._workers)
        said: list[_Worker] = [key.data for key, _events in selector.select(max(0.0, least_s))]
        return said + [worker for worker in self._workers if worker.left_s <= 0 and worker not in said]

    def _advance(self, worker: _Worker, answer: Answer, report: Report, refuse: Refuse | None) -> bool:
        """Handle what a worker said, or that its time is over; return whether its job is done.

        Raises:
            HedgerowError: The job ended early, and there is no *refuse* or the task and the checkpoint are to blame.
        """
        job, late = worker.job, worker.left_s <= 0
        try:
            return self._take(worker, answer, report) if not late else _stop(worker)
        except _JobFailedError as exc:
            if refuse is None or job is None or not (worker.ready or late):
                raise exc.error from None
            refuse(job, exc.error)
            return True

    def _choose(self, waiting: Sequence[Job]) -> tuple[Job, _Worker] | None:
        """Return a job that can begin now and who does it, or None."""
        self._drop_ended()
        idle = [worker for worker in self._workers if worker.job is None]
        for job in waiting:
            for worker in idle:
                if worker.toolchain == job.toolchain:
                    return job, worker
        toolchains = [worker.toolchain for worker in self._workers]
        names = [job.toolchain for job in waiting]
        # Nobody starts a second process of a toolchain for the reference alone: that takes longer than waiting.
        able = [
            job
            for job in waiting
            if job.toolchain not in toolchains or (self._jobs is not None and (job.artifacts or job.train_formats))
        ]
        if not able or (self._jobs is not None and len(self._workers) >= self._jobs and not idle):
            return None
        # The toolchain with the fewest processes first, then the one with the most waiting.
        job = min(able, key=lambda job: (toolchains.count(job.toolchain), -names.count(job.toolchain)))
        if self._jobs is not None and len(self._workers) >= self._jobs:
            self._end(idle[0])
        return job, self._start(job.toolchain)

    @staticmethod
    def _take(worker: _Worker, answer: Answer, report: Report) -> bool:
        """Handle what a worker said; return whether its job is done.

        Raises:
            _JobFailedError: It ended early.
        """
        messages = worker.read()
        if messages is None:
            work = worker.job.work if worker.job else worker.toolchain
            code = worker.child.end().code if worker.child.wait(_END_TIMEOUT_S) else None
            raise _JobFailedError(WorkerError(work, code, worker.child.end().last_line))
        for message in messages:
            kind, fields = decode_message(message)
            if kind == "progress":
                progress = progress_from(fields)
                worker.last_step = progress.note
                report(progress)
            elif kind == "ready":
                worker.ready = True
            elif kind == "failed":
                worker.job = None
                raise _JobFailedError(decode_failure(fields))
            elif kind == "finished":
                return True
            elif kind != "warmed":
                answer(kind, fields)
        return False


def _stop(worker: _Worker) -> bool:
    """End a worker whose time is over.

    Raises:
        _JobFailedError: Always; it says so.
    """
    worker.ended = True
    work, limit_s = (worker.job.work, worker.job.limit_s) if worker.job else (worker.toolchain, 0.0)
    raise _JobFailedError(TimeLimitError(work, limit_s, worker.last_step))


class _JobFailedError(Exception):
    """Carries why a job ended early from where it is read to where it is judged."""

    def __init__(self, error: HedgerowError) -> None:
        super().__init__(str(error))
        self.error = error
