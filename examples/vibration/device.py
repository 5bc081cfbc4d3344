"""A simulated accelerometer on a pump: ``hedgerow agent run --source examples/vibration/device.py:stream``.

Options: ``rate_per_s`` (windows a second; 0: as fast as they are taken), ``gain`` (of this device's sensor) and
``judged`` (the share of windows that a technician has judged; 0.05). The file ``world.json`` in the agent's state
folder changes what happens to the pump from the next window on: ``{"condition": "bearing"}``, one of machine.py's. What
the model flags goes to the debug log; a real device would call the technician.
"""

import json
import logging
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
from machine import CONDITIONS, windows

from hedgerow.client import Answer, Sample, SourceContext
from hedgerow.outputs import ANOMALOUS, NORMAL

_log = logging.getLogger(__name__)
_AT_ONCE = 16
NOTHING = "healthy"


def condition_of(path: Path) -> str:
    """Return what *path* says of the pump; healthy where it says nothing that is known."""
    try:
        said = str(json.loads(path.read_text(encoding="utf-8")).get("condition"))
    except (OSError, ValueError, AttributeError):
        return NOTHING
    return said if said in CONDITIONS else NOTHING


def stream(context: SourceContext) -> Generator[Sample, Answer | None, None]:
    """Yield windows to serve, for ever; some of them judged."""
    rng = np.random.default_rng(list(context.device.encode()))
    rate_per_s, gain = float(context.options.get("rate_per_s", "20")), float(context.options.get("gain", "1"))
    judged, file = float(context.options.get("judged", "0.05")), context.state_folder / "world.json"
    due = time.monotonic()
    while True:
        condition = condition_of(file)
        truth = NORMAL if condition == NOTHING else ANOMALOUS
        for window in windows(_AT_ONCE, condition, rng, gain=gain):
            answer = yield Sample({"vibration": window}, target_value=truth if rng.random() < judged else None)
            if answer is not None and answer.told.get("anomalous"):
                _log.debug("%s flags a window: anomaly score %.4f", answer.release, answer.told["anomaly"])
            if rate_per_s > 0:
                due = max(due + 1 / rate_per_s, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))
