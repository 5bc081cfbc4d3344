"""The serving thread: takes samples from the source, one after another, for ever."""

import logging
from collections.abc import Iterator

import numpy as np

from hedgerow.client.buffer import LabelledBuffer
from hedgerow.client.serving import ActiveModel
from hedgerow.client.source import Sample, Source, SourceContext
from hedgerow.schema import InputError

__all__ = ["feed", "run_source"]

_log = logging.getLogger(__name__)


def feed(sample: Sample, active: ActiveModel, buffer: LabelledBuffer) -> None:
    """Serve or keep one sample.

    Raises:
        InputError: It does not match the schema of the active release.
        OSError: The labelled buffer could not be written.
    """
    if sample.use == "learn":
        if sample.label is not None:
            buffer.add(sample.inputs, sample.label)
        return
    inputs = {name: np.asarray(values)[None] for name, values in sample.inputs.items()}
    label = -1 if sample.label is None else sample.label
    active.predict(inputs, np.asarray([label], dtype=np.int64))


def run_source(source: Source, context: SourceContext, active: ActiveModel, buffer: LabelledBuffer) -> Iterator[None]:
    """Feed samples until the source ends; yield after each, so that the caller can stop in between."""
    refused = 0
    for sample in source(context):
        try:
            feed(sample, active, buffer)
        except InputError as exc:
            refused += 1
            # Each time would fill the disk; a power of ten says enough.
            if str(refused).strip("0") == "1":
                _log.warning("sample %d refused: %s", refused, exc)
        except OSError as exc:
            _log.error("a labelled sample could not be kept: %s", exc)
        yield
    _log.info("the source ended")
