"""A source for trying a model: the samples of a ``.npz`` file, again and again.

``hedgerow agent run --source hedgerow.client.sample_file:stream --source-option file=samples.npz``. The file has an
array for each input of the model, ``(n, *shape)``, and perhaps ``labels``, ``int64[n]``, of which -1 stands for a label
that is not known. For a model with state all are sequences, ``(n, steps, ...)``, each a stream that begins anew.

Options: ``file``, and ``rate_per_s`` (samples a second; 0: as fast as they are taken). The order is drawn from the
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

__all__ = ["stream"]

_LABELS, _UNKNOWN = "labels", -1


def stream(context: SourceContext) -> Generator[Sample, Answer | None, None]:
    """Yield the samples of the file, for ever.

    Raises:
        AgentSettingsError: The options or the file are not as this module says.
    """
    arrays, labels = _read(context)
    try:
        rate_per_s = float(context.options.get("rate_per_s", "50"))
    except ValueError:
        raise AgentSettingsError("--source-option rate_per_s: expected a number; correct it") from None
    count = len(next(iter(arrays.values())))
    order = np.random.default_rng(list(context.device.encode())).permutation(count).tolist()
    steps = labels.shape[1] if labels is not None and labels.ndim == 2 else 0
    due = time.monotonic()
    while True:
        for index in order:
            for step in range(max(1, steps)):
                place = (index, step) if steps else (index,)
                label = _UNKNOWN if labels is None else int(labels[place])
                yield Sample(
                    {name: values[place] for name, values in arrays.items()},
                    None if label == _UNKNOWN else label,
                    begins=bool(steps) and step == 0,
                )
                if rate_per_s > 0:
                    due = max(due + 1 / rate_per_s, time.monotonic())
                    time.sleep(max(0.0, due - time.monotonic()))


def _read(context: SourceContext) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    if "file" not in context.options:
        raise AgentSettingsError("expected --source-option file=SAMPLES.npz, found none; name the file of samples")
    path = Path(context.options["file"])
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as exc:
        said = getattr(exc, "strerror", None) or type(exc).__name__
        raise AgentSettingsError(f"expected arrays by name in {path}, found none ({said}); correct the file") from exc
    labels = arrays.pop(_LABELS, None)
    counts = {len(values) if values.ndim else 0 for values in (*arrays.values(), *([] if labels is None else [labels]))}
    if not arrays or len(counts) != 1 or 0 in counts:
        raise AgentSettingsError(
            f"expected as many samples in each array of {path}, found {sorted(counts)}; correct it"
        )
    return arrays, labels
