"""The demo's eyes: hears what the fleet service tells, keeps the story, and waits for things to come true."""

import threading
import time
from collections.abc import Callable, Mapping
from functools import reduce
from typing import TYPE_CHECKING

from hedgerow.children.programs import Programs
from hedgerow.features import is_output_feature
from hedgerow.fleet.demo.errors import DemoTimeoutError
from hedgerow.fleet.demo.measure import SeenWindow
from hedgerow.fleet.demo.plan import DemoDevice
from hedgerow.fleet.demo.story import Moment, ReleaseRunning, RoundPoint, Story, WindowPoint
from hedgerow.fleet.drift.alert import Alert
from hedgerow.fleet.drift.effect_size import js_bits
from hedgerow.fleet.errors import ChildDiedError
from hedgerow.fleet.rollout.state import Rollout
from hedgerow.fleet.service.events import AlertChanged, DeviceChanged, FleetEvent, RolloutChanged, WindowArrived
from hedgerow.fleet.service.fleet_service import FleetService
from hedgerow.window import Window

if TYPE_CHECKING:
    from hedgerow.reference import Reference

__all__ = ["Watch"]

_LOOK_S = 0.2
_SMALL = 50
_SETTLE_S = 0.5
"""A sensor looks at its world once for every image; a window that begins later than this saw nothing of the old one."""


class Watch:
    """Subscribes to a fleet service.

    Args:
        service: The fleet service.
        devices: Who is watched.
        children: Processes that must stay alive while we wait.
        started_at: Unix time that the story counts from.
    """

    def __init__(
        self, service: FleetService, devices: tuple[DemoDevice, ...], children: Programs, started_at: float
    ) -> None:
        self.story = Story()
        self.moved_at: float | None = None
        self._service, self._children, self._started_at = service, children, started_at
        self._devices = {device.name: device for device in devices}
        self._references: dict[str, Reference] = {}
        self._seen: list[tuple[str, Window]] = []
        self._alerts: dict[str, Alert] = {}
        self._rollouts: dict[str, Rollout] = {}
        self._changed = threading.Condition()
        self._unsubscribe = service.subscribe(self._hear)

    def close(self) -> None:
        """End the subscription."""
        self._unsubscribe()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the story began."""
        return time.time() - self._started_at

    def mark(self, what: str) -> None:
        """Keep a moment for the plots."""
        self.story.moments.append(Moment(self.elapsed_s, what))

    def add_rounds(self, run: str, accuracies: Mapping[int, float]) -> None:
        """Keep a training run's accuracies, round -> accuracy."""
        self.story.rounds.extend(RoundPoint(run, number, accuracy) for number, accuracy in accuracies.items())

    def seen(self) -> list[SeenWindow]:
        """Return all windows so far, each with its phase."""
        with self._changed:
            return [SeenWindow(device, window, self._phase(window)) for device, window in self._seen]

    def alerts(self) -> list[tuple[str, Alert]]:
        """Return all alerts so far, each with the phase in which it was raised."""
        with self._changed:
            return [(self._phase_at(alert.raised_at, alert.release), alert) for alert in self._alerts.values()]

    def rollout(self, rollout_id: str) -> Rollout | None:
        """Return what was last heard of a rollout."""
        with self._changed:
            return self._rollouts.get(rollout_id)

    def wait(
        self, what: str, is_true: Callable[[], bool], *, timeout_s: float, found: Callable[[], str] = lambda: "nothing"
    ) -> None:
        """Return as soon as *is_true* does.

        Raises:
            DemoTimeoutError: It did not in time.
            ChildDiedError: An agent or the broker ended by itself.
        """
        deadline = time.monotonic() + timeout_s
        while not is_true():
            ended = self._children.first_ended()
            if ended is not None:
                raise ChildDiedError(ended, self._children.log_paths[ended.name])
            if time.monotonic() > deadline:
                raise DemoTimeoutError(what, timeout_s, found())
            with self._changed:
                self._changed.wait(_LOOK_S)

    def _phase(self, window: Window) -> str:
        if self.moved_at is None or window.ended_at < self.moved_at:
            return "clean"
        if window.started_at < self.moved_at + _SETTLE_S:
            return "between"
        return "drifted" if window.release == self._first_release() else "recovered"

    def _phase_at(self, at: float, release: str) -> str:
        if self.moved_at is None or at < self.moved_at:
            return "clean"
        return "drifted" if release == self._first_release() else "recovered"

    def _first_release(self) -> str | None:
        return self._seen[0][1].release if self._seen else None

    def _hear(self, event: FleetEvent) -> None:
        with self._changed:
            match event:
                case WindowArrived(device, window):
                    self._seen.append((device, window))
                    self._keep_window(device, window)
                case AlertChanged(alert, _is_new):
                    self._alerts[alert.id] = alert
                case RolloutChanged(rollout):
                    self._rollouts[rollout.id] = rollout
                case DeviceChanged(device, before) if before is None or before.release != device.release:
                    self.story.running.append(ReleaseRunning(device.name, device.release, self.elapsed_s))
                case _:
                    pass
            self._changed.notify_all()

    def _keep_window(self, device: str, window: Window) -> None:
        known = self._devices.get(device)
        if known is None or window.samples < _SMALL:
            return
        if window.release not in self._references:
            self._references[window.release] = self._service.catalogue.reference(window.release)
        effects = [
            js_bits(feature.counts, window.features[feature.name].counts)
            for feature in self._references[window.release].features
            if not is_output_feature(feature.name) and feature.name in window.features
        ]
        accuracy = window.scores.mean if window.scores.samples else None
        at_s = window.ended_at - self._started_at
        largest = reduce(max, effects, 0.0)
        self.story.windows.append(WindowPoint(device, known.meets_drift, window.release, at_s, accuracy, largest))
