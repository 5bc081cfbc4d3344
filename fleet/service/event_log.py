"""What a person reads in the terminal of ``hedgerow fleet serve``: one line for each event that matters."""

import logging

from hedgerow.fleet.rollout.state import Rollout
from hedgerow.fleet.service.events import (
    AlertChanged,
    DeviceChanged,
    DeviceForgotten,
    FleetEvent,
    ReleaseProven,
    ReportRefused,
    RolloutChanged,
)

__all__ = ["EventLog"]

_log = logging.getLogger(__name__)


class EventLog:
    """A subscriber that logs devices that come, go or change their release, rollouts that move on, and new alerts."""

    def __init__(self) -> None:
        self._rollouts: dict[str, str] = {}

    def __call__(self, event: FleetEvent) -> None:
        """Log *event*, if it says something new."""
        line = self.describe(event)
        if line:
            _log.info("%s", line)

    def describe(self, event: FleetEvent) -> str:
        """Return a line about *event*, or nothing when it matters to nobody or was said."""
        match event:
            case DeviceChanged(device, before):
                if before is None or before.online != device.online:
                    return f"{device.name} is {'online' if device.online else 'offline'}"
                if before.release != device.release:
                    return f"{device.name} runs {device.release or 'nothing'}"
                if before.problems != device.problems:
                    return (
                        f"{device.name} has trouble: {'; '.join(device.problems)}"
                        if device.problems
                        else (f"{device.name} is well again")
                    )
            case DeviceForgotten(device):
                return f"{device.name} is forgotten"
            case ReportRefused(device, reason):
                advice = f"if that is right, run `hedgerow device reset {device}`"
                return f"nothing of a report of {device} is believed: {reason}; {advice}"
            case RolloutChanged(rollout):
                return self._rollout(rollout)
            case AlertChanged(alert, True):
                devices = ", ".join(alert.devices) or "no single device"
                what = alert.reason or ", ".join(alert.features)
                return f"{alert.kind} alert {alert.id} under {alert.release}: {devices}; {what}"
            case ReleaseProven(release, reason):
                return f"{release} has proven itself: {reason}"
        return ""

    def _rollout(self, rollout: Rollout) -> str:
        line = f"{rollout.id}: {rollout.release} {rollout.state}, stage {rollout.plan.stages[rollout.stage].name}"
        if self._rollouts.get(rollout.id) == line:
            return ""
        self._rollouts[rollout.id] = line
        if not rollout.state.is_terminal:
            return line
        return f"{line}; {rollout.reason}" if rollout.reason else line
