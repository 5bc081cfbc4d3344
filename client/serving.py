"""The active model at work: predict, run the model before in its shadow, count, cut windows."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.client.loading import ReadyModel
from hedgerow.window import Window, WindowCounter

__all__ = ["ActiveModel"]

PROBABILITIES = "probabilities"


class ActiveModel:
    """What serves. May be used from any thread; a change of the model waits for the prediction in progress.

    Args:
        window_samples: A window is cut after exactly this many predictions.
        on_window: Gets each window; called while serving waits, so it only stores.
        clock: Unix time in seconds.
        timer: Rising seconds, for latencies.
    """

    def __init__(
        self,
        window_samples: int,
        on_window: Callable[[Window], None],
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        if window_samples < 1:
            raise ValueError(f"window_samples must be at least 1, not {window_samples}")
        self._window_samples, self._on_window = window_samples, on_window
        self._clock, self._timer = clock, timer
        self._lock = threading.Lock()
        self._active: ReadyModel | None = None
        self._shadow: ReadyModel | None = None
        self._counter: WindowCounter | None = None
        self._next_index = 0

    @property
    def release(self) -> str | None:
        """The release that serves, or None."""
        active = self._active
        return active.release if active else None

    def compare(self, active: ReadyModel, shadow: ReadyModel | None) -> None:
        """Run *shadow* on the same inputs and compare, for as long as *active* is the one that serves; None: stop."""
        with self._lock:
            if active is self._active:
                self._shadow = shadow

    def activate(self, active: ReadyModel | None) -> None:
        """Serve with *active* from the next prediction on; the window of the model before is cut.

        Args:
            active: None: serve nothing.
        """
        with self._lock:
            self._cut()
            self._active, self._shadow, self._counter = active, None, None
            if active is not None:
                manifest = active.slot.manifest
                self._counter = WindowCounter(
                    manifest.release, manifest.model_schema, active.slot.reference, first_index=self._next_index
                )

    def predict(
        self, inputs: Mapping[str, NDArray[Any]], labels: NDArray[np.int64] | None = None
    ) -> dict[str, NDArray[Any]] | None:
        """Return the outputs for a batch and count it; None when nothing serves.

        Args:
            inputs: The schema's inputs, each ``(batch, *shape)``.
            labels: Class of each sample where it is known, else -1; None when none is.

        Raises:
            InputError: The inputs do not match the schema.
        """
        with self._lock:
            if self._active is None or self._counter is None:
                return None
            self._active.slot.manifest.model_schema.check_inputs(inputs)
            total, start = len(next(iter(inputs.values()))), 0
            pieces: list[dict[str, NDArray[Any]]] = []
            while start < total or not pieces:
                # A batch may reach over the end of a window; windows are exact, so the batch is cut.
                stop = min(total, start + self._window_samples - self._counter.samples)
                piece = {name: values[start:stop] for name, values in inputs.items()}
                known = None if labels is None else labels[start:stop]
                pieces.append(self._predict_piece(self._active, self._counter, piece, known))
                start = stop
            if len(pieces) == 1:
                return pieces[0]
            return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def cut(self) -> None:
        """Cut the window in progress, when it holds anything."""
        with self._lock:
            self._cut()

    def _predict_piece(
        self,
        active: ReadyModel,
        counter: WindowCounter,
        inputs: Mapping[str, NDArray[Any]],
        labels: NDArray[np.int64] | None,
    ) -> dict[str, NDArray[Any]]:
        size = len(next(iter(inputs.values())))
        before = self._timer()
        outputs = active.model.predict(inputs)
        latency_ms = (self._timer() - before) * 1000 / max(1, size)
        probabilities = outputs.get(PROBABILITIES)
        if size and probabilities is not None:
            previous = self._shadow.model.predict(inputs).get(PROBABILITIES) if self._shadow else None
            counter.observe(
                inputs, probabilities, latency_ms=latency_ms, now=self._clock(), labels=labels, previous=previous
            )
            if counter.samples >= self._window_samples:
                self._cut()
        return outputs

    def _cut(self) -> None:
        if self._counter is None:
            return
        window = self._counter.cut(self._clock())
        self._next_index = self._counter.next_index
        if window is not None:
            self._on_window(window)
