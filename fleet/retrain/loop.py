"""The thread of ``fleet serve --retrain-task``: hears of alerts, asks the policy, trains, sees what came of it."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, Self

from hedgerow.closing import Running
from hedgerow.errors import HedgerowError
from hedgerow.fleet.drift.alert import Alert, AlertKind
from hedgerow.fleet.records import RunState, TrainingRun
from hedgerow.fleet.retrain.policy import (
    AskApproval,
    DriftRaised,
    GiveUp,
    ReleaseJudged,
    RetrainApproved,
    RetrainEnded,
    RetrainEvent,
    RetrainPolicy,
    RetrainState,
    StartRetrain,
    TimePassed,
)
from hedgerow.fleet.retrain.run import MANUAL
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.service.events import AlertChanged, FleetEvent, ReleaseProven, RolloutChanged
from hedgerow.fleet.service.failure_lines import FailureLines
from hedgerow.fleet.service.fleet_service import FleetService

__all__ = ["RetrainLoop", "RetrainWork"]

_log = logging.getLogger(__name__)
_SENT_BACK = frozenset({RolloutState.ABORTED, RolloutState.ROLLED_BACK})


class RetrainWork(Protocol):
    """What the loop calls to train again."""

    def __call__(self, *, release: str, trigger: str, run_id: str | None) -> str | None:
        """Train *release* again; with *run_id*, resume that run.

        Returns:
            The release that it made and began to roll out.

        Raises:
            HedgerowError: It did not work out.
        """


class RetrainLoop(Running):
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
        work: RetrainWork,
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

    def _hear(self, event: FleetEvent) -> None:
        match event:
            case AlertChanged(alert, True) if alert.kind != AlertKind.RETRAINING:
                self._inbox.put(DriftRaised(alert.id, alert.release, self._clock()))
            case RolloutChanged(rollout) if rollout.state in _SENT_BACK:
                self._inbox.put(ReleaseJudged(rollout.release, False, self._clock(), rollout.reason))
            case ReleaseProven(release, reason):
                self._inbox.put(ReleaseJudged(release, True, self._clock(), reason))
            case _:
                pass

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
        last = next((run for run in reversed(runs) if run.state is not RunState.RUNNING), None)
        is_open = last is not None and last.state is RunState.FAILED and last.trigger != MANUAL
        again = StartRetrain(last.trigger, last.parent) if last is not None and is_open else None
        self._state = RetrainState(
            waiting=again,
            ended_at=max((run.ended_at for run in runs if run.ended_at is not None), default=None),
            answered=frozenset(triggers),
            failures=_failures(runs, self._service.proven_releases()),
            proving=_proving(runs),
        )
        if last is not None and again is not None and self._state.failures >= self._policy.most_failures:
            self._give_up(GiveUp(again.alert, again.release, self._state.failures, last.reason))
        if self._state.proving is not None:
            self._look_at(self._state.proving[0])
        for run in runs:
            if run.state is RunState.RUNNING:
                action = StartRetrain(run.trigger, run.parent)
                self._state = replace(self._state, running=action)
                self._train(action, run.id)
        for alert in self._service.alerts():
            if alert.id not in triggers and alert.kind != AlertKind.RETRAINING:
                self._inbox.put(DriftRaised(alert.id, alert.release, self._clock()))

    def _look_at(self, release: str) -> None:
        """Hear again what was told of a release while nobody listened."""
        if self._service.is_proven(release):
            self._inbox.put(ReleaseJudged(release, True, self._clock()))
        latest = [rollout for rollout in self._service.rollouts() if rollout.release == release][-1:]
        for rollout in latest:
            if rollout.state in _SENT_BACK:
                self._inbox.put(ReleaseJudged(release, False, self._clock(), rollout.reason))

    def _is_current(self, event: RetrainEvent) -> bool:
        """Whether an alert is about the release that devices run; an older one has been answered by its successor."""
        if not isinstance(event, DriftRaised):
            return True
        return self._is_run(event.release)

    def _is_run(self, release: str) -> bool:
        return any(device.release == release for device in self._service.devices())

    def _take(self, event: RetrainEvent) -> None:
        if isinstance(event, ReleaseJudged):
            self._keep(event)
        elif isinstance(event, TimePassed) and self._state.waiting and not self._is_run(self._state.waiting.release):
            self._state = replace(self._state, waiting=None)
        self._state, action = self._policy.decide(self._state, event)
        if isinstance(action, AskApproval):
            _log.warning("alert %s: retraining of %s waits for approval", action.alert, action.release)
        elif isinstance(action, GiveUp):
            self._give_up(action)
        elif isinstance(action, StartRetrain):
            self._train(action, None)

    def _keep(self, event: ReleaseJudged) -> None:
        """Write into the retraining's record what came of its release."""
        state = RunState.RECOVERED if event.recovered else RunState.FAILED
        reason = "" if event.recovered else f"{event.release} was sent back: {event.reason}"
        for run in self._service.runs():
            if run.release == event.release and run.state is RunState.DONE:
                self._service.save_run(replace(run, state=state, reason=reason[:4096]))

    def _give_up(self, action: GiveUp) -> None:
        reason = (
            f"{action.failures} retrainings of {action.release} in a row brought no recovery, and no more is tried by "
            f"itself; the last one: {action.reason}; look at the target values on the devices, then approve another "
            "retraining"
        )
        _log.error("%s", reason)
        alert = Alert(
            id=f"retraining-{action.alert}",
            release=action.release,
            raised_at=self._clock(),
            devices=(),
            features=(),
            findings=(),
            windows=0,
            kind=AlertKind.RETRAINING,
            reason=reason[:4096],
        )
        self._service.raise_alert(alert)

    def _train(self, action: StartRetrain, run_id: str | None) -> None:
        succeeded, made, reason = False, None, ""
        _log.info("alert %s: training again from %s on the devices", action.alert, action.release)
        try:
            made = self._work(release=action.release, trigger=action.alert, run_id=run_id)
            succeeded = True
        except HedgerowError as exc:
            reason = str(exc)
            _log.error("retraining of %s failed: %s", action.release, exc)
        # Training and compiling are large; whatever they raise must not end the thread, and may be tried again.
        except Exception as exc:  # noqa: BLE001 - it is logged
            reason = f"{type(exc).__name__}: {exc}"
            _log.exception("retraining of %s failed", action.release)
        self._take(RetrainEnded(succeeded, self._clock(), made, reason))
        if made is not None:
            # It may have been judged before it was known as ours.
            self._look_at(made)


def _failures(runs: Sequence[TrainingRun], proven: Mapping[str, float]) -> int:
    """Return how many of the last runs in a row brought no recovery, since another release proved itself."""
    count = 0
    for run in reversed([run for run in runs if run.state is not RunState.RUNNING]):
        ended_at = run.ended_at or run.started_at
        if run.state is not RunState.FAILED or any(at > ended_at for name, at in proven.items() if name != run.parent):
            break
        count += 1
    return count


def _proving(runs: Sequence[TrainingRun]) -> tuple[str, StartRetrain] | None:
    """Return the release of the last run that is not judged yet, and what it answered."""
    last = runs[-1] if runs else None
    if last is None or last.state is not RunState.DONE or last.release is None:
        return None
    return last.release, StartRetrain(last.trigger, last.parent)
