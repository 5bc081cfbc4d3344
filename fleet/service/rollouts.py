"""Drives rollouts: loads them, applies the pure rules to what happened, saves, and says what must be published.

Runs in the service's thread, inside its transactions. Nothing is published here.
"""

from collections.abc import Mapping

from hedgerow.fleet.errors import NoDevicesError, RolloutConflictError, UnknownRolloutError
from hedgerow.fleet.registry import Device, next_desired
from hedgerow.fleet.rollout.events import (
    Assign,
    DeviceCommand,
    DeviceJoined,
    DeviceRemoved,
    DeviceReported,
    GateJudged,
    RolloutEvent,
    Started,
    Tick,
)
from hedgerow.fleet.rollout.floors import Floor, floor_of
from hedgerow.fleet.rollout.gates import GatePlan, judge, measurement_alpha
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.rules import advance, create_rollout
from hedgerow.fleet.rollout.stages import DeviceFacts
from hedgerow.fleet.rollout.state import Rollout, RolloutState, exposed, waiting_for_gate
from hedgerow.fleet.service.after_commit import AfterCommit
from hedgerow.fleet.service.events import ReleaseProven, RolloutChanged
from hedgerow.fleet.store.writing import Store
from hedgerow.fleet.trust.catalogue import Catalogue
from hedgerow.wire.device import Desired
from hedgerow.wire.execution import Execution, ExecutionState

__all__ = ["RolloutDriver"]

_JUDGED = frozenset({RolloutState.RUNNING, RolloutState.PAUSED})


