"""A simulated gateway in a plant of motors: ``hedgerow agent run --source examples/winding/device.py:stream``.

Options: ``rate_per_s`` (windows a second, one motor after another; 0: as fast as they are taken) and ``known`` (the
share of windows whose winding temperature is known, as from motors with a thermometer; 0.05). What is known is served,
and kept to learn from. The file ``world.json`` in the agent's state folder changes what happens to the motors from the
next window on: ``{"blocked_fan": true}``. What the model estimates goes to the debug log; a real gateway would have a
drive reduce its current before the winding is too hot.
"""

import json
import logging
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
from motor import STEPS, drives

from hedgerow.client import Answer, Sample, SourceContext

_log = logging.getLogger(__name__)
_MOTORS, _DRIVE_STEPS = 256, 1200


def fan_is_blocked(path: Path) -> bool:
    """Return whether *path* says that dirt keeps the fans from cooling."""
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("blocked_fan") is True
    except (OSError, ValueError, AttributeError):
        return False


def stream(context: SourceContext) -> Generator[Sample, Answer | None, None]:
    """Yield the last 16 minutes of one motor after another, each at some moment of its ten hours, for ever."""
    rng = np.random.default_rng(list(context.device.encode()))
    rate_per_s, known = float(context.options.get("rate_per_s", "20")), float(context.options.get("known", "0.05"))
    file, due = context.state_folder / "world.json", time.monotonic()
    while True:
        is_blocked = fan_is_blocked(file)
        measured, inside = drives(_MOTORS, _DRIVE_STEPS, rng, blocked_fan=is_blocked)
        for motor, end in enumerate(rng.integers(STEPS, _DRIVE_STEPS, _MOTORS).tolist()):
            if fan_is_blocked(file) != is_blocked:
                break
            window = {"measured": measured[motor, end - STEPS : end]}
            truth = inside[motor, end - 1 : end] if rng.random() < known else None
            answer = yield Sample(window, target_value=truth)
            if answer is not None:
                _log.debug("%s: %s °C inside", answer.release, answer.told["winding"])
            if truth is not None:
                yield Sample(window, target_value=truth, use="learn")
            if rate_per_s > 0:
                due = max(due + 1 / rate_per_s, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))
