"""What the demo found, as data: the last line of ``hedgerow demo --json`` and the source of table and report."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "ArtifactResult",
    "BadReleaseResult",
    "DemoResult",
    "DeviceTrainResult",
    "DriftResult",
    "FirstTrainResult",
    "RolloutResult",
]


@dataclass(frozen=True, slots=True)
class FirstTrainResult:
    """The first training."""

    strategy: str
    rounds: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class ArtifactResult:
    """One artifact of the first release; accuracies are None where nothing on this machine can run it."""

    target: str
    format: str
    bytes: int
    float_bytes: int
    accuracy: float | None
    float_accuracy: float
    sha256: str
    checks: dict[str, str]


@dataclass(frozen=True, slots=True)
class RolloutResult:
    """The rollout of the first release."""

    state: str
    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class DriftResult:
    """What happened when the world moved."""

    injected_devices: list[str]
    detected: bool
    alerted_devices: list[str]
    features: list[str]
    largest_effect_js_bits: float
    windows_to_detect: int
    false_alarms: int
    accuracy_before: float
    accuracy_during: float


@dataclass(frozen=True, slots=True)
class DeviceTrainResult:
    """The training on the devices."""

    trigger: str
    grid: str
    rounds: int
    accuracy_after: float
    accuracy_after_undrifted: float


@dataclass(frozen=True, slots=True)
class BadReleaseResult:
    """The release that must not pass."""

    stopped: bool
    exposed: int
    rolled_back: bool
    reason: str


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Everything."""

    seconds: float
    broker: str
    devices: int
    train: FirstTrainResult
    artifacts: list[ArtifactResult]
    rollout: RolloutResult
    drift: DriftResult
    retrain: DeviceTrainResult
    bad_release: BadReleaseResult
    final_release: str

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values, with accuracies rounded to four digits."""
        rounded = _rounded(asdict(self))
        if not isinstance(rounded, dict):
            raise TypeError("a result is a mapping")
        return rounded


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