class RolloutDriver:
    """The unfinished rollouts.

    Args:
        store: Where they are.
        catalogue: The signed releases.
    """

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store, self._catalogue = store, catalogue
        self._unfinished: dict[str, Rollout] | None = None
        self._looks: dict[str, tuple[int, float | None, int]] = {}

    def reload(self) -> None:
        """Load from the store again on next use; call it when a transaction was rolled back."""
        self._unfinished = None
        self._looks = {}

    @property
    def unfinished(self) -> Mapping[str, Rollout]:
        """Rollouts that are not over, by id."""
        return self._loaded()

    def _loaded(self) -> dict[str, Rollout]:
        if self._unfinished is None:
            self._unfinished = {rollout.id: rollout for rollout in self._store.rollouts(only_unfinished=True)}
        return self._unfinished

    def start(self, release: str, plan: RolloutPlan, now: float, then: AfterCommit) -> Rollout:
        """Create a rollout for the devices whose hardware the release has, and start it unless it needs approval.

        Raises:
            UnknownReleaseError: The release is not listed.
            RolloutConflictError: Another rollout is not over.
            NoDevicesError: The release fits no known device.
        """
        manifest = self._catalogue.manifest(release)
        for other in self._loaded().values():
            raise RolloutConflictError(other.id, other.state.value)
        targets = {artifact.target for artifact in manifest.artifacts}
        devices = self._store.devices()
        facts = [_facts(device) for device in devices if device.target in targets]
        if not facts:
            raise NoDevicesError(release, sorted(targets), len(devices))
        number = self._store.next_rollout_number()
        rollout = create_rollout(f"rollout-{number}", release, plan, facts, now)
        self._store.save_rollout(rollout, None, number=number)
        self._loaded()[rollout.id] = rollout
        then.events.append(RolloutChanged(rollout))
        return self.go_on(rollout, now, then)

    def apply(self, rollout_id: str, event: RolloutEvent, then: AfterCommit) -> Rollout:
        """Advance a rollout by one event.

        Raises:
            UnknownRolloutError: There is no such rollout.
            InvalidTransitionError: The event is not possible in its state.
        """
        before = self._loaded().get(rollout_id) or self._store.rollout(rollout_id)
        if before is None:
            raise UnknownRolloutError(rollout_id)
        after, commands = advance(before, event)
        if after is not before and after != before:
            self._store.save_rollout(after, before)
            then.events.append(RolloutChanged(after))
            if after.state.is_terminal:
                self._loaded().pop(rollout_id, None)
                self._looks.pop(rollout_id, None)
            else:
                self._loaded()[rollout_id] = after
        for command in commands:
            self._obey(after, command, then)
        if after.state is RolloutState.FINISHED and before.state is not RolloutState.FINISHED:
            self._settle(after, then)
            if self._has_shown(after) and self._store.save_proof(after.release, event.now, after.reason):
                then.events.append(ReleaseProven(after.release, after.reason))
        return after

    def _settle(self, rollout: Rollout, then: AfterCommit) -> None:
        """Want the release for its own sake from now on: the gate has decided, so no device needs to run two models."""
        for record in rollout.executions.values():
            if record.state is ExecutionState.SUCCEEDED and record.previous is not None:
                self.assign(record.device, rollout.release, then)

    def _obey(self, rollout: Rollout, command: DeviceCommand, then: AfterCommit) -> None:
        if isinstance(command, Assign):
            self.assign(
                command.device,
                command.release,
                then,
                rollout=rollout.id,
                attempt=command.attempt,
                compare=command.compare,
            )
        else:
            self.assign(command.device, command.release, then)

    def assign(
        self,
        name: str,
        release: str | None,
        then: AfterCommit,
        *,
        rollout: str | None = None,
        attempt: int = 1,
        compare: bool = False,
    ) -> Desired:
        """Save the next version of what is wanted of a device."""
        device = self._store.device(name) or Device(name=name)
        current = self._store.desired(name)
        desired = next_desired(device, current, release, rollout=rollout, attempt=attempt, compare=compare)
        self._store.save_desired(name, desired)
        then.desired.append((name, desired))
        return desired

    def device_reported(self, device: str, message: Execution, now: float, then: AfterCommit) -> None:
        """Apply a device's report on its part in a rollout.

        One on a rollout that is over changes nothing, unless it takes a success back.
        """
        takes_back = message.state is ExecutionState.FAILED and self._has_succeeded(message.rollout, device)
        if takes_back or message.rollout in self._loaded():
            self.apply(message.rollout, DeviceReported(device=device, message=message, now=now), then)

    def runs_another(self, device: Device, before: str | None, desired: Desired, now: float, then: AfterCommit) -> None:
        """Take note of a device that acted on what is wanted of it and runs another release.

        Its own message says why, as a rule, and first; this is for the one that was lost.

        Args:
            device: As it is now.
            before: The release that it ran by its report before.
            desired: What is wanted of it.
            now: Unix time.
            then: What follows.
        """
        rollout = desired.rollout
        if rollout is None and desired.release is not None and before == desired.release:
            # Wanted for its own sake since the rollout that brought it is over.
            found = self._store.last_rollout_state(desired.release)
            rollout = found[0] if found is not None else None
        record = self._store.execution(rollout, device.name) if rollout is not None else None
        if rollout is None or record is None:
            return
        reason = f"it says that it runs {device.release or 'no release'}, not {desired.release or 'none'}"
        failure = Execution(
            rollout=rollout, attempt=record.attempt, state=ExecutionState.FAILED, step="reported", reason=reason
        )
        if record.state is ExecutionState.SUCCEEDED:
            self.device_reported(device.name, failure, now, then)

    def _has_succeeded(self, rollout_id: str, device: str) -> bool:
        record = self._store.execution(rollout_id, device)
        return record is not None and record.state is ExecutionState.SUCCEEDED

    def go_on(self, rollout: Rollout, now: float, then: AfterCommit) -> Rollout:
        """Start a rollout that has just become ready."""
        return self.apply(rollout.id, Started(now=now), then) if rollout.state is RolloutState.READY else rollout

    def quiet_for(self, rollout_id: str, device: str, now: float) -> float | None:
        """Return for how many seconds nothing was heard of a device's unfinished part in a rollout, else None."""
        rollout = self._loaded().get(rollout_id)
        execution = rollout.executions.get(device) if rollout else None
        if execution is None or execution.state.is_terminal:
            return None
        last = execution.updated_at if execution.updated_at is not None else execution.started_at
        return now - last if last is not None else None

    def device_joined(self, device: Device, now: float, then: AfterCommit) -> None:
        """Place a device that was never heard of before.

        It joins running rollouts through their stages; with none, it gets what the last finished rollout brought to
        everyone else.
        """
        for rollout in list(self._loaded().values()):
            record = rollout.executions.get(device.name)
            is_new = record is None or record.state is ExecutionState.REMOVED
            if is_new and self._fits(rollout.release, device):
                self.apply(rollout.id, DeviceJoined(facts=_facts(device), now=now), then)
                return
        release = self._store.last_finished_release()
        if release is not None and release != device.release and self._fits(release, device):
            self.assign(device.name, release, then)

    def device_left(self, name: str, now: float, then: AfterCommit) -> None:
        """Take a device out of every unfinished rollout: what is open of it is removed, and the rest goes on.

        Raises:
            RolloutConflictError: Its part in one is over and counts there, and it would be asked to go back.
        """
        has_part = [rollout for rollout in self._loaded().values() if name in rollout.executions]
        for rollout in has_part:
            state = rollout.executions[name].state
            if state.is_terminal and state is not ExecutionState.REMOVED:
                raise RolloutConflictError(rollout.id, rollout.state.value)
        for rollout in has_part:
            self.apply(rollout.id, DeviceRemoved(device=name, now=now), then)

    def _has_shown(self, rollout: Rollout) -> bool:
        """Return whether a gate saw scores above the floor: it lets nothing go on without, but by agreement alone."""
        if rollout.plan.gate is None:
            return False
        is_listed = rollout.release in self._catalogue.releases()
        if not is_listed or not self._catalogue.manifest(rollout.release).model_schema.answers.goes_by_agreement:
            return True
        window = self._store.gate_window(rollout.id, rollout.stage)
        return window is not None and window.scores.samples > 0

    def _fits(self, release: str, device: Device) -> bool:
        if release not in self._catalogue.releases() or device.target is None:
            return False
        return self._catalogue.manifest(release).artifact(device.target) is not None

    def tick(self, now: float, then: AfterCommit) -> None:
        """Let time pass in every unfinished rollout, and let the gates judge where they are waited for."""
        for rollout_id in list(self._loaded()):
            rollout = self.apply(rollout_id, Tick(now=now), then)
            if rollout.state is RolloutState.RUNNING and waiting_for_gate(rollout):
                self.judge(rollout_id, now, then)

    def judge(self, rollout_id: str, now: float, then: AfterCommit) -> None:
        """Let the gate of a running rollout's present stage look at its evidence."""
        rollout = self._loaded().get(rollout_id)
        # Also while it is held: a bad candidate is stopped whenever that shows.
        if rollout is None or rollout.plan.gate is None or rollout.state not in _JUDGED:
            return
        window = self._store.gate_window(rollout.id, rollout.stage)
        # The same evidence cannot change the verdict; only a stage that has begun to wait for it must hear it again.
        look = (rollout.stage, rollout.gate_since, window.samples if window else 0)
        if self._looks.get(rollout_id) == look:
            return
        self._looks[rollout_id] = look
        outputs = self._catalogue.manifest(rollout.release).model_schema.answers
        verdict = judge(rollout.plan.gate, window, self._floor(rollout, rollout.plan.gate), outputs)
        self.apply(rollout_id, GateJudged(verdict=verdict, now=now), then)

    def _floor(self, rollout: Rollout, gate: GatePlan) -> Floor | None:
        """Return what the devices that the gate judges must reach."""
        targets = [rollout.executions[device].target for device in exposed(rollout, rollout.stage)]
        manifest = self._catalogue.manifest(rollout.release)
        return floor_of(manifest, targets, gate.floor, gate.maximum_accuracy_drop, measurement_alpha(gate))


def _facts(device: Device) -> DeviceFacts:
    return DeviceFacts(name=device.name, target=device.target or "", release=device.release)
