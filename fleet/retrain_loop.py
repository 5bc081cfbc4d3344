"""The thread of ``fleet serve --retrain-task``: hears of drift, asks the policy, trains again."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from hedgerow.errors import HedgerowError
from hedgerow.fleet.events import AlertChanged, FleetEvent
from hedgerow.fleet.failure_lines import FailureLines
from hedgerow.fleet.retrain_policy import (
    AskApproval,
    DriftRaised,
    RetrainApproved,
    RetrainEnded,
    RetrainEvent,
    RetrainPolicy,
    RetrainState,
    StartRetrain,
    TimePassed,
)
from hedgerow.fleet.service import FleetService

__all__ = ["RetrainLoop", "Work"]

_log = logging.getLogger(__name__)


class Work(Protocol):
    """What the loop calls to train again."""

    def __call__(self, *, release: str, trigger: str, run_id: str | None) -> object:
        """Train *release* again; with *run_id*, resume that run.

        Raises:
            HedgerowError: It did not work out.
        """


class RetrainLoop:
    """Retrains when the policy says so, one run at a time, in a thread of its own.

    Args:
        service: The fleet service, started.
        policy: When.
        work: How.
        clock: Unix seconds.
        look_s: How often the policy is told that time has passed.
    """

    def __init__(
        self,
        service: FleetService,
        policy: RetrainPolicy,
        work: Work,
        *,
        clock: Callable[[], float] = time.time,
        look_s: float = 1.0,
    ) -> None:
        self._service, self._policy, self._work = service, policy, work
        self._clock, self._look_s = clock, look_s
        self._inbox: queue.SimpleQueue[RetrainEvent | None] = queue.SimpleQueue()
        self._state = RetrainState()
        self._unsubscribe: Callable[[], None] = lambda: None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> RetrainState:
        """What the policy remembers."""
        return self._state

    def start(self) -> Self:
        """Start the thread: first what a restart interrupted, then what was raised meanwhile, then what comes."""
        self._unsubscribe = self._service.subscribe(self._hear)
        self._thread = threading.Thread(target=self._run, name="retrain", daemon=True)
        self._thread.start()
        return self

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread; a run in progress is left behind after *timeout_s* and is resumed by the next start."""
        self._stopping.set()
        self._unsubscribe()
        self._inbox.put(None)
        if self._thread is not None:
            self._thread.join(timeout_s)

    def approve(self) -> bool:
        """Start the retraining that waits; return whether one waits."""
        waits = self._state.waiting is not None
        self._inbox.put(RetrainApproved(self._clock()))
        return waits

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, _type: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _hear(self, event: FleetEvent) -> None:
        if isinstance(event, AlertChanged) and event.is_new:
            self._inbox.put(DriftRaised(event.alert.id, event.alert.release, self._clock()))

    def _run(self) -> None:
        lines = FailureLines(_log, "looking after retraining")
        is_caught_up = False
        while not self._stopping.is_set():
            # The outermost loop of the thread: a store that cannot be read now must not end retraining for good.
            try:
                if not is_caught_up:
                    self._catch_up()
                    is_caught_up = True
                self._look()
            except Exception as exc:  # noqa: BLE001 - see above; it is logged
                lines.failed(exc)
                self._stopping.wait(self._look_s)
            else:
                lines.worked()

    def _look(self) -> None:
        try:
            event = self._inbox.get(timeout=self._look_s)
        except queue.Empty:
            event = TimePassed(self._clock())
        if event is None:
            return
        try:
            is_current = self._is_current(event)
        except Exception:
            self._inbox.put(event)
            raise
        if is_current:
            self._take(event)

    def _catch_up(self) -> None:
        runs = self._service.runs()
        triggers = {run.trigger for run in runs}
        self._state = RetrainState(
            ended_at=max((run.ended_at for run in runs if run.ended_at is not None), default=None),
            answered=frozenset(triggers),
        )
        for run in runs:
            if run.state == "running":
                self._train(StartRetrain(run.trigger, run.parent), run.id)
        for alert in self._service.alerts():
            if alert.id not in triggers:
                self._inbox.put(DriftRaised(alert.id, alert.release, self._clock()))

    def _is_current(self, event: RetrainEvent) -> bool:
        """Whether an alert is about the release that devices run; an older one has been answered by its successor."""
        if not isinstance(event, DriftRaised):
            return True
        return any(device.release == event.release for device in self._service.devices())

    def _take(self, event: RetrainEvent) -> None:
        self._state, action = self._policy.decide(self._state, event)
        if isinstance(action, AskApproval):
            _log.warning("drift alert %s: retraining of %s waits for approval", action.alert, action.release)
        elif isinstance(action, StartRetrain):
            self._train(action, None)

    def _train(self, action: StartRetrain, run_id: str | None) -> None:
        succeeded = False
        _log.info("drift alert %s: training again from %s on the devices", action.alert, action.release)
        try:
            self._work(release=action.release, trigger=action.alert, run_id=run_id)
            succeeded = True
        except HedgerowError as exc:
            _log.error("retraining of %s failed: %s", action.release, exc)
        # Training and compiling are large; whatever they raise must not end the thread, and may be tried again.
        except Exception:  # noqa: BLE001 - it is logged
            _log.exception("retraining of %s failed", action.release)
        self._take(RetrainEnded(succeeded, self._clock()))
