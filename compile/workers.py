"""The pool of compile processes: one for each toolchain, kept warm between compiles.

Converters are slow to import (litert-torch about 4 s, coremltools about 5 s) and not made for threads, so each
toolchain has processes of its own. A second compile in the same pool pays for its work alone.
"""

import os
import selectors
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Self

from hedgerow.compile.errors import WorkerError
from hedgerow.compile.failures import decode_failure
from hedgerow.compile.messages import LINE_LIMIT_BYTES, Job, decode_line, progress_from
from hedgerow.decode import Fields, encode_json
from hedgerow.errors import DecodeError, HedgerowError
from hedgerow.interrupts import hold_interrupts
from hedgerow.progress import Report, silent

__all__ = ["Answer", "CompileWorkers", "Refuse"]

Answer = Callable[[str, Fields], None]
"""Called with each result: its kind (``artifact``, ``train_graph``, ``reference``, ``refused``) and its fields."""

Refuse = Callable[[Job, HedgerowError], None]
"""Called with a job that ended early, and why."""

_CHUNK_BYTES = 2**16
_TAIL_BYTES = 2000
_END_TIMEOUT_S = 10.0


class _Worker:
    """One process and its pipes."""

    def __init__(self, toolchain: str) -> None:
        self.toolchain = toolchain
        self.job: Job | None = None
        self.ready = self.ended = False
        self._buffer = b""
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        # Converters leave files behind when their process is ended, megabytes for each compile.
        self._scratch = tempfile.TemporaryDirectory(prefix="hedgerow-compile-", ignore_cleanup_errors=True)
        job_end, self._jobs = os.pipe()
        self.answers, answer_end = os.pipe()
        single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        scratch = {"TMPDIR": self._scratch.name}
        quiet = {"TQDM_DISABLE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONHASHSEED": "0"}
        main_thread = threading.current_thread() is threading.main_thread()
        arguments = (job_end, answer_end, os.getpid(), int(main_thread))
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hedgerow.compile.worker", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(job_end, answer_end),
                env={**os.environ, **single, **quiet, **scratch},
            )
        except BaseException:
            os.close(self._jobs)
            os.close(self.answers)
            self._log.close()
            self._scratch.cleanup()
            raise
        finally:
            os.close(job_end)
            os.close(answer_end)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def take(self, job: Job) -> None:
        """Begin a job."""
        self.job, self.ready = job, False
        self.send(job.encode())

    def send(self, payload: bytes) -> None:
        try:
            while payload:
                payload = payload[os.write(self._jobs, payload) :]
        except BrokenPipeError:
            pass  # the process has ended: reading the answers tells so

    def read(self) -> list[bytes] | None:
        """Return whole lines that have come, or None at the end of the process."""
        chunk = os.read(self.answers, _CHUNK_BYTES)
        if not chunk:
            self.ended = True
            return None
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        if len(self._buffer) > LINE_LIMIT_BYTES:
            raise DecodeError("message", f"at most {LINE_LIMIT_BYTES} bytes", f"{len(self._buffer)} bytes")
        return lines

    def last_output(self) -> str:
        """Return the last line that the process printed, for messages."""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode("utf-8", "replace")
        return (text.strip().splitlines() or [""])[-1][:300]

    def end(self) -> int | None:
        """Stop the process at once and free what it held; return its exit code."""
        if self.alive:
            self.process.kill()
        try:
            code: int | None = self.process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = None
        os.close(self._jobs)
        os.close(self.answers)
        self._log.close()
        self._scratch.cleanup()
        return code


class CompileWorkers:
    """Warm compile processes; a context manager. Use one pool from one thread at a time.

    Args:
        jobs: How many processes there may be; a toolchain gets several when its work is left waiting, and a process
            ends when another toolchain needs its place. None: one for each toolchain.
    """

    def __init__(self, *, jobs: int | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"expected at least one job, found {jobs}")
        self._jobs = jobs
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        while self._workers:
            self._workers.pop().end()

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Ids of the processes that run now."""
        return tuple(worker.process.pid for worker in self._workers if worker.alive)

    def warm(self, toolchains: Iterable[str]) -> None:
        """Start processes and let them import their toolchains while the caller does something else."""
        self._drop_ended()
        for toolchain in sorted(set(toolchains)):
            if not any(worker.toolchain == toolchain for worker in self._workers):
                self._start(toolchain).send(encode_json({"warm": {"toolchain": toolchain}}) + b"\n")

    def _start(self, toolchain: str) -> _Worker:
        # An interrupt between a process's start and its place in the list would leave it to nobody.
        with hold_interrupts():
            worker = _Worker(toolchain)
            self._workers.append(worker)
        return worker

    def _drop_ended(self) -> None:
        for worker in [worker for worker in self._workers if worker.job is None and not worker.alive]:
            self._end(worker)

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.end()

    def run(
        self,
        jobs: Sequence[Job],
        answer: Answer,
        report: Report = silent,
        *,
        refuse: Refuse | None = None,
        more: Callable[[], Sequence[Job]] | None = None,
    ) -> None:
        """Do all *jobs*, in parallel, and return when the last one is done.

        Args:
            jobs: What to do; of one toolchain's, the first is begun first.
            answer: Takes every result.
            report: Takes progress.
            refuse: Called when a job ends early although its task and checkpoint are right: its process ended, or
                a bug was met. The other jobs go on. None: that is an error like any other.
            more: Asked for further jobs whenever one has ended.

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
                        selector.register(worker.answers, selectors.EVENT_READ, worker)
                    for key, _events in selector.select():
                        worker = key.data
                        ended = worker.job
                        try:
                            finished = self._take(worker, answer, report)
                        except _JobFailedError as exc:
                            finished = True
                            if refuse is None or ended is None or not worker.ready:
                                raise exc.error from None
                            refuse(ended, exc.error)
                        if finished:
                            selector.unregister(worker.answers)
                            worker.job = None
                            if worker.ended:
                                self._end(worker)
                            waiting += more() if more is not None else ()
            except BaseException:
                # A stopped job leaves its process in an unknown state; the next compile starts a new one. A process
                # that answered with an error is idle, and stays warm.
                for worker in [worker for worker in self._workers if worker.job is not None]:
                    self._end(worker)
                raise

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
        lines = worker.read()
        if lines is None:
            said = worker.last_output()
            work = worker.job.work if worker.job else worker.toolchain
            raise _JobFailedError(WorkerError(work, _exit_code(worker), said))
        for line in lines:
            kind, fields = decode_line(line)
            if kind == "progress":
                report(progress_from(fields))
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


class _JobFailedError(Exception):
    """Carries why a job ended early from where it is read to where it is judged."""

    def __init__(self, error: HedgerowError) -> None:
        super().__init__(str(error))
        self.error = error


def _exit_code(worker: _Worker) -> int | None:
    try:
        return worker.process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None
