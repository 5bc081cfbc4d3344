"""What the demo reads off windows and alerts. Pure functions; every figure in the result comes from here."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hedgerow.score_counts import NO_SCORES
from hedgerow.window import Window

__all__ = ["SeenWindow", "accuracy_of", "false_alarms", "full_windows"]


@dataclass(frozen=True, slots=True)
class SeenWindow:
    """A window, who sent it, and in which part of the story it arrived.

    Attributes:
        device: Its sender.
        window: What was counted.
        phase: ``clean``, ``drifted`` or ``recovered`` by the demo's clock when the window *began*.
    """

    device: str
    window: Window
    phase: str


def full_windows(
    seen: Iterable[SeenWindow], *, release: str, phase: str, devices: Collection[str], samples: int, each: int
) -> dict[str, list[Window]]:
    """Return the first *each* complete windows of every device in a phase.

    A window of exactly *samples* predictions covers the device's whole test stream once, whatever its first sample
    was, so its accuracy depends on the model alone. Windows that a change of model cut short are left out.
    """
    found: dict[str, list[Window]] = {device: [] for device in devices}
    for entry in seen:
        if entry.device not in found or entry.phase != phase:
            continue
        if entry.window.release == release and entry.window.samples == samples and len(found[entry.device]) < each:
            found[entry.device].append(entry.window)
    return found


def accuracy_of(windows: Mapping[str, Sequence[Window]]) -> float | None:
    """Return the accuracy over all labelled samples, or None when a device sent nothing."""
    if not windows or not all(windows.values()):
        return None
    scores = sum((window.scores for sent in windows.values() for window in sent), NO_SCORES)
    return scores.mean if scores.samples else None


def false_alarms(alarmed: Iterable[tuple[str, str]], *, drifted: Collection[str]) -> int:
    """Count alarms that should not be: (phase, device) outside the drifted phase or about a device whose world held."""
    return sum(1 for phase, device in set(alarmed) if phase != "drifted" or device not in drifted)
