"""A simulated sensor that sees handwritten digits: ``hedgerow agent run --source examples/digits/device.py:stream``.

Options: ``clients`` and ``index`` (which shard of the training images its user labelled), ``seed`` (of the shards) and
``rate_per_s`` (images served a second; 0: as fast as they are taken). The file ``world.json`` in the agent's state
folder changes what the sensor sees from the next image on: ``{"inverted": true, "shift": 1}`` moves the pixels one to
the right and then swaps dark and bright. Without the file it sees the images as they are. What the model reads on an
image goes to the debug log (``--log-level debug``); a real device would act on it.
"""

import json
import logging
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from digits_data import FIELD, PARTITION, TEST, TRAIN, digits
from numpy.typing import NDArray

from hedgerow.client import Answer, Sample, SourceContext

_log = logging.getLogger(__name__)
WHITE = 16


@dataclass(frozen=True, slots=True)
class World:
    """What stands between the digits and the sensor."""

    inverted: bool = False
    shift: int = 0

    def seen(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the sensor makes of an image, ``float32[1, 8, 8]``: shifted to the right, then inverted."""
        shift = max(0, min(self.shift, image.shape[-1]))
        moved = np.zeros_like(image)
        moved[..., shift:] = image[..., : image.shape[-1] - shift]
        return WHITE - moved if self.inverted else moved


class WorldFile:
    """``world.json``, read again whenever it changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed_ns: int | None = None
        self.world = World()
        self.changed()

    def changed(self) -> bool:
        """Return whether the world is another one than at the last call."""
        try:
            changed_ns = self._path.stat().st_mtime_ns
            if changed_ns == self._changed_ns:
                return False
            record = json.loads(self._path.read_text(encoding="utf-8"))
            world = World(bool(record.get("inverted", False)), int(record.get("shift", 0)))
        except FileNotFoundError:
            changed_ns, world = None, World()
        except (OSError, ValueError, AttributeError, TypeError) as exc:
            # Most likely half-written; it is looked at again before the next image.
            _log.debug("world.json is not readable yet: %s", exc)
            return False
        is_other = world != self.world
        self._changed_ns, self.world = changed_ns, world
        return is_other


def own_shard(options: Mapping[str, str]) -> NDArray[np.int64]:
    """Return which training images this device's user labelled, cut as the task cuts them."""
    labels = np.asarray(digits().target_values)[TRAIN.start : TRAIN.stop]
    rng = np.random.default_rng(int(options.get("seed", "0")))
    shards: list[NDArray[np.int64]] = PARTITION.split(labels, int(options.get("clients", "8")), rng)
    return shards[int(options.get("index", "0"))]


def stream(context: SourceContext) -> Generator[Sample, Answer | None, None]:
    """Yield labelled images to learn from, then test images to serve, for ever.

    Whenever the world changes, the user labels everything again: the images to learn from come once more, as the sensor
    sees them now. The test images go round in one fixed order, so any 247 in a row are each of them once.
    """
    everything = digits()
    images, labels = everything.inputs["image"], np.asarray(everything.target_values).tolist()
    learned = [*own_shard(context.options).tolist(), *FIELD]
    served = np.random.default_rng(list(context.device.encode())).permutation(np.arange(TEST.start, TEST.stop)).tolist()
    rate_per_s = float(context.options.get("rate_per_s", "50"))
    file = WorldFile(context.state_folder / "world.json")
    position, is_new, due = 0, True, time.monotonic()
    while True:
        if is_new:
            for index in learned:
                yield Sample({"image": file.world.seen(images[index])}, labels[index], "learn")
        index = served[position % len(served)]
        answer = yield Sample({"image": file.world.seen(images[index])}, labels[index], "serve")
        if answer is not None:
            _log.debug("%s reads a %s, %.0f %% sure", answer.release, answer.label, 100 * (answer.confidence or 0))
        position += 1
        if rate_per_s > 0:
            due = max(due + 1 / rate_per_s, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
        is_new = file.changed()
