"""When findings become an alert, for one release. Pure: the state goes in and comes out, and can be stored.

Slices are ``device:<name>``, ``target:<name>`` and ``fleet``; the last two only where they hold two devices or more.
A device's slice is looked at with every window (windows too small for a test are added up first). A group's slice is
looked at once for every as many windows as it has devices, on the last window of each device that sent one since the
last look: two looks in a row then mean two windows of everyone, not the same windows twice.

An alert is raised when one feature of one slice has drifted at ``consecutive`` looks in a row. It names the devices
whose own slices drifted: none when only a group shows it. While it is open it grows and is not raised again. It also
says since when: the change lies somewhere in the windows of the last look that was clean or later.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np

from hedgerow.decode import Fields
from hedgerow.fleet.drift.alert import (
    DEVICE,
    FLEET,
    MANY,
    TARGET,
    Alert,
    AlertKind,
    Watched,
    device_slice,
    optional_numbers,
    without_device,
)
from hedgerow.fleet.drift.baselines import Baseline, Baselines
from hedgerow.fleet.drift.findings import DriftPlan, Finding, comparisons_of, test_window
from hedgerow.reference import Reference
from hedgerow.window import Window, merge_windows
from hedgerow.wire.topics import NAME

__all__ = [
    "DeviceDrift",
    "DriftState",
    "SliceDrift",
    "close_alert",
    "forget_device",
    "observe",
]


@dataclass(frozen=True, slots=True)
class DeviceDrift:
    """What is kept of a device.

    Attributes:
        target: Its hardware target.
        at: Number of the observation that brought its last window.
        last: Its last window, or the last few added up to a size that can be tested.
    """

    target: str
    at: int
    last: Window

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {"target": self.target, "at": self.at, "last": self.last.to_record()}

    @classmethod
    def from_fields(cls, fields: Fields) -> "DeviceDrift":
        """Decode a device."""
        device = cls(
            target=fields.text("target", pattern=NAME),
            at=fields.integer("at"),
            last=Window.from_fields(fields.nested("last")),
        )
        fields.finish()
        return device


@dataclass(frozen=True, slots=True)
class SliceDrift:
    """What is kept of a slice.

    Attributes:
        looks: How often it was tested.
        looked_at: Number of the observation at its last look.
        since: Windows since then.
        streaks: Feature -> looks in a row at which it had drifted.
        findings: What the last look found.
        began: Feature -> beginning of the windows of the look before its streak, the last that was clean; Unix seconds.
        last_began: Beginning of the windows of the last look; None before the first.
    """

    looks: int = 0
    looked_at: int = 0
    since: int = 0
    streaks: Mapping[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    began: Mapping[str, float] = field(default_factory=dict)
    last_began: float | None = None

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "looks": self.looks,
            "looked_at": self.looked_at,
            "since": self.since,
            "streaks": dict(self.streaks),
            "findings": [finding.to_record() for finding in self.findings],
            "began": dict(self.began),
            "last_began": self.last_began,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "SliceDrift":
        """Decode a slice."""
        streaks = fields.nested("streaks")
        drift = cls(
            looks=fields.integer("looks"),
            looked_at=fields.integer("looked_at"),
            since=fields.integer("since"),
            streaks={name: streaks.integer(name, minimum=1) for name in streaks.names()},
            findings=fields.sequence("findings", Finding.from_fields, maximum_items=MANY),
            began=optional_numbers(fields, "began"),
            last_began=fields.optional_number("last_began"),
        )
        fields.finish()
        return drift


@dataclass(frozen=True, slots=True)
class DriftState(Watched):
    """All that drift detection remembers of one release.

    Attributes:
        devices: Device -> what is kept of it.
        slices: Slice -> what is kept of it.
        observed: Windows seen.
    """

    devices: Mapping[str, DeviceDrift] = field(default_factory=dict)
    slices: Mapping[str, SliceDrift] = field(default_factory=dict)
    observed: int = 0

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            **self.common_record(),
            "devices": {name: device.to_record() for name, device in self.devices.items()},
            "slices": {name: drift.to_record() for name, drift in self.slices.items()},
            "observed": self.observed,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "DriftState":
        """Decode a state.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        state = cls(
            **cls.common_fields(fields),
            devices=fields.mapping("devices", DeviceDrift.from_fields, maximum_items=MANY),
            slices=fields.mapping("slices", SliceDrift.from_fields, maximum_items=MANY),
            observed=fields.integer("observed"),
        )
        fields.finish()
        return state


