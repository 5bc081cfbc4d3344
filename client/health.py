"""What fails on a device now: named by what was tried, said once, counted, and said again when it is over.

A sensor may ask fifty times a second, so whatever fails with each sample must not write a line with each. The rules
(:func:`after_failure`, :func:`after_success`) are pure; :class:`Health` keeps them for every part, from any thread.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from hedgerow.errors import HedgerowError

__all__ = ["Health", "Part", "Trouble", "after_failure", "after_success"]

_log = logging.getLogger(__name__)
_REMIND_S = 3600.0
_FIRST_CALM_S, _LONGEST_CALM_S = 5.0, 300.0
_REASON_CHARS = 200


class Part(StrEnum):
    """What was being tried. The name is what the fleet sees."""

    SOURCE = "source"
    SAMPLE = "sample"
    MODEL = "model"
    COUNTING = "counting"
    COMPARISON = "comparison"
    WINDOWS = "windows"
    BUFFER = "buffer"
    SINK = "sink"
    STATE = "state"
    LINK = "link"
    MESSAGE = "message"


_PHRASES = {
    Part.SOURCE: ("the source failed", "the source gives samples again", "calls failed"),
    Part.SAMPLE: ("a sample of the source was refused", "samples are taken again", "were refused"),
    Part.MODEL: ("the model failed to predict", "the model predicts again", "predictions failed"),
    Part.COUNTING: (
        "counting a prediction failed; its answer was given",
        "predictions are counted again",
        "were not counted",
    ),
    Part.COMPARISON: (
        "the release before could not be run beside the active one",
        "releases are compared again",
        "comparisons failed",
    ),
    Part.WINDOWS: ("a window could not be written", "windows are written again", "were not written at once"),
    Part.BUFFER: ("a labelled sample could not be kept", "labelled samples are kept again", "were lost"),
    Part.SINK: ("an answer could not be handed on", "answers are handed on again", "were lost"),
    Part.STATE: (
        "the state folder cannot be written; what is installed is served on",
        "the state folder is written again",
        "attempts failed",
    ),
    Part.LINK: ("a message could not be sent", "messages are sent again", "were not sent"),
    Part.MESSAGE: ("a message of the fleet was refused", "messages of the fleet are understood again", "were refused"),
}
"""What the log says of the first failure and of the end, and what was counted meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One part's failures, from the first to the end of their last echo.

    Attributes:
        reason: The reason of the first one.
        told: The reason of the first one, as the fleet hears it.
        since, last: When the first and the latest failed, in seconds of a clock that does not go back.
        failures: How many.
        said_at: When the log was told last.
        calm_s: It is over when a success comes this long after the latest failure. It doubles with each relapse, so
            that what fails now and then does not come and go for ever.
        is_over: Whether it is.
    """

    reason: str
    told: str = ""
    since: float
    last: float
    failures: int = 1
    said_at: float = 0.0
    calm_s: float = _FIRST_CALM_S
    is_over: bool = False


def after_failure(trouble: Trouble | None, reason: str, now: float, told: str = "") -> tuple[Trouble, bool]:
    """Return the trouble after one more failure, and whether to say so."""
    if trouble is None or trouble.is_over:
        is_relapse = trouble is not None and now - trouble.last <= _LONGEST_CALM_S
        calm_s = min(_LONGEST_CALM_S, trouble.calm_s * 2) if trouble is not None and is_relapse else _FIRST_CALM_S
        return Trouble(reason=reason, told=told, since=now, last=now, said_at=now, calm_s=calm_s), True
    is_due = now - trouble.said_at >= _REMIND_S
    said_at = now if is_due else trouble.said_at
    return replace(trouble, last=now, failures=trouble.failures + 1, said_at=said_at), is_due


def after_success(trouble: Trouble, now: float) -> tuple[Trouble, bool]:
    """Return the trouble after a success, and whether that ended it."""
    is_end = not trouble.is_over and now - trouble.last >= trouble.calm_s
    return (replace(trouble, is_over=True), True) if is_end else (trouble, False)


class Health:
    """What works and what does not. May be used from any thread.

    Args:
        on_change: Called whenever :attr:`problems` changed, from the thread that noticed; must be quick.
        timer: Rising seconds.
    """

    def __init__(
        self, on_change: Callable[[], None] = lambda: None, *, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_change, self._timer = on_change, timer
        self._lock = threading.Lock()
        self._troubles: dict[Part, Trouble] = {}
        # What a success has to look at; almost always nothing.
        self._failing: frozenset[Part] = frozenset()

    @property
    def failing(self) -> frozenset[Part]:
        """The parts that do not work now."""
        return self._failing

    @property
    def problems(self) -> tuple[str, ...]:
        """``part: reason`` of each part that does not work now, sorted; what is told to the fleet.

        The text of an exception that is not Hedgerow's own stays in the log, for it may quote a sample.
        """
        with self._lock:
            return tuple(
                f"{part}: {trouble.told}" for part, trouble in sorted(self._troubles.items()) if not trouble.is_over
            )

    def failed(self, part: Part, exc: BaseException | str) -> None:
        """Note that *part* failed; the log hears of the first failure, and of how many there were an hour later."""
        reason = exc if isinstance(exc, str) else _reason(exc)
        told = reason if isinstance(exc, str | HedgerowError) else _told(exc)
        with self._lock:
            trouble, is_news = after_failure(self._troubles.get(part), reason, self._timer(), told)
            self._troubles[part] = trouble
            is_changed = self._update()
        if is_news and trouble.failures == 1:
            # A known error says all in its sentence; anything else is somebody's bug, and they want to know where.
            bug = None if isinstance(exc, str | HedgerowError | OSError) else exc
            _log.error("%s: %s", _PHRASES[part][0], reason, exc_info=bug)
        elif is_news:
            first, _works, counted = _PHRASES[part]
            lasted = _duration(trouble.last - trouble.since)
            _log.error("%s: %s; by now %s %s in %s", first, trouble.reason, f"{trouble.failures:,}", counted, lasted)
        if is_changed:
            self._on_change()

    def worked(self, part: Part) -> None:
        """Note that *part* did what it is for."""
        if part not in self._failing:
            return
        with self._lock:
            trouble, is_end = after_success(self._troubles[part], self._timer())
            self._troubles[part] = trouble
            is_changed = self._update()
        if is_end:
            _failed, works, counted = _PHRASES[part]
            lasted = _duration(trouble.last - trouble.since)
            _log.info("%s; %s %s in %s", works, f"{trouble.failures:,}", counted, lasted)
        if is_changed:
            self._on_change()

    def forget(self, *parts: Part) -> None:
        """Drop what is known of *parts*: they were replaced."""
        with self._lock:
            for part in parts:
                self._troubles.pop(part, None)
            is_changed = self._update()
        if is_changed:
            self._on_change()

    def _update(self) -> bool:
        failing = frozenset(part for part, trouble in self._troubles.items() if not trouble.is_over)
        is_changed = failing != self._failing
        self._failing = failing
        return is_changed


def _reason(exc: BaseException) -> str:
    text = " ".join(str(exc).split())
    known = isinstance(exc, HedgerowError)
    reason = text if known and text else f"{type(exc).__name__}: {text}" if text else type(exc).__name__
    return reason if len(reason) <= _REASON_CHARS else reason[: _REASON_CHARS - 3] + "..."


def _told(exc: BaseException) -> str:
    name = type(exc).__name__
    return f"{name}: {exc.strerror}" if isinstance(exc, OSError) and exc.strerror else name


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
