"""A source for trying a model: the samples of a ``.npz`` file, again and again.

``hedgerow agent run --source hedgerow.client.sample_file:stream --source-option file=samples.npz``. The file has an
array for each input of the model, ``(n, *shape)``, and perhaps the target values: ``labels`` or ``target_values``, or
with several outputs ``target_values.NAME``, in the form that the output declares, unknown ones as it has them (-1 for a
class).

Options: ``file``; ``rate_per_s`` (samples a second; 0: as fast as they are taken); and ``sequences=1`` for a model with
state, whose arrays are all ``(n, steps, ...)``: each sequence is a stream that begins anew. The order is drawn from the
device's name, and is the same each time round.
"""

import time
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.client.answer import Answer
from hedgerow.client.errors import AgentSettingsError
from hedgerow.client.source import Sample, SourceContext
from hedgerow.errors import InputError
from hedgerow.outputs.wanted import taken_out

__all__ = ["stream"]


def stream(context: SourceContext) -> Generator[Sample, Answer | None, None]:
    """Yield the samples of the file, for ever.

    Raises:
        AgentSettingsError: The options or the file are not as this module says.
    """
    arrays, wanted = _read(context)
    sequences = context.options.get("sequences", "0") == "1"
    try:
        rate_per_s = float(context.options.get("rate_per_s", "50"))
    except ValueError:
        raise AgentSettingsError("--source-option rate_per_s: expected a number; correct it") from None
    count = len(next(iter(arrays.values())))
    order = np.random.default_rng(list(context.device.encode())).permutation(count).tolist()
    steps = next(iter(arrays.values())).shape[1] if sequences else 0
    due = time.monotonic()
    while True:
        for index in order:
            for step in range(max(1, steps)):
                place = (index, step) if steps else (index,)
                yield Sample(
                    {name: values[place] for name, values in arrays.items()},
                    target_value={name: values[place] for name, values in wanted.items()} or None,
                    begins=bool(steps) and step == 0,
                )
                if rate_per_s > 0:
                    due = max(due + 1 / rate_per_s, time.monotonic())
                    time.sleep(max(0.0, due - time.monotonic()))


def _read(context: SourceContext) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    if "file" not in context.options:
        raise AgentSettingsError("expected --source-option file=SAMPLES.npz, found none; name the file of samples")
    path = Path(context.options["file"])
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as exc:
        said = getattr(exc, "strerror", None) or type(exc).__name__
        raise AgentSettingsError(f"expected arrays by name in {path}, found none ({said}); correct the file") from exc
    try:
        wanted = taken_out(arrays)
    except InputError as exc:
        raise AgentSettingsError(f"{path}: {exc}") from exc
    axes = 2 if context.options.get("sequences", "0") == "1" else 1
    counts = {values.shape[:axes] for values in (*arrays.values(), *wanted.values())}
    if not arrays or len(counts) != 1 or any(len(count) < axes or 0 in count for count in counts):
        told = [" x ".join(map(str, count)) or "none" for count in sorted(counts)]
        raise AgentSettingsError(
            f"expected as many samples in each array of {path}, found {', '.join(told) or 'none'}; correct it"
        )
    return arrays, wanted