def observe(
    state: DriftState,
    reference: Reference,
    device: str,
    target: str,
    window: Window,
    plan: DriftPlan,
    rng: np.random.Generator,
    baselines: Baselines | None = None,
) -> tuple[DriftState, tuple[Alert, ...]]:
    """Take one window of one device in.

    Args:
        state: What is remembered of the window's release; a new release starts with ``DriftState(release)``.
        reference: The release's reference.
        device: Who sent it.
        target: Its hardware target.
        window: What it counted.
        plan: The thresholds.
        rng: Decides the draws of permutation tests.
        baselines: Device -> counts that stand for the reference in its slice
            (:func:`hedgerow.fleet.drift.findings.counts_of`). A group whose devices all have one is compared with
            their sum.

    Returns:
        The new state, and the alert when it was raised or has grown.

    Raises:
        ValueError: The window belongs to another release.
    """
    if window.release != state.release:
        raise ValueError(f"expected a window of {state.release}, found one of {window.release}")
    known = state.devices.get(device)
    grown = merge_windows(known.last, window) if known and known.last.samples < plan.minimum_samples else window
    observed = state.observed + 1
    devices = {**state.devices, device: DeviceDrift(target, observed, grown)}
    slices = dict(state.slices)
    targets = [entry.target for entry in devices.values()]
    groups = [f"{TARGET}{target}"] * (targets.count(target) > 1) + [FLEET] * (len(devices) > 1)
    comparisons = _slices_ever(state, devices) * comparisons_of(reference)
    confirmed: list[tuple[Finding, int]] = []
    changes: dict[str, float] = {}
    for name in (device_slice(device), *groups):
        before = slices.get(name, SliceDrift())
        members = _members(name, devices)
        slices[name] = waiting = replace(before, since=before.since + 1)
        if waiting.since < len(members):
            continue
        fresh = [member for member in members if devices[member].at > before.looked_at]
        merged = reduce(merge_windows, (devices[member].last for member in fresh))
        if merged.samples < plan.minimum_samples:
            continue
        findings = test_window(
            reference,
            merged,
            plan,
            slice=name,
            look=before.looks + 1,
            comparisons=comparisons,
            rng=rng,
            baseline=_sum_of(fresh, baselines or {}),
        )
        slices[name] = after = _after_look(before, findings, observed, merged.started_at)
        sure = [finding for finding in findings if after.streaks.get(finding.feature, 0) >= plan.consecutive]
        confirmed += [(finding, after.streaks[finding.feature]) for finding in sure]
        if sure:
            changes[name] = min(after.began[finding.feature] for finding in sure)
    grown_state = replace(state, devices=devices, slices=slices, observed=observed)
    return _alerted(grown_state, confirmed, changes, window.ended_at)


def _slices_ever(state: DriftState, devices: Mapping[str, DeviceDrift]) -> int:
    """Return how many slices share the level: those of devices, forgotten ones too, and of groups of two or more."""
    targets = [entry.target for entry in devices.values()]
    groups = sum(targets.count(target) > 1 for target in set(targets)) + (len(devices) > 1)
    return len(devices) + state.forgotten + groups


def _after_look(before: SliceDrift, findings: tuple[Finding, ...], observed: int, started_at: float) -> SliceDrift:
    """Return a slice after a look at windows that began at *started_at*."""
    streaks = {finding.feature: before.streaks.get(finding.feature, 0) + 1 for finding in findings if finding.drifted}
    last_clean = before.last_began if before.last_began is not None else started_at
    began = {feature: before.began.get(feature, last_clean) for feature in streaks}
    return SliceDrift(before.looks + 1, observed, 0, streaks, findings, began, started_at)


def _members(name: str, devices: Mapping[str, DeviceDrift]) -> list[str]:
    if name == FLEET:
        return sorted(devices)
    if name.startswith(TARGET):
        return sorted(member for member, entry in devices.items() if entry.target == name.removeprefix(TARGET))
    return [name.removeprefix(DEVICE)]


def _sum_of(members: Iterable[str], baselines: Baselines) -> Baseline | None:
    """Return the sum of the members' baselines, of the features that all of them have; None: a member has none."""
    found = [baselines.get(member) for member in members]
    given = [baseline for baseline in found if baseline]
    if len(given) < len(found):
        return None
    shared = set(given[0]).intersection(*given[1:])
    return {name: [sum(bins) for bins in zip(*(b[name] for b in given), strict=True)] for name in sorted(shared)}


def _alerted(
    state: DriftState, confirmed: Sequence[tuple[Finding, int]], changes: Mapping[str, float], now: float
) -> tuple[DriftState, tuple[Alert, ...]]:
    before = state.open
    known = {(finding.slice, finding.feature) for finding in before.findings} if before else set()
    news = [(finding, streak) for finding, streak in confirmed if (finding.slice, finding.feature) not in known]
    if not news:
        return state, ()
    findings = (*(before.findings if before else ()), *(finding for finding, _ in news))
    alert = state.next_alert(
        AlertKind.DRIFT,
        now,
        devices=[f.slice.removeprefix(DEVICE) for f in findings if f.slice.startswith(DEVICE)],
        began=changes,
        features=tuple(sorted({f.feature for f in findings})),
        findings=tuple(sorted(findings, key=lambda finding: (finding.slice, finding.feature))),
        windows=max([before.windows if before else 0, *(streak for _, streak in news)]),
    )
    return replace(state, raised=state.raised + (before is None), open=alert), (alert,)


def close_alert(state: DriftState) -> DriftState:
    """Close the open alert. What still drifts must be seen ``consecutive`` times again to raise another."""
    slices = {name: replace(drift, streaks={}, began={}) for name, drift in state.slices.items()}
    return replace(state, open=None, slices=slices)


def forget_device(state: DriftState, device: str) -> DriftState:
    """Leave a device that was forgotten out of every group from now on, and out of the open alert.

    One that comes back under its name is new; what the old one has spent of the level stays spent.
    """
    if device not in state.devices:
        return state
    devices = {name: entry for name, entry in state.devices.items() if name != device}
    slices = {name: drift for name, drift in state.slices.items() if name != device_slice(device)}
    left = without_device(state.open, device) if state.open is not None else None
    still_open = left if left is not None and left.findings else None
    return replace(state, devices=devices, slices=slices, forgotten=state.forgotten + 1, open=still_open)
