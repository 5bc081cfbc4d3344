"""The reference that ships in a release: bins of the training inputs and of the float model's held-out outputs."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.features import CONFIDENCE, PREDICTED, input_features, output_features, whole_features
from hedgerow.reference import MISSING, Reference, build_reference
from hedgerow.schema import ModelSchema
from hedgerow.task import Dataset, TaskData
from hedgerow.window import is_output_feature

__all__ = ["fingerprint", "make_reference"]


def make_reference(
    schema: ModelSchema,
    train: Dataset,
    held_out_probabilities: NDArray[Any],
    counts: Mapping[str, Sequence[int]] | None = None,
) -> Reference:
    """Cut and count the reference.

    Args:
        schema: The task's.
        train: What the inputs' bins are cut from.
        held_out_probabilities: The float model's output on data that it was not trained on, ``(n, classes)``: on
            training data it would be too sure of itself.
        counts: Counts in these bins that devices made of the data they trained on; they replace those of *train*.
            Counts of output features are left out, because they describe the model before.

    Raises:
        ValueError: *counts* names an unknown feature, or has another number of bins.
    """
    outputs = output_features(held_out_probabilities)
    reference = build_reference(
        {CONFIDENCE: outputs[CONFIDENCE]},
        {PREDICTED: (outputs[PREDICTED], schema.labels)},
        inputs=input_features(schema, train.inputs),
        whole=whole_features(schema),
    )
    replaced = {
        name: tuple(values)
        for name, values in (counts or {}).items()
        if not is_output_feature(name.removeprefix(MISSING))
    }
    bins = {feature.name: len(feature.counts) for feature in reference.features}
    bins |= {MISSING + name: 2 for name in bins}
    for name, values in replaced.items():
        if bins.get(name) != len(values):
            raise ValueError(f"expected counts of {name!r} in {bins.get(name, 'no')} bins, found {len(values)}")
    return reference.recounted(replaced)


def fingerprint(data: TaskData) -> str:
    """Return the SHA-256 of everything in *data*: names, types, shapes and values."""
    digest = hashlib.sha256()
    for dataset in (data.train, data.held_out, data.calibration_or_default()):
        columns = {**{f"input.{n}": v for n, v in dataset.inputs.items()}, "labels": dataset.labels}
        for name in sorted(columns):
            values = np.ascontiguousarray(columns[name])
            digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()
