"""A release is tried in a process of its own before it may be loaded into the agent's.

A runtime is native code, and a file that it does not expect can end the process, hang it or take all memory. So a
child process, bounded in time and memory, loads the artifact and replays the golden samples first, while the agent
serves on. Success is what the child produced: a document that names the very bytes that it tried. The other side is in
trial_child.py.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from hedgerow.client.errors import StoppedError, TrialFailedError, TrialRejectedError
from hedgerow.client.loading import LoadRuntime, try_model, try_train_graph
from hedgerow.client.runtimes import load_runtime
from hedgerow.client.slot_folders import OpenSlot
from hedgerow.decode import SHA256, Fields, decode_json, encode_json
from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Blob

__all__ = ["ChildTrials", "DirectTrials", "Trials"]

_ANSWER_LIMIT_BYTES = 64 * 1024
_TAIL_BYTES = 4096
_SAID_CHARS = 300
_POLL_S, _END_WAIT_S = 0.05, 5.0
_MODEL, _TRAIN_GRAPH = "model", "train graph"
_SAID = ("step", "passed", "refused")
_STEPS = {step: step for step in ("load", "replay", "step")}
_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""Signals that say nothing of the file: somebody, or a kernel without memory, ended the child."""

Enter = Callable[[str], None]


def _ignore(_step: str) -> None:
    pass


class Trials(Protocol):
    """Tries what is about to be loaded into this process."""

    def model(self, slot: OpenSlot, enter: Enter = _ignore) -> None:
        """Load a slot's artifact and replay its golden samples.

        Args:
            slot: Verified.
            enter: Told ``load`` and ``replay`` as each begins.

        Raises:
            RejectedError: This device must not run it.
            InstallError: It did not work, in a way that may pass.
            StoppedError: The agent is stopping.
        """

    def train_graph(self, slot: OpenSlot) -> None:
        """Load a slot's train graph and take one step; what passed once is not tried again.

        Raises:
            RejectedError, InstallError, StoppedError: As for :meth:`model`.
        """


class DirectTrials:
    """Tries in this process, unprotected: the public fake of the seam, for tests and for runtimes that are Python.

    Args:
        runtimes: Finds a runtime by name.
    """

    def __init__(self, runtimes: LoadRuntime = load_runtime) -> None:
        self._runtimes = runtimes

    def model(self, slot: OpenSlot, enter: Enter = _ignore) -> None:
        """Load a slot's artifact and replay its golden samples."""
        try_model(slot, self._runtimes, enter)

    def train_graph(self, slot: OpenSlot) -> None:
        """Load a slot's train graph and take one step."""
        try_train_graph(slot, self._runtimes, _ignore)


@dataclass(slots=True)
class _Heard:
    """What a child said and how it ended."""

    step: str = "start"
    verdict: Fields | None = None
    kind: str = ""
    nonsense: str = ""
    tail: bytes = b""
    timed_out: bool = False
    code: int = 0
    _buffer: bytes = field(default=b"", repr=False)

    def take(self, chunk: bytes, enter: Enter) -> None:
        """Take a piece of the answer; a line is a step or the verdict."""
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        if len(self._buffer) > _ANSWER_LIMIT_BYTES:
            self.nonsense, self._buffer = f"a line of more than {_ANSWER_LIMIT_BYTES} bytes", b""
        for line in lines:
            try:
                fields = decode_json(line, "trial", limit_bytes=_ANSWER_LIMIT_BYTES)
                name = next((name for name in _SAID if name in fields.names()), None)
                if name is None:
                    self.nonsense = f"neither of {', '.join(_SAID)}"
                elif name == "step":
                    self.step = fields.choice("step", _STEPS)
                    enter(self.step)
                else:
                    self.kind, self.verdict = name, fields.nested(name)
            except DecodeError as exc:
                self.nonsense = str(exc)

    def said(self) -> str:
        """Return the last line of what the child printed, in brackets; empty when it printed nothing."""
        lines = [line.strip() for line in self.tail.decode("utf-8", "replace").splitlines() if line.strip()]
        return f" ({lines[-1][:_SAID_CHARS]})" if lines else ""


