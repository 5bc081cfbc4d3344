"""Target values as a program or a file gives them, and as the outputs of a release declare them. Pure.

A source need not know which release serves: what it gives is kept as it came, and brought into a release's form when
that release counts it or learns from it.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.errors import InputError
from hedgerow.outputs import Output, Outputs
from hedgerow.outputs.outputs import MOST_OUTPUTS
from hedgerow.schema import TENSOR_NAME
from hedgerow.weights import Arrays

__all__ = ["LABELS", "ONLY", "TARGET_VALUES", "array_name", "as_declared", "as_given", "as_given_rows", "taken_out"]

ONLY = ""
"""Stands for the name of the only output, where a target value came without one."""

LABELS, TARGET_VALUES = "labels", "target_values"
"""Names of arrays, or columns, of a file of samples that hold the target values of the only output."""

_NUMBERS = "biuf"
_WHOLE = "biu"


def as_given(value: Any) -> Arrays:
    """Return what a source gave for one sample: output -> array of numbers; empty where nothing is known.

    Args:
        value: A number or an array; a mapping of names of outputs, or :data:`ONLY`, to such; None: nothing is known.

    Raises:
        InputError: It is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return {ONLY: _numbers(value, "the target value")}
    if len(value) > MOST_OUTPUTS:
        raise InputError(f"expected target values of at most {MOST_OUTPUTS} outputs, found {len(value)}")
    for name in value:
        if not isinstance(name, str) or not (name == ONLY or TENSOR_NAME.fullmatch(name)):
            raise InputError("expected target values by the names of outputs, found another name")
    return {name: _numbers(part, f"the target value of {name}") for name, part in value.items() if part is not None}


def as_given_rows(value: Any, samples: int) -> Arrays:
    """Return what a program gave for a batch, as :func:`as_given`, with the samples as the first dimension.

    Raises:
        InputError: It is something else, or of another number of samples.
    """
    given = as_given(value)
    for name, rows in given.items():
        if not rows.ndim or len(rows) != samples:
            found = f"an array of shape {rows.shape}"
            raise InputError(f"expected {samples} target values{f' of {name}' if name else ''}, found {found}")
    return given


def array_name(outputs: Outputs, name: str) -> str:
    """Return what an array of target values of the output *name* is called in a file of samples."""
    return TARGET_VALUES if len(outputs) == 1 else f"{TARGET_VALUES}.{name}"


def taken_out(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Take the target values out of the arrays of a file of samples, and return them.

    Args:
        arrays: By name: ``labels`` or ``target_values``, or ``target_values.NAME`` of several outputs; the others are
            inputs, and stay.

    Returns:
        Name of an output, or :data:`ONLY` -> the array.

    Raises:
        InputError: There are both of the only output.
    """
    places = {LABELS: ONLY, TARGET_VALUES: ONLY}
    if places.keys() <= arrays.keys():
        raise InputError(f"expected target values as {LABELS!r} or as {TARGET_VALUES!r}, found both; leave one out")
    named = [name for name in arrays if name in places or name.startswith(f"{TARGET_VALUES}.")]
    return {places.get(name, name.removeprefix(f"{TARGET_VALUES}.")): arrays.pop(name) for name in named}


def as_declared(outputs: Outputs, given: Mapping[str, NDArray[Any]], samples: int) -> Arrays:
    """Return target values in the form that the outputs declare; what was not given is unknown.

    Args:
        outputs: Those of the release.
        given: Name of an output, or :data:`ONLY` -> ``(samples, ...)``.
        samples: How many.

    Raises:
        InputError: They do not fit the outputs.
    """
    if ONLY in given and (len(given) > 1 or outputs.alone is None):
        raise InputError(f"expected target values by name ({_told(outputs)}), found one without a name")
    by_name = dict.fromkeys(outputs, given[ONLY]) if ONLY in given else given
    if others := sorted(by_name.keys() - outputs.keys()):
        raise InputError(f"expected target values of {_told(outputs)}, found {', '.join(others)}")
    return {
        name: _as_declared(name, output, by_name[name]) if name in by_name else output.unknown(samples)
        for name, output in outputs.items()
    }


def _as_declared(name: str, output: Output, values: NDArray[Any]) -> NDArray[Any]:
    shape, dtype = output.target_shape, np.dtype(output.target_dtype)
    # One number is one number, with a dimension around it or without.
    is_one = math.prod(shape) == math.prod(values.shape[1:]) == 1
    fits = values.shape[1:] == shape or is_one
    is_whole = dtype.kind not in _WHOLE or values.dtype.kind in _WHOLE
    form = f"{output.target_dtype}{list(shape)}"
    if not (fits and is_whole):
        found = f"{values.dtype}{list(values.shape[1:])}"
        if not fits:
            raise InputError(f"expected target values {form} a sample for {name}, found {found}")
        raise InputError(f"expected whole numbers, {form}, as target values for {name}, found {found}")
    if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        raise InputError(f"expected target values for {name} that fit {form}, found {values.max()}")
    with np.errstate(over="ignore"):  # what becomes infinite is a mistake of its own
        declared = values.astype(dtype).reshape(len(values), *shape)
    for row in declared:
        if mistakes := output.value_mistakes(row[None]):
            raise InputError(f"expected a target value of {output.kind} for {name}, found that {mistakes[0]}")
    return declared


def _numbers(value: Any, what: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except Exception as exc:
        # Without its text, which may quote the sample: a refusal is told to the fleet.
        raise InputError(f"expected {what} as numbers, found a {type(exc).__name__}") from exc
    if array.dtype.kind not in _NUMBERS:
        found = type(value).__name__ if not array.ndim else f"an array of the dtype {array.dtype}"
        raise InputError(f"expected {what} as numbers, found {found}")
    return array


def _told(outputs: Outputs) -> str:
    return ", ".join(outputs) or "no output"
