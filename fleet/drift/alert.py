"""What a person should know: an alert, and what is remembered of a release that is watched for one. Pure.

Slices are ``device:<name>``, ``target:<name>`` and ``fleet``. What watches a release for drift
(:mod:`hedgerow.fleet.drift.alerts`) or for scores (:mod:`hedgerow.fleet.drift.scores`) has one alert open at a time,
which grows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from hedgerow.decode import Fields
from hedgerow.fleet.drift.findings import Finding
from hedgerow.manifest.release import RELEASE_ID

__all__ = [
    "DEVICE",
    "FLEET",
    "MANY",
    "TARGET",
    "Alert",
    "AlertKind",
    "Watched",
    "device_slice",
    "optional_numbers",
    "without_device",
]

DEVICE, TARGET, FLEET = "device:", "target:", "fleet"
"""How the slices of a device and of a hardware target begin, and the slice of the whole fleet."""

MANY = 10_000_000
"""More than there ever are of anything that is kept for each device."""


class AlertKind(StrEnum):
    """What an alert is about."""

    DRIFT = "drift"
    """Inputs or outputs moved."""
    SCORE = "score"
    """Scored samples say that the score lies below the floor."""
    RETRAINING = "retraining"
    """Retrainings brought no recovery, and are not tried again."""


_KINDS = {kind.value: kind for kind in AlertKind}


def device_slice(device: str) -> str:
    """Return the slice of one device."""
    return f"{DEVICE}{device}"


def optional_numbers(fields: Fields, key: str) -> dict[str, float]:
    """Return name -> number of a mapping that records from before it was kept do not have.

    Raises:
        DecodeError: It is no mapping of numbers.
    """
    found = fields.nested(key) if key in fields.names() else Fields({}, fields.where)
    return {name: found.number(name) for name in found.names()}


@dataclass(frozen=True, slots=True)
class Alert:
    """What a person should know, and perhaps a retraining answer.

    Attributes:
        id: Its identity.
        release: The release that ran.
        raised_at: End of the window that raised it, Unix seconds.
        devices: Those whose own windows drifted, sorted; empty when only a group shows it.
        features: What drifted, sorted.
        findings: The finding that confirmed each (slice, feature).
        windows: Windows that each of these devices sent from the first suspicious one to the confirmation; the most
            that any needed. 0 where the kind does not count them.
        kind: What it is about.
        reason: One sentence; empty for drift, where the findings say it.
        began: Slice -> since when the world may be another one there, Unix seconds; absent where that is not known.
    """

    id: str
    release: str
    raised_at: float
    devices: tuple[str, ...]
    features: tuple[str, ...]
    findings: tuple[Finding, ...]
    windows: int
    kind: AlertKind = AlertKind.DRIFT
    reason: str = ""
    began: Mapping[str, float] = field(default_factory=dict)

    def changed_at(self, device: str, target: str | None) -> float | None:
        """Return since when a device's world may be another one, Unix seconds; None: it is not known to be.

        An alert that names devices is about these; one that names none is about every device of its groups.
        """
        if self.devices:
            return self.began.get(device_slice(device))
        groups = (FLEET, f"{TARGET}{target}")
        return min((self.began[name] for name in groups if name in self.began), default=None)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "id": self.id,
            "kind": self.kind.value,
            "reason": self.reason,
            "began": dict(self.began),
            "release": self.release,
            "raised_at": self.raised_at,
            "devices": list(self.devices),
            "features": list(self.features),
            "findings": [finding.to_record() for finding in self.findings],
            "windows": self.windows,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Alert":
        """Decode an alert.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        began = optional_numbers(fields, "began")
        alert = cls(
            id=fields.text("id", maximum_chars=160),
            kind=fields.choice("kind", _KINDS) if "kind" in fields.names() else AlertKind.DRIFT,
            reason=fields.text("reason", maximum_chars=4096) if "reason" in fields.names() else "",
            began=began,
            release=fields.text("release", pattern=RELEASE_ID),
            raised_at=fields.number("raised_at"),
            devices=fields.texts("devices", maximum_items=MANY),
            features=fields.texts("features", maximum_items=MANY),
            findings=fields.sequence("findings", Finding.from_fields, maximum_items=MANY),
            windows=fields.integer("windows"),
        )
        fields.finish()
        return alert


@dataclass(frozen=True, slots=True)
class Watched:
    """What is remembered of a release, whatever it is watched for.

    Attributes:
        release: ``name@number``.
        raised: Alerts raised.
        forgotten: Devices whose slices were forgotten. What they have spent of the error probability stays spent.
        open: The alert that is open; None: none is.
    """

    release: str
    raised: int = 0
    forgotten: int = 0
    open: Alert | None = None

    def next_alert(
        self,
        kind: AlertKind,
        now: float,
        *,
        devices: Iterable[str],
        began: Mapping[str, float],
        features: tuple[str, ...] = (),
        findings: tuple[Finding, ...] = (),
        windows: int = 0,
        reason: str = "",
    ) -> Alert:
        """Return the open alert grown by what was found, or the next one when none is open.

        Args:
            kind: What it is about.
            now: End of the window that brings it, Unix seconds.
            devices: Those that are new to it.
            began: Slice -> since when; what the open alert says of a slice stays.
            features: All that drifted so far.
            findings: All that confirmed it so far.
            windows: The most that any device needed so far.
            reason: Why a new one is raised; an open one keeps its own.
        """
        before = self.open
        return Alert(
            id=before.id if before else f"{kind.value}-{self.release.replace('@', '-')}-{self.raised + 1}",
            release=self.release,
            raised_at=before.raised_at if before else now,
            devices=tuple(sorted({*(before.devices if before else ()), *devices})),
            features=features,
            findings=findings,
            windows=windows,
            kind=kind,
            reason=before.reason if before else reason,
            began={**began, **(before.began if before else {})},
        )

    def common_record(self) -> dict[str, Any]:
        """Return what every watched release has as plain JSON values."""
        return {
            "release": self.release,
            "raised": self.raised,
            "forgotten": self.forgotten,
            "open": None if self.open is None else self.open.to_record(),
        }

    @classmethod
    def common_fields(cls, fields: Fields) -> dict[str, Any]:
        """Decode what every watched release has: name of the argument -> value.

        Raises:
            DecodeError: A field is absent or out of bounds.
        """
        alert = fields.optional("open")
        return {
            "release": fields.text("release", pattern=RELEASE_ID),
            "raised": fields.integer("raised"),
            "forgotten": fields.integer("forgotten"),
            "open": None if alert is None else Alert.from_fields(alert),
        }


def without_device(alert: Alert, device: str) -> Alert:
    """Return an alert that does not name a device, because it was forgotten."""
    name = device_slice(device)
    findings = tuple(finding for finding in alert.findings if finding.slice != name)
    return replace(
        alert,
        devices=tuple(other for other in alert.devices if other != device),
        features=tuple(sorted({finding.feature for finding in findings})),
        findings=findings,
        began={other: moment for other, moment in alert.began.items() if other != name},
    )