class ChildTrials:
    """Tries in a child process with an interpreter of its own, one for each trial.

    Args:
        runtimes: Finds a runtime by name; a function of a module, since the child imports it.
        pause: Waits the seconds it is given; returns True when the agent is stopping.
        timeout_s: A trial that takes longer is ended.
        ram_bytes: Memory that a trial may take beyond what is mapped from files; None: what is free when it starts.
    """

    def __init__(
        self,
        runtimes: LoadRuntime = load_runtime,
        *,
        pause: Callable[[float], bool] = lambda _seconds: False,
        timeout_s: float = 60.0,
        ram_bytes: int | None = None,
    ) -> None:
        name = getattr(runtimes, "__qualname__", "<locals>")
        if "<" in name:
            raise ValueError(f"expected a function of a module, which a child process can import, not {name}")
        self._runtimes = f"{runtimes.__module__}:{name}"
        self._pause, self._timeout_s, self._ram_bytes = pause, timeout_s, ram_bytes
        self._passed: set[tuple[str, str]] = set()

    def model(self, slot: OpenSlot, enter: Enter = _ignore) -> None:
        """Load a slot's artifact and replay its golden samples."""
        self._try(_MODEL, slot, slot.artifact.blob, slot.artifact.runtime, enter)

    def train_graph(self, slot: OpenSlot) -> None:
        """Load a slot's train graph and take one step; what passed once is not tried again."""
        graph = slot.train_graph
        if graph is None or (slot.manifest_sha256, graph.blob.sha256) in self._passed:
            return
        self._try(_TRAIN_GRAPH, slot, graph.blob, graph.runtime, _ignore)
        self._passed.add((slot.manifest_sha256, graph.blob.sha256))

    def _try(self, what: str, slot: OpenSlot, blob: Blob, runtime: str, enter: Enter) -> None:
        ram_bytes = self._ram_bytes if self._ram_bytes is not None else _free_bytes()
        request = {
            "what": what,
            "folder": str(slot.folder),
            "target": slot.artifact.target,
            "release": slot.manifest.release,
            "manifest_sha256": slot.manifest_sha256,
            "runtimes": self._runtimes,
            "search_path": [path for path in sys.path if isinstance(path, str)],
            "ram_bytes": ram_bytes,
            "parent": os.getpid(),
        }
        heard = self._run(encode_json(request), enter)
        try:
            self._judge(heard, what, slot, blob, runtime)
        except DecodeError as exc:
            raise TrialFailedError(
                f"expected a verdict on {slot.manifest.release}, found none that can be read ({exc})"
            ) from exc

    def _judge(self, heard: _Heard, what: str, slot: OpenSlot, blob: Blob, runtime: str) -> None:
        release = slot.manifest.release
        wanted = f"expected the {what} of {release} to run with {runtime} in a process of its own"
        if heard.timed_out:
            raise TrialFailedError(
                f"{wanted} within {self._timeout_s:g} s, found it in step {heard.step} after that{heard.said()}; "
                "allow more time, or compile a smaller one"
            )
        if heard.code < 0:
            number = -heard.code
            name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
            found = f"found that {name} ended it in step {heard.step}{heard.said()}"
            if number in _FROM_OUTSIDE:
                raise TrialFailedError(f"{wanted}, {found}; see that the device has memory for it")
            raise TrialRejectedError(release, f"{wanted}, {found}; compile it anew, or for another runtime")
        if heard.kind == "refused" and heard.verdict is not None:
            reason = heard.verdict.text("reason", maximum_chars=_ANSWER_LIMIT_BYTES)
            if heard.verdict.boolean("is_final"):
                raise TrialRejectedError(release, reason.removeprefix(f"{release} is refused: "))
            raise TrialFailedError(reason)
        digests = (slot.manifest_sha256, blob.sha256)
        if heard.code == 0 and heard.kind == "passed" and heard.verdict is not None and not heard.nonsense:
            found_digests = tuple(heard.verdict.text(name, pattern=SHA256) for name in ("manifest_sha256", "sha256"))
            if found_digests == digests:
                return
            raise TrialFailedError(f"{wanted}, found that other bytes were tried; install it again")
        found = heard.nonsense and f", and what it said was none: {heard.nonsense}"
        raise TrialFailedError(
            f"{wanted}, found that it ended with exit code {heard.code} in step {heard.step} and no result{found}"
            f"{heard.said()}; it may be tried again"
        )

    def _run(self, request: bytes, enter: Enter) -> _Heard:
        answers, answer_end = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hedgerow.client.trial_child", str(answer_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(answer_end,),
                # A terminal's Ctrl-C is for the agent, which ends the trial itself.
                start_new_session=True,
            )
        except OSError as exc:
            os.close(answers)
            raise TrialFailedError(
                f"expected a child process to try the release in, found none ({exc}); it may be tried again"
            ) from exc
        finally:
            os.close(answer_end)
        with _ended(process):
            heard = _Heard()
            try:
                self._listen(process, answers, request, heard, enter)
            finally:
                os.close(answers)
        # A process that does not even go by SIGKILL hangs in a driver.
        heard.code = process.returncode if process.returncode is not None else -signal.SIGKILL
        return heard

    def _listen(
        self, process: "subprocess.Popen[bytes]", answers: int, request: bytes, heard: _Heard, enter: Enter
    ) -> None:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the child was started without pipes")
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(request)
        deadline = time.monotonic() + self._timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(answers, selectors.EVENT_READ)
            selector.register(process.stdout, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(_POLL_S)
                for key, _events in ready:
                    chunk = os.read(key.fd, _ANSWER_LIMIT_BYTES)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif key.fd == answers:
                        heard.take(chunk, enter)
                    else:
                        heard.tail = (heard.tail + chunk)[-_TAIL_BYTES:]
                if self._pause(0):
                    raise StoppedError
                if time.monotonic() > deadline:
                    heard.timed_out = True
                    return
                # A process that the child left behind may hold the pipes open for ever.
                if not ready and _is_over(process):
                    return
        while not _is_over(process):
            if self._pause(_POLL_S):
                raise StoppedError
            if time.monotonic() > deadline:
                heard.timed_out = True
                return


def _is_over(process: "subprocess.Popen[bytes]") -> bool:
    # Not poll(): until the child is waited for, its process group is nobody else's, and can be ended as a whole.
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@contextlib.contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End a process and all that it started, however the block is left."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_WAIT_S)


def _free_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)
