"""The serving thread: takes samples from the source, one after another, answers them, and never ends by itself.

Whatever goes wrong is named by what was being tried, and the next sample is taken. A source that raises or ends is
called again, after a pause that grows.
"""

import logging
import operator
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from hedgerow.client.answer import Answer
from hedgerow.client.buffer import LabelledBuffer
from hedgerow.client.errors import PredictionError, SourceError
from hedgerow.client.health import Health, Part
from hedgerow.client.serving import ActiveModel
from hedgerow.client.source import Sample, Source, SourceContext
from hedgerow.errors import InputError
from hedgerow.outputs.wanted import as_given
from hedgerow.weights import Arrays

__all__ = ["Stream", "next_pause_s"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _RAN_WELL_S = 1.0, 60.0, 60.0
_NUMBERS = "biuf"
_UNKNOWN_LABEL = -1
_STREAM_CHARS = 64


def next_pause_s(previous_s: float, ran_s: float) -> float:
    """Return how long to wait before the source is called again, in seconds.

    Args:
        previous_s: The pause before this call; 0 before the first.
        ran_s: How long the source ran; one that ran for a minute ran well, and the pauses begin anew.
    """
    if previous_s == 0 or ran_s >= _RAN_WELL_S:
        return _FIRST_PAUSE_S
    return min(_LONGEST_PAUSE_S, 2 * previous_s)


class Stream:
    """Serves what a source yields.

    Args:
        source: The user's.
        context: What it is told.
        active: Predicts and counts.
        buffer: Keeps what is there to learn from.
        health: Is told what works and what does not.
        pause: Waits the seconds it is given; returns True when the agent is stopping.
        sinks: Get every answer; must be quick.
        timer: Rising seconds.
    """

    def __init__(
        self,
        source: Source,
        context: SourceContext,
        active: ActiveModel,
        buffer: LabelledBuffer,
        health: Health,
        *,
        pause: Callable[[float], bool],
        timer: Callable[[], float],
        sinks: Sequence[Callable[[Answer], object]] = (),
    ) -> None:
        self._source, self._context, self._active, self._buffer = source, context, active, buffer
        self._health, self._pause, self._timer, self._sinks = health, pause, timer, sinks

    def run(self) -> None:
        """Serve until the agent stops."""
        pause_s = 0.0
        while not self._pause(pause_s):
            began = self._timer()
            try:
                self._serve()
            except SourceError as exc:
                pause_s = next_pause_s(pause_s, self._timer() - began)
                self._health.failed(Part.SOURCE, exc.__cause__ or exc)
                _log.debug("the source is called again in %g s", pause_s)
            # The thread's outermost step: a fault of ours must not end serving either, of whatever class.
            except BaseException:  # noqa: BLE001 - it is logged
                pause_s = _LONGEST_PAUSE_S
                _log.exception("serving failed by a fault of the agent; it goes on in %g s", pause_s)

    def _serve(self) -> None:
        """Call the source and serve what it gives.

        Raises:
            SourceError: It raised or ended.
        """
        samples = _ask(lambda: _iterator(self._source(self._context)))
        sample = _ask(lambda: next(samples))
        while True:
            self._health.worked(Part.SOURCE)
            answer = self.take(sample)
            if self._pause(0.0):
                if isinstance(samples, Generator):
                    _ask(samples.close)
                return
            sample = _following(samples, answer)

    def take(self, sample: Sample) -> Answer | None:
        """Serve or keep one sample; return the answer, or None when there is none.

        Nothing that goes wrong is raised: it is noted under the name of what was tried.
        """
        try:
            inputs, given = _checked(sample)
            if sample.use == "learn":
                self._learn(inputs, given)
                return None
            if sample.begins:
                self._active.reset(sample.stream)
            answer = self._active.answer(inputs, given, sample.stream)
        except InputError as exc:
            self._health.failed(Part.SAMPLE, exc)
            return None
        except PredictionError as exc:
            _log.debug("%s", exc)
            return None
        self._health.worked(Part.SAMPLE)
        if answer is not None:
            for sink in self._sinks:
                sink(answer)
        return answer

    def _learn(self, inputs: Arrays, given: Arrays) -> None:
        # Without a target value a sample teaches only what learns from inputs alone.
        if not given and not self._active.learns_alone:
            return
        try:
            self._buffer.add(inputs, given)
        except Exception as exc:  # noqa: BLE001 - it is noted; what cannot be learned from must not end serving
            self._health.failed(Part.BUFFER, exc)
            return
        self._health.worked(Part.BUFFER)


def _iterator(samples: Iterable[Sample]) -> Iterator[Sample]:
    try:
        return iter(samples)
    except TypeError:
        raise SourceError(
            f"expected a source that yields samples, found one that returned {type(samples).__name__}; yield them"
        ) from None


def _following(samples: Iterator[Sample], answer: Answer | None) -> Sample:
    """Return the next sample; a generator gets the answer to the last one."""
    if not isinstance(samples, Generator):
        return _ask(lambda: next(samples))
    following: Sample = _ask(lambda: samples.send(answer))
    return following


def _ask(step: Callable[[], T]) -> T:
    """Run a step of the user's code.

    Raises:
        SourceError: It raised, with what it raised as the cause, or it ended.
    """
    try:
        return step()
    except StopIteration:
        raise SourceError(
            "expected a source that yields samples for ever, found that it ended; it is called again"
        ) from None
    except SourceError:
        raise
    # It may raise anything: sys.exit() and what asyncio cancels are no Exception, and would end the thread in silence.
    except BaseException as exc:
        raise SourceError(f"expected samples, found {type(exc).__name__}: {exc}; correct the source") from exc


def _checked(sample: Sample) -> tuple[Arrays, Arrays]:
    """Return a sample's inputs as arrays, and what was given as its target values.

    Raises:
        InputError: It is no sample.
    """
    if not isinstance(sample, Sample):
        raise InputError(f"expected a hedgerow.client.Sample, found {type(sample).__name__}; yield samples")
    if not isinstance(sample.use, str) or sample.use not in {"serve", "learn"}:
        raise InputError(f"expected a sample to serve or to learn, found the use {sample.use!r}; correct the source")
    if not isinstance(sample.stream, str) or len(sample.stream) > _STREAM_CHARS or type(sample.begins) is not bool:
        raise InputError(
            f"expected a stream of at most {_STREAM_CHARS} characters and begins as True or False, found others; "
            "correct the source"
        )
    label = _label(sample.label)
    if label is None:
        return _arrays(sample.inputs), as_given(sample.target_value)
    if sample.target_value is not None:
        raise InputError("expected a label or a target value, found both; leave one out")
    return _arrays(sample.inputs), as_given(label)


def _arrays(inputs: Any) -> Arrays:
    try:
        arrays = {str(name): np.asarray(values) for name, values in inputs.items()}
    except Exception as exc:
        # Without its text, which may quote the sample: a refusal is told to the fleet.
        raise InputError(f"expected a mapping of names to arrays, found a {type(exc).__name__}") from exc
    for name, values in arrays.items():
        if values.dtype.kind not in _NUMBERS:
            raise InputError(f"{name}: expected an array of numbers, found the dtype {values.dtype}")
    return arrays


def _label(label: Any) -> int | None:
    if label is None:
        return None
    try:
        known = operator.index(label)
    except TypeError:
        raise InputError(f"expected a label that is a whole number or None, found {type(label).__name__}") from None
    if not _UNKNOWN_LABEL <= known < 2**31:
        raise InputError(f"expected a label from 0 to {2**31 - 1}, found one outside")
    return known if known != _UNKNOWN_LABEL else None
