"""A simulated accelerometer on a pump: ``hedgerow agent run --source examples/vibration/device.py:stream``.

Options: ``rate_per_s`` (windows a second; 0: as fast as they are taken), ``gain`` (of this device's sensor) and
``judged`` (the share of windows that a technician has judged; 0.05). What is judged is served, and kept to learn from;
from what was judged anomalous no model learns. The file ``world.json`` in the agent's state folder changes what
happens from the next window on: ``{"condition": "bearing"}``, one of machine.py's, is a fault of the pump;
``{"gain": 1.8}`` is a sound pump whose sensor sits elsewhere since the last overhaul, and sees 1.8 times as much. What
the model flags goes to the debug log; a real device would call the technician.
"""

import json
import logging
import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import CONDITIONS, windows

from hedgerow.client import Answer, Sample, SourceContext
from hedgerow.outputs import ANOMALOUS, NORMAL

_log = logging.getLogger(__name__)
_AT_ONCE = 16
HEALTHY = "healthy"


@dataclass(frozen=True, slots=True)
class World:
    """How the pump is, and how much more than at first its sensor sees."""

    condition: str = HEALTHY
    gain: float = 1.0


def world_of(path: Path) -> World:
    """Return what *path* says; a healthy pump and the first gain where it says nothing that is known."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        condition, gain = str(record.get("condition", HEALTHY)), float(record.get("gain", 1.0))
    except (OSError, ValueError, AttributeError, TypeError):
        return World()
    return World(condition if condition in CONDITIONS else HEALTHY, gain if math.isfinite(gain) and gain > 0 else 1.0)


def stream(context: SourceContext) -> Generator[Sample, Answer | None, None]:
    """Yield windows to serve, for ever; some of them judged, and these also to learn from."""
    rng = np.random.default_rng(list(context.device.encode()))
    rate_per_s, gain = float(context.options.get("rate_per_s", "20")), float(context.options.get("gain", "1"))
    judged, file = float(context.options.get("judged", "0.05")), context.state_folder / "world.json"
    due = time.monotonic()
    while True:
        world = world_of(file)
        truth = NORMAL if world.condition == HEALTHY else ANOMALOUS
        for window in windows(_AT_ONCE, world.condition, rng, gain=gain * world.gain):
            if world_of(file) != world:
                break
            said = truth if rng.random() < judged else None
            answer = yield Sample({"vibration": window}, target_value=said)
            if answer is not None and answer.told.get("anomalous"):
                _log.debug("%s flags a window: anomaly score %.4f", answer.release, answer.told["anomaly"])
            if said is not None:
                yield Sample({"vibration": window}, target_value=said, use="learn")
            if rate_per_s > 0:
                due = max(due + 1 / rate_per_s, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))
