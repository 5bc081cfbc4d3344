"""What the fleet knows about a device, and how its reports change that. Pure: no clock, no store, no link."""

from dataclasses import dataclass, replace

from hedgerow.wire.device import VERSION_JUMP, Desired, Presence, Reported
from hedgerow.wire.execution import Execution, ExecutionState

__all__ = [
    "ASK_REPORT",
    "REPORT_JUMP",
    "Device",
    "contradicts",
    "execution_refusal",
    "is_doubtful",
    "needs_desired",
    "next_desired",
    "renumbered",
    "report_refusal",
    "reports_success",
    "reset",
    "revived",
    "take_contact",
    "take_presence",
    "take_report",
]

ASK_REPORT = Desired(version=0, release=None)
"""Wants nothing; a device answers any version that it has seen, and every device has seen 0, by reporting itself."""

REPORT_JUMP = 1_000_000
"""How far above what it was asked a device may claim to be.

Far more than a device takes, since a store may come back from an old backup and must not lock its devices out; and far
too little to reach the end of numbers.
"""

_SEQUENCE_JUMP = 1_000_000
_BOOTS_REMEMBERED = 8
_CONTACT_STEP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device, as it last described itself.

    Attributes:
        name: Its name, the fourth level of its topics.
        target: Its hardware target; None until its first report.
        release: The active release; None: none.
        previous: The release it can go back to without a download.
        online: Whether it is there: it said so, and was heard since or has not been asked in vain (roll_call.py).
        boot: The agent's present start; empty until it is heard of.
        sequence: Sequence number of the last report of this boot; -1 before the first.
        past_boots: Earlier starts, the latest last; their late messages are ignored.
        desired_version: The last desired version that it acted on.
        agent_version: Version of Hedgerow on it.
        runtimes: The runtimes it can load.
        problems: What does not work on it, as ``part: reason``, by its last report.
        last_seen: Unix time of its last message, by the fleet's clock.
    """

    name: str
    target: str | None = None
    release: str | None = None
    previous: str | None = None
    online: bool = False
    boot: str = ""
    sequence: int = -1
    past_boots: tuple[str, ...] = ()
    desired_version: int = 0
    agent_version: str = ""
    runtimes: tuple[str, ...] = ()
    last_seen: float = 0.0
    problems: tuple[str, ...] = ()


def _on_boot(device: Device, boot: str) -> Device:
    if boot == device.boot:
        return device
    past = (*device.past_boots, device.boot)[-_BOOTS_REMEMBERED:] if device.boot else device.past_boots
    return replace(device, boot=boot, sequence=-1, past_boots=past)


def take_report(device: Device, message: Reported, now: float) -> Device | None:
    """Return the device after a report, or None when the report is a repeat or older than what is known."""
    if message.boot in device.past_boots:
        return None
    if message.boot == device.boot and message.sequence <= device.sequence:
        return None
    return replace(
        _on_boot(device, message.boot),
        target=message.target,
        release=message.release,
        previous=message.previous,
        # Only a connected device can say so; its presence may have been lost.
        online=True,
        sequence=message.sequence,
        desired_version=message.desired_version,
        agent_version=message.agent_version,
        runtimes=message.runtimes,
        last_seen=now,
        problems=message.problems,
    )


def report_refusal(device: Device, desired: Desired | None, message: Reported) -> str | None:
    """Return why nothing of a report is believed, as the end of a sentence; None: it may be.

    Of a device that was never heard of, or was reset, everything is.
    """
    if device.target is None:
        return None
    if message.target != device.target:
        return f"it says that its target is {message.target}, and it was {device.target}"
    known = max(device.desired_version, desired.version if desired is not None else 0)
    if message.desired_version > known + REPORT_JUMP:
        return f"it says that it acted on version {message.desired_version}, and was asked for {known} at most"
    if message.boot == device.boot and message.sequence > device.sequence + _SEQUENCE_JUMP:
        return f"its sequence number jumps from {device.sequence} to {message.sequence}"
    return None


def contradicts(device: Device, message: Reported) -> bool:
    """Return whether a report that is no news says something else than what is known of the device.

    It is late, or what is known comes from somebody else: who is right shows when the device is asked.
    """
    if message.boot in device.past_boots:
        return True
    said = (message.release, message.previous, message.desired_version)
    return message.sequence < device.sequence or said != (device.release, device.previous, device.desired_version)


def revived(device: Device, boot: str) -> Device:
    """Return the device when *boot* has proved to be the start that lives."""
    past = tuple(other for other in device.past_boots if other != boot)
    return replace(_on_boot(replace(device, past_boots=past), boot), sequence=-1)


def reset(device: Device) -> Device:
    """Return the device when nothing that it said counts any more; its next report is believed whatever it says."""
    return replace(device, target=None, boot="", sequence=-1, past_boots=(), desired_version=0)


def take_presence(device: Device, message: Presence, now: float, *, is_old: bool = False) -> Device | None:
    """Return the device after a presence message, or None when it changes nothing.

    The will of an earlier start may arrive after the next start is up; it says nothing about that one.

    Args:
        device: As it is known.
        message: What came.
        now: Unix time.
        is_old: Whether the broker had kept the message. That a device was there once does not say that it still is.
    """
    if message.boot in device.past_boots or (not message.online and device.boot not in {"", message.boot}):
        return None
    if message.online and is_old:
        return None
    after = replace(_on_boot(device, message.boot), online=message.online)
    return None if after == device else replace(after, last_seen=now)


def is_doubtful(device: Device, message: Presence, *, is_old: bool = False) -> bool:
    """Return whether a presence message is no answer but a question: only a report of the device can tell.

    A kept message says that the device was there, and the will of a start that was never heard of is that of a later
    start or of an earlier one.
    """
    if message.boot in device.past_boots:
        return False
    if message.online:
        return is_old and not device.online
    return device.boot not in {"", message.boot}


def take_contact(device: Device, now: float) -> Device | None:
    """Return the device after any message of its own, or None when that says nothing new; one in 5 s is enough."""
    is_new = device.online and not 0 <= now - device.last_seen < _CONTACT_STEP_S
    return replace(device, last_seen=now) if is_new else None


def next_desired(
    device: Device,
    current: Desired | None,
    release: str | None,
    *,
    rollout: str | None = None,
    attempt: int = 1,
    compare: bool = False,
) -> Desired:
    """Return the next version of what is wanted of *device*.

    The version rises above what the device has seen too: a service whose store was lost must not be ignored.
    """
    version = max(current.version if current else 0, device.desired_version) + 1
    return Desired(version=version, release=release, rollout=rollout, attempt=attempt, compare=compare)


def renumbered(device: Device, desired: Desired) -> Desired | None:
    """Return what is wanted under a version that the device will take; None: it takes the present one.

    After a restored backup the device is ahead. After its disk was lost, or somebody lied about it, it is so far behind
    that it refuses the jump. Version 0 stands for an unknown one, after a reset.
    """
    seen = device.desired_version
    if desired.version != 0 and seen <= desired.version <= seen + VERSION_JUMP:
        return None
    return replace(desired, version=seen + 1)


def execution_refusal(device: Device | None, desired: Desired | None, message: Execution) -> str | None:
    """Return why a device's word on its part in a rollout does not count, as the end of a sentence; None: it does.

    An end counts after the report that goes with it: a device says first what it runs. Of another rollout than the one
    that asks now it can only take a success back, which it may do before it has acted on what is asked.
    """
    if device is None or device.target is None:
        return "it has never reported itself"
    if not device.online:
        return "it is offline"
    if message.state in {ExecutionState.IN_PROGRESS, ExecutionState.SUCCEEDED}:
        if desired is None or (desired.rollout, desired.attempt) != (message.rollout, message.attempt):
            return f"it was not asked for attempt {message.attempt} of {message.rollout}"
        if message.state is ExecutionState.IN_PROGRESS:
            return None
        if device.release != desired.release:
            return f"it reports that it runs {device.release or 'nothing'}"
    is_asked = desired is not None and desired.rollout == message.rollout
    if desired is not None and is_asked and device.desired_version != desired.version:
        return f"it reports that it acted on version {device.desired_version}, and was asked for {desired.version}"
    return None


def needs_desired(device: Device, desired: Desired) -> bool:
    """Return whether the device has not acted on what is wanted of it."""
    return device.desired_version != desired.version


def reports_success(device: Device, desired: Desired | None) -> bool:
    """Return whether the device's report alone proves that its part in a rollout succeeded.

    An execution message can be lost; a report that names the desired version and runs its release says the same.
    """
    return (
        desired is not None
        and desired.rollout is not None
        and device.desired_version == desired.version
        and device.release == desired.release
    )
