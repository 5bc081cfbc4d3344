"""A simulated motor drive: ``hedgerow agent run --source examples/winding/device.py:stream``.

Options: ``rate_per_s`` (measurements a second; 0: as fast as they are taken) and ``known`` (the share of windows whose
winding temperature is known, as from a motor on a test bench; 0.05). The file ``world.json`` in the agent's state
folder changes what happens to the motor from the next drive of ten hours on: ``{"blocked_fan": true}``. What the model
estimates goes to the debug log; a real drive would reduce its current before the winding is too hot.
"""

import json
import logging
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
from motor import STEPS, drive

from hedgerow.client import Answer, Sample, SourceContext

_log = logging.getLogger(__name__)
_DRIVE_STEPS = 1200


def fan_is_blocked(path: Path) -> bool:
    """Return whether *path* says that dirt keeps the fan from cooling."""
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("blocked_fan") is True
    except (OSError, ValueError, AttributeError):
        return False


def stream(context: SourceContext) -> Generator[Sample, Answer | None, None]:
    """Yield the last 16 minutes at each measurement, drive after drive, for ever."""
    rng = np.random.default_rng(list(context.device.encode()))
    rate_per_s, known = float(context.options.get("rate_per_s", "20")), float(context.options.get("known", "0.05"))
    due = time.monotonic()
    while True:
        measured, inside = drive(_DRIVE_STEPS, rng, blocked_fan=fan_is_blocked(context.state_folder / "world.json"))
        for end in range(STEPS, _DRIVE_STEPS):
            truth = inside[end - 1 : end] if rng.random() < known else None
            answer = yield Sample({"measured": measured[end - STEPS : end]}, target_value=truth)
            if answer is not None:
                _log.debug("%s: %s °C inside", answer.release, answer.told["winding"])
            if rate_per_s > 0:
                due = max(due + 1 / rate_per_s, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))
