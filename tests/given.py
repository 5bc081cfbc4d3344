"""Answers of a made-up model to samples whose target values are known: right on those that a test names, else wrong."""

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.outputs import ANOMALOUS, Classes, Custom, Labels, Output, Outputs, Reconstruction, Tokens, Values

Target = Mapping[str, NDArray[Any]]


def given(outputs: Outputs, wanted: Target, is_right: NDArray[np.bool_], seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return answers by output, right where *is_right* says so."""
    rng = np.random.default_rng(seed)
    return {name: _given(output, wanted[name], is_right, rng) for name, output in outputs.items()}


@singledispatch
def _given(output: Output, wanted: NDArray[Any], is_right: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[Any]:
    raise NotImplementedError(output.kind)


@_given.register
def _(output: Classes, wanted, is_right, rng):
    count = len(output.names)
    said = np.where(is_right, wanted, (wanted + 1) % count)
    return (np.eye(count)[said] * 0.8 + 0.2 / count + rng.uniform(0, 0.01, (len(said), count))).astype(np.float32)


@_given.register
def _(output: Labels, wanted, is_right, rng):
    said = np.where(is_right[:, None], wanted, 1 - wanted)
    return (said * 0.7 + 0.1 + rng.uniform(0, 0.1, said.shape)).astype(np.float32)


@_given.register
def _(output: Values, wanted, is_right, rng):
    off = np.where(is_right, 0.02, 0.9)[:, None] + rng.uniform(0, 0.02, wanted.shape)
    return (wanted + off * np.asarray(output.tolerance)).astype(np.float32)


@_given.register
def _(output: Reconstruction, wanted, is_right, rng):
    flagged = (wanted == ANOMALOUS) == is_right
    part = np.where(flagged, rng.uniform(1.1, 3, len(wanted)), rng.uniform(0.1, 0.9, len(wanted)))
    return (part * output.threshold)[:, None].astype(np.float32)


@_given.register
def _(output: Tokens, wanted, is_right, rng):
    count = len(output.vocabulary)
    said = np.where(is_right[:, None], wanted, (wanted + 1) % count)
    return (np.eye(count)[said] * 0.8 + 0.2 / count + rng.uniform(0, 0.01, (*said.shape, count))).astype(np.float32)


@_given.register
def _(output: Custom, wanted, is_right, rng):
    turned = np.where(is_right, wanted, wanted + np.pi)
    unit = np.stack([np.cos(turned), np.sin(turned)], axis=1)
    return (unit + rng.uniform(0, 0.05, unit.shape)).astype(np.float32)
