"""The pool of compile processes: one for each toolchain, kept warm between compiles.

Converters are slow to import (litert-torch about 4 s, coremltools about 5 s) and not made for threads, so each
toolchain has a process of its own. A second compile in the same pool pays for its work alone.
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
from hedgerow.errors import DecodeError
from hedgerow.progress import Report, silent

__all__ = ["Answer", "CompileWorkers"]

Answer = Callable[[str, Fields], None]
"""Called with each result of a job: its kind (``artifact``, ``train_graph``, ``reference``) and its fields."""

_CHUNK_BYTES = 2**16
_TAIL_BYTES = 2000
_END_TIMEOUT_S = 10.0


class _Worker:
    """One process and its pipes."""

    def __init__(self, toolchain: str) -> None:
        self.toolchain = toolchain
        self.job: Job | None = None
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
        jobs: How many processes work at once; None: one for each toolchain. With 1, a process ends when its job is
            done, so that no two toolchains are in memory together.
    """

    def __init__(self, *, jobs: int | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"expected at least one job, found {jobs}")
        self._jobs = jobs
        self._workers: dict[str, _Worker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        while self._workers:
            self._workers.popitem()[1].end()

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Ids of the processes that run now."""
        return tuple(worker.process.pid for worker in self._workers.values() if worker.alive)

    def warm(self, toolchains: Iterable[str]) -> None:
        """Start processes and let them import their toolchains while the caller does something else."""
        for toolchain in sorted(set(toolchains)):
            if toolchain not in self._workers:
                self._worker(toolchain).send(encode_json({"warm": {"toolchain": toolchain}}) + b"\n")

    def _worker(self, toolchain: str) -> _Worker:
        worker = self._workers.get(toolchain)
        if worker is not None and not worker.alive:
            worker.end()
            worker = None
        if worker is None:
            worker = self._workers[toolchain] = _Worker(toolchain)
        return worker

    def run(self, jobs: Sequence[Job], answer: Answer, report: Report = silent) -> None:
        """Do all *jobs*, in parallel, and return when the last one is done.

        Args:
            jobs: At most one for each toolchain.
            answer: Takes every result.
            report: Takes progress.

        Raises:
            HedgerowError: A job failed; the other jobs are stopped.
            WorkerError: A process ended without an answer.
        """
        waiting, busy = list(jobs), set[str]()
        limit = self._jobs or len(waiting)
        with selectors.DefaultSelector() as selector:
            try:
                while waiting or busy:
                    while waiting and len(busy) < limit:
                        job = waiting.pop(0)
                        worker = self._worker(job.toolchain)
                        worker.job = job
                        worker.send(job.encode())
                        selector.register(worker.answers, selectors.EVENT_READ, worker)
                        busy.add(job.toolchain)
                    for key, _events in selector.select():
                        finished = self._take(key.data, answer, report)
                        if finished:
                            selector.unregister(key.data.answers)
                            busy.remove(key.data.toolchain)
                            self._release(key.data, len(jobs))
            except BaseException:
                # A stopped job leaves its process in an unknown state; the next compile starts a new one. A process
                # that answered with an error is idle, and stays warm.
                for toolchain in busy:
                    if self._workers[toolchain].job is not None:
                        self._workers.pop(toolchain).end()
                raise

    def _release(self, worker: _Worker, jobs: int) -> None:
        worker.job = None
        if self._jobs is not None and self._jobs < jobs:
            self._workers.pop(worker.toolchain).end()

    @staticmethod
    def _take(worker: _Worker, answer: Answer, report: Report) -> bool:
        """Handle what a worker said; return whether its job is done."""
        lines = worker.read()
        if lines is None:
            said = worker.last_output()
            raise WorkerError(worker.job.work if worker.job else worker.toolchain, _exit_code(worker), said)
        for line in lines:
            kind, fields = decode_line(line)
            if kind == "progress":
                report(progress_from(fields))
            elif kind == "failed":
                worker.job = None
                raise decode_failure(fields)
            elif kind == "finished":
                return True
            elif kind != "warmed":
                answer(kind, fields)
        return False


def _exit_code(worker: _Worker) -> int | None:
    try:
        return worker.process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None
