"""A release is tried in a process of its own before it may be loaded into the agent's.

A runtime is native code, and a file that it does not expect can end the process, hang it or take all memory. So a
child process, bounded in time and memory, loads the artifact and replays the golden samples first, while the agent
serves on. Success is what the child produced: a document that names the very bytes that it tried. The other side is in
trial_child.py.
"""

import signal
import sys
from collections.abc import Callable
from typing import Protocol

from hedgerow.children.conversation import converse
from hedgerow.children.ended import Ended, signal_name
from hedgerow.children.module_child import ModuleChild
from hedgerow.children.output import OutputTail
from hedgerow.client.errors import StoppedError, TrialFailedError, TrialRejectedError
from hedgerow.client.loading import LoadRuntime, try_model, try_train_graph
from hedgerow.client.runtimes import load_runtime
from hedgerow.client.slot_folders import OpenSlot
from hedgerow.decode import SHA256, Fields, decode_json, encode_json
from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Blob

__all__ = ["ChildTrials", "DirectTrials", "Trials"]

_MESSAGE_LIMIT_BYTES = 2**20
_REASON_LIMIT_CHARS = 64 * 1024
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


class _Heard:
    """What a child said of its trial."""

    def __init__(self, child: ModuleChild, enter: Enter) -> None:
        self._child, self._enter = child, enter
        child.doing = "start"
        self.verdict: Fields | None = None
        self.kind = self.nonsense = ""

    def take(self, message: bytes) -> None:
        """Take a message, which is a step or the verdict."""
        try:
            fields = decode_json(message, "trial", limit_bytes=_MESSAGE_LIMIT_BYTES)
            name = next((name for name in _SAID if name in fields.names()), None)
            if name is None:
                self.nonsense = f"neither of {', '.join(_SAID)}"
                return
            if name == "step":
                self._child.doing = fields.choice("step", _STEPS)
                self._enter(self._child.doing)
            else:
                self.kind, self.verdict = name, fields.nested(name)
            fields.finish()
        except DecodeError as exc:
            self.nonsense = str(exc)


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
        }
        heard, ended = self._run(encode_json(request), enter)
        try:
            self._judge(heard, ended, what, slot, blob, runtime)
        except DecodeError as exc:
            raise TrialFailedError(
                f"expected a verdict on {slot.manifest.release}, found none that can be read ({exc})"
            ) from exc

    def _judge(self, heard: _Heard, ended: Ended, what: str, slot: OpenSlot, blob: Blob, runtime: str) -> None:
        release = slot.manifest.release
        wanted = f"expected the {what} of {release} to run with {runtime} in a process of its own"
        said = f" ({ended.last_line})" if ended.last_line else ""
        if ended.timed_out:
            raise TrialFailedError(
                f"{wanted} within {self._timeout_s:g} s, found it in step {ended.doing} after that{said}; "
                "allow more time, or compile a smaller one"
            )
        # A process that does not even go by SIGKILL hangs in a driver.
        code = -signal.SIGKILL if ended.code is None else ended.code
        if code < 0:
            found = f"found that {signal_name(-code)} ended it in step {ended.doing}{said}"
            if -code in _FROM_OUTSIDE:
                raise TrialFailedError(f"{wanted}, {found}; see that the device has memory for it")
            raise TrialRejectedError(release, f"{wanted}, {found}; compile it anew, or for another runtime")
        if heard.kind == "refused" and heard.verdict is not None:
            reason = heard.verdict.text("reason", maximum_chars=_REASON_LIMIT_CHARS)
            is_final = heard.verdict.boolean("is_final")
            heard.verdict.finish()
            if is_final:
                raise TrialRejectedError(release, reason.removeprefix(f"{release} is refused: "))
            raise TrialFailedError(reason)
        digests = (slot.manifest_sha256, blob.sha256)
        nonsense = heard.nonsense or ended.nonsense
        if code == 0 and heard.kind == "passed" and heard.verdict is not None and not nonsense:
            found_digests = tuple(heard.verdict.text(name, pattern=SHA256) for name in ("manifest_sha256", "sha256"))
            heard.verdict.finish()
            if found_digests == digests:
                return
            raise TrialFailedError(f"{wanted}, found that other bytes were tried; install it again")
        found = nonsense and f", and what it said was none: {nonsense}"
        raise TrialFailedError(
            f"{wanted}, found that it ended with exit code {code} in step {ended.doing} and no result{found}{said}; "
            "it may be tried again"
        )

    def _run(self, request: bytes, enter: Enter) -> tuple[_Heard, Ended]:
        try:
            # No folder for temporary files: this disk may be full or worn, and the trial must take place.
            child = ModuleChild(
                "hedgerow.client.trial_child", limit_bytes=_MESSAGE_LIMIT_BYTES, name="a trial", output=OutputTail()
            )
        except OSError as exc:
            raise TrialFailedError(
                f"expected a child process to try the release in, found none ({exc}); it may be tried again"
            ) from exc
        heard = _Heard(child, enter)
        return heard, converse(child, request, heard.take, timeout_s=self._timeout_s, look=self._look)

    def _look(self) -> None:
        if self._pause(0):
            raise StoppedError


def _free_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)
