"""The active model at work: predict, run the model before in its shadow, count, cut windows.

The answer comes first: whatever goes wrong with comparing, counting or storing is noted under its own name
(:mod:`hedgerow.client.health`), and the answer is given all the same.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.client.answer import Answer, make_answer
from hedgerow.client.errors import PredictionError
from hedgerow.client.health import Health, Part
from hedgerow.client.loading import ReadyModel
from hedgerow.client.streams import Streams
from hedgerow.errors import InputError
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs.wanted import as_declared, as_given_rows
from hedgerow.weights import Arrays
from hedgerow.window import Window, WindowCounter

__all__ = ["ActiveModel"]

_NO_SCHEMA = ModelSchema((), ())
_OF_THE_MODEL = (Part.MODEL, Part.COUNTING, Part.COMPARISON)


class ActiveModel:
    """What serves. May be used from any thread; a change of the model waits for the prediction in progress.

    Args:
        window_samples: A window is cut after exactly this many predictions.
        on_window: Gets each window; called while serving waits, so it only stores. When it raises, the window is lost.
        health: Is told what works and what does not.
        clock: Unix time in seconds.
        timer: Rising seconds, for latencies.
    """

    def __init__(
        self,
        window_samples: int,
        on_window: Callable[[Window], None],
        *,
        health: Health | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        if window_samples < 1:
            raise ValueError(f"window_samples must be at least 1, not {window_samples}")
        self._window_samples, self._on_window = window_samples, on_window
        self._health = health if health is not None else Health()
        self._clock, self._timer = clock, timer
        self._lock = threading.Lock()
        self._active: ReadyModel | None = None
        self._shadow: ReadyModel | None = None
        self._streams = self._shadow_streams = Streams(_NO_SCHEMA)
        self._counter: WindowCounter | None = None
        self._next_index = 0
        self._asked_at: float | None = None

    @property
    def release(self) -> str | None:
        """The release that serves, or None."""
        active = self._active
        return active.release if active else None

    @property
    def busy_s(self) -> float:
        """How long the prediction in progress has taken so far, in seconds; 0 when there is none."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else self._timer() - asked_at

    @property
    def learns_alone(self) -> bool:
        """Whether something serves that is trained on inputs alone."""
        active = self._active
        return active is not None and active.slot.manifest.model_schema.answers.learns_alone

    def compare(self, active: ReadyModel, shadow: ReadyModel | None) -> None:
        """Run *shadow* on the same inputs and compare, for as long as *active* is the one that serves; None: stop."""
        with self._lock:
            if active is self._active:
                self._shadow = shadow
                self._shadow_streams = Streams(_NO_SCHEMA if shadow is None else shadow.slot.manifest.model_schema)
                self._health.forget(Part.COMPARISON)

    def activate(self, active: ReadyModel | None) -> None:
        """Serve with *active* from the next prediction on; the window of the model before is cut.

        Args:
            active: None: serve nothing.
        """
        with self._lock:
            self._cut()
            self._active, self._shadow, self._counter = active, None, None
            self._health.forget(*_OF_THE_MODEL)
            self._streams = self._shadow_streams = Streams(_NO_SCHEMA)
            if active is not None:
                manifest = active.slot.manifest
                self._streams = Streams(manifest.model_schema)
                try:
                    self._counter = WindowCounter(
                        manifest.release, manifest.model_schema, active.slot.reference, first_index=self._next_index
                    )
                except Exception as exc:  # noqa: BLE001 - it is noted; a reference that fits nothing costs no answer
                    self._health.failed(Part.COUNTING, exc)

    def reset(self, stream: str | None = None) -> None:
        """Let a stream of a model with state begin anew, or all of them; a model without state does nothing."""
        with self._lock:
            self._streams.reset(stream)
            self._shadow_streams.reset(stream)

    def answer(
        self, inputs: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[Any]] | None = None, stream: str = ""
    ) -> Answer | None:
        """Return the answer to one sample and count it; None when nothing serves.

        Args:
            inputs: The schema's inputs but for state, without the batch dimension.
            given: Its target values as far as they are known (:func:`hedgerow.outputs.wanted.as_given`).
            stream: Whose next step it is, for a model with state.

        Raises:
            InputError: The inputs do not match the schema.
            PredictionError: The model failed.
        """
        batch = {name: values[None] for name, values in inputs.items()}
        with self._lock:
            active = self._active
            if active is None:
                return None
            rows = {name: value[None] for name, value in (given or {}).items()}
            outputs = self._predict(active, batch, rows, stream)
            try:
                return make_answer(active.release, active.slot.manifest.model_schema, outputs)
            except Exception as exc:
                self._health.failed(Part.MODEL, exc)
                reason = f"outputs that are no batch of one ({exc})"
                active.answers.missed(reason, was_given=True)
                raise PredictionError(active.release, reason) from exc

    def predict(
        self, inputs: Mapping[str, NDArray[Any]], target_values: Any = None, stream: str = ""
    ) -> dict[str, NDArray[Any]] | None:
        """Return the outputs for a batch and count it; None when nothing serves.

        Args:
            inputs: The schema's inputs but for state, each ``(batch, *shape)``; for a model with state the batch is
                steps one after the other.
            target_values: Of each sample, in the form that the output declares, or with several outputs a mapping of
                their names to such; None when none is known. What does not fit costs no answer.
            stream: Whose next steps they are, for a model with state.

        Raises:
            InputError: The inputs do not match the schema.
            PredictionError: The model failed.
        """
        with self._lock:
            return None if self._active is None else self._predict(self._active, inputs, target_values, stream)

    def cut(self, timeout_s: float) -> None:
        """Cut the window in progress, when it holds anything; a prediction that hangs is waited for so long at most."""
        if self._lock.acquire(timeout=timeout_s):
            try:
                self._cut()
            finally:
                self._lock.release()

    def _predict(
        self, active: ReadyModel, inputs: Mapping[str, NDArray[Any]], target_values: Any, stream: str
    ) -> dict[str, NDArray[Any]]:
        schema = active.slot.manifest.model_schema
        schema.given.check_inputs(inputs)
        total, start = len(next(iter(inputs.values()))), 0
        wanted = self._wanted(schema, target_values, total)
        pieces: list[dict[str, NDArray[Any]]] = []
        while start < total or not pieces:
            # A batch may reach over the end of a window; windows are exact, so the batch is cut.
            counted = self._counter.samples if self._counter is not None else 0
            stop = min(total, start + self._window_samples - counted)
            piece = {name: values[start:stop] for name, values in inputs.items()}
            part = None if wanted is None else {name: values[start:stop] for name, values in wanted.items()}
            pieces.append(self._predict_piece(active, piece, part, stream))
            start = stop
        if len(pieces) == 1:
            return pieces[0]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _wanted(self, schema: ModelSchema, target_values: Any, samples: int) -> Arrays | None:
        """Return the target values of a batch by output; None where none is known, or they do not fit the schema."""
        try:
            given = as_given_rows(target_values, samples)
            return as_declared(schema.answers, given, samples) if given else None
        except InputError as exc:
            self._health.failed(Part.COUNTING, exc)
            return None

    def _predict_piece(
        self, active: ReadyModel, inputs: Mapping[str, NDArray[Any]], wanted: Arrays | None, stream: str
    ) -> dict[str, NDArray[Any]]:
        size = len(next(iter(inputs.values())))
        before = self._asked_at = self._timer()
        try:
            outputs = dict(self._streams.predict(active.model, inputs, stream))
        # Runtimes raise what they like, and the next input may do.
        except Exception as exc:
            self._health.failed(Part.MODEL, exc)
            reason = f"{type(exc).__name__}: {exc}"
            active.answers.missed(reason)
            raise PredictionError(active.release, reason) from exc
        finally:
            self._asked_at = None
        active.answers.given += 1
        latency_ms = (self._timer() - before) * 1000 / max(1, size)
        self._health.worked(Part.MODEL)
        if size and self._counter is not None:
            self._count(self._counter, inputs, outputs, wanted, latency_ms, stream)
        return outputs

    def _count(
        self,
        counter: WindowCounter,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
        wanted: Arrays | None,
        latency_ms: float,
        stream: str,
    ) -> None:
        previous = self._previous(inputs, stream)
        try:
            counter.observe(inputs, outputs, latency_ms=latency_ms, now=self._clock(), wanted=wanted, previous=previous)
        except Exception as exc:  # noqa: BLE001 - it is noted; counting must not cost the answer
            self._health.failed(Part.COUNTING, exc)
            return
        self._health.worked(Part.COUNTING)
        if counter.samples >= self._window_samples:
            self._cut()

    def _previous(self, inputs: Mapping[str, NDArray[Any]], stream: str) -> Arrays | None:
        """Return what the model before says about the same inputs, or None when it is not asked or fails."""
        if self._shadow is None or self._active is None:
            return None
        now, before = (ready.slot.manifest.model_schema.answers for ready in (self._active, self._shadow))
        try:
            previous = now.translated(self._shadow_streams.predict(self._shadow.model, inputs, stream), before)
        except Exception as exc:  # noqa: BLE001 - it is noted; the model before must not cost the answer
            self._health.failed(Part.COMPARISON, exc)
            return None
        self._health.worked(Part.COMPARISON)
        return previous

    def _cut(self) -> None:
        if self._counter is None:
            return
        window = self._counter.cut(self._clock())
        self._next_index = self._counter.next_index
        if window is None:
            return
        try:
            self._on_window(window)
        except Exception as exc:  # noqa: BLE001 - it is noted; a full disk must cost neither answer nor installation
            self._health.failed(Part.WINDOWS, exc)
            return
        self._health.worked(Part.WINDOWS)
