"""How answers leave the agent: each sink in a thread of its own, behind a bounded queue.

A sink is somebody else's code, and a pipe may have a reader that sleeps. Neither may hold up the next sample: when the
queue is full, the oldest answer is dropped, since who acts on answers wants the newest.
"""

import json
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

from hedgerow.client.answer import Answer
from hedgerow.client.errors import SinkError
from hedgerow.client.health import Health, Part
from hedgerow.client.source import Sink

__all__ = ["AnswerLines", "Outlet"]

_log = logging.getLogger(__name__)
_LIMIT_ANSWERS = 100


class Outlet:
    """Hands answers to one sink, in order, from a thread of its own.

    Args:
        sink: Gets each answer; what it raises is noted, and the next answer comes all the same.
        health: Is told what works and what does not.
        limit_answers: So many wait at most; the oldest are dropped beyond this.
    """

    def __init__(self, sink: Sink, health: Health, *, limit_answers: int = _LIMIT_ANSWERS) -> None:
        self._sink, self._health, self._limit = sink, health, limit_answers
        self._waiting: deque[Answer] = deque()
        self._is_busy = self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, answer: Answer) -> None:
        """Queue an answer; never waits."""
        with self._changed:
            self._waiting.append(answer)
            is_over = len(self._waiting) > self._limit
            if is_over:
                self._waiting.popleft()
            self._changed.notify_all()
        if is_over:
            self._health.failed(
                Part.SINK,
                SinkError(f"expected a sink that keeps up, found {self._limit} answers waiting; the oldest is dropped"),
            )

    def close(self, timeout_s: float) -> None:
        """Hand over what waits, for at most *timeout_s*, and end the thread; a sink that hangs is left behind."""
        with self._changed:
            if self._thread.is_alive():
                self._changed.wait_for(lambda: not self._waiting and not self._is_busy, timeout_s)
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                answer = self._waiting.popleft()
                self._is_busy = True
            try:
                self._sink(answer)
            # The user's code may raise anything: sys.exit() is no Exception, and would end the thread in silence.
            except BaseException as exc:  # noqa: BLE001 - it is noted
                self._health.failed(Part.SINK, exc)
            else:
                self._health.worked(Part.SINK)


class AnswerLines:
    """A sink that writes each answer to standard output, or another file, as a line of JSON, at once.

    Args:
        file: What is written to.
        on_closed: Called once when nobody reads any more.

    Attributes:
        is_closed: Whether the reader has gone.
    """

    def __init__(self, file: TextIO, on_closed: Callable[[], None]) -> None:
        self._file, self._on_closed = file, on_closed
        self.is_closed = False

    def __call__(self, answer: Answer) -> None:
        """Write one line."""
        if self.is_closed:
            return
        line = json.dumps(answer.to_record(), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except BrokenPipeError:
            self.is_closed = True
            _log.warning("nobody reads the answers on standard output any more")
            self._on_closed()
