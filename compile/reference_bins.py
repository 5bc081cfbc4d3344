"""The reference that ships in a release: bins of the training inputs and of the float model's held-out outputs."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.features import input_features, is_output_feature, whole_features
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs.outputs import Arrays
from hedgerow.reference import MISSING, Reference, build_reference
from hedgerow.task import Dataset

__all__ = ["fingerprint", "make_reference"]


def make_reference(
    schema: ModelSchema,
    train: Dataset,
    held_out_answers: Arrays,
    held_out_wanted: Arrays,
    counts: Mapping[str, Sequence[int]] | None = None,
) -> Reference:
    """Cut and count the reference.

    Args:
        schema: The task's.
        train: What the inputs' bins are cut from.
        held_out_answers: The float model's answers to data that it was not trained on, by output: on training data it
            would be too sure of itself.
        held_out_wanted: Their target values, by output. What a model does not learn from, as what is anomalous, is
            there to measure it; a device seldom meets it, so answers to it are not what is expected.
        counts: Counts in these bins that devices made of the data they trained on; they replace those of *train*.
            Counts of output features are left out, because they describe the model before.

    Raises:
        ValueError: *counts* names an unknown feature, or has another number of bins.
    """
    usual = {
        name: held_out_answers[name][output.learnable(held_out_wanted[name])] for name, output in schema.answers.items()
    }
    outputs, names = schema.answers.features(usual), schema.answers.categories()
    reference = build_reference(
        {name: values for name, values in outputs.items() if name not in names},
        {name: (outputs[name], tuple(categories)) for name, categories in names.items()},
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


def fingerprint(parts: Sequence[Dataset]) -> str:
    """Return the SHA-256 of everything in data sets, in order: names, types, shapes and values."""
    digest = hashlib.sha256()
    for dataset in parts:
        columns = {**{f"input.{n}": v for n, v in dataset.inputs.items()}, **_targets(dataset.target_values)}
        for name in sorted(columns):
            values = np.ascontiguousarray(columns[name])
            digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def _targets(values: NDArray[Any] | Arrays | None) -> Arrays:
    if values is None:
        return {}
    return (
        {f"labels.{name}": part for name, part in values.items()} if isinstance(values, Mapping) else {"labels": values}
    )
