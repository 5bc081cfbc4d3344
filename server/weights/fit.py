"""Whether the weights of a file are those of a model, and what it takes to make them so. Pure."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.counted import counted
from hedgerow.server.weights.errors import WeightsFileError, WeightsMisfitError
from hedgerow.server.weights.weights_file import WeightsFile
from hedgerow.weights import Arrays

__all__ = ["FittedWeights", "fit_weights"]

_WRAPPERS = {"module": "DataParallel", "_orig_mod": "torch.compile"}
"""What wraps a model puts its own name before those of the model's tensors -> who does."""


@dataclass(frozen=True, slots=True)
class FittedWeights:
    """Weights as a task's model takes them.

    Attributes:
        arrays: Name -> array, each of the model's shape and dtype.
        notes: One sentence for everything that was changed.
    """

    arrays: Arrays
    notes: tuple[str, ...]


def fit_weights(
    file: WeightsFile, task: str, wanted: Mapping[str, NDArray[Any]], *, tied: Sequence[Collection[str]] = ()
) -> FittedWeights:
    """Return the weights of a file as a model takes them.

    Args:
        file: What was read.
        task: Name of the task, for messages.
        wanted: The tensors of a new model of it.
        tied: Sets of names of which each is one tensor of the model.

    Raises:
        WeightsMisfitError: Names or shapes are another model's.
        WeightsFileError: A tensor has numbers that the model's does not hold, or that are no numbers.
    """
    notes = [f"taken from the entry {file.entry!r} of the file"] if file.entry else []
    names = _bare_names(list(file.arrays), wanted, notes)
    found = {names[name]: array for name, array in file.arrays.items()}
    widened = {names[name] for name in file.widened}
    _fill_tied(file, found, tied, notes)
    missing, unexpected = [
        sorted(one - other) for one, other in ((wanted.keys(), found.keys()), (found.keys(), wanted.keys()))
    ]
    shapes = {
        name: (wanted[name].shape, array.shape)
        for name, array in sorted(found.items())
        if name in wanted and wanted[name].shape != array.shape
    }
    if missing or unexpected or shapes:
        raise WeightsMisfitError(str(file.path), task, missing=missing, unexpected=unexpected, shapes=shapes)
    _check_finite(file, found)
    arrays, changed = {}, defaultdict[str, list[str]](list)
    for name, array in sorted(found.items()):
        like = wanted[name].dtype
        arrays[name] = _as_type(file, name, array, like)
        was = "bfloat16" if name in widened else str(array.dtype)
        if was != str(like):
            changed[f"from {was} to {like}"].append(name)
    notes += [f"converted {how}: {counted(len(each), 'tensor')}, such as {each[0]}" for how, each in changed.items()]
    return FittedWeights(arrays, tuple(notes))


def _bare_names(found: Sequence[str], wanted: Collection[str], notes: list[str]) -> dict[str, str]:
    """Return each name in the file -> what it is in the model.

    A prefix that all names share is taken off where the rest are the model's names exactly; what DataParallel and
    torch.compile put into names is taken off in any case, unless the model has such names itself.
    """
    bare = {name: name for name in found}
    if set(found) == set(wanted):
        return bare
    for part, wrapper in _WRAPPERS.items():
        if any(part in name.split(".") for name in wanted):
            continue
        without = {name: ".".join(each for each in now.split(".") if each != part) for name, now in bare.items()}
        if without != bare and len(set(without.values())) == len(without):
            count = sum(without[name] != bare[name] for name in bare)
            notes.append(f"taken off the names of {counted(count, 'tensor')}: {part!r}, which {wrapper} puts there")
            bare = without
    firsts = {name.partition(".")[0] for name in bare.values()}
    if len(firsts) == 1:
        [first] = firsts
        without = {name: now.removeprefix(f"{first}.") for name, now in bare.items()}
        if set(without.values()) == set(wanted):
            notes.append(f"taken off the names of {counted(len(bare), 'tensor')}: the prefix {first!r}")
            bare = without
    return bare


def _fill_tied(file: WeightsFile, found: Arrays, tied: Sequence[Collection[str]], notes: list[str]) -> None:
    """Give each name of a tensor that the model ties the one array that the file has for it.

    Raises:
        WeightsFileError: It has different ones.
    """
    for group in tied:
        held = sorted(name for name in group if name in found)
        for name in held[1:]:
            if not np.array_equal(found[held[0]], found[name], equal_nan=found[name].dtype.kind == "f"):
                advice = "give the weights of a model that ties them"
                raise WeightsFileError(file.path, "two", advice, expected=f"one tensor as {held[0]} and {name}")
        for name in sorted(set(group) - set(held)) if held else ():
            found[name] = found[held[0]]
            notes.append(f"{name} is {held[0]}, as the model ties them")


def _check_finite(file: WeightsFile, found: Arrays) -> None:
    bad = [name for name, array in sorted(found.items()) if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if bad:
        held = f"NaN or infinity in {counted(len(bad), 'tensor')}, such as {bad[0]}"
        advice = "give the weights of a training that did not diverge, and keep masks out of the state dict"
        raise WeightsFileError(file.path, held, f"{advice} (persistent=False)", expected="finite numbers")


def _as_type(file: WeightsFile, name: str, array: NDArray[Any], like: np.dtype[Any]) -> NDArray[Any]:
    """Return an array in the model's dtype.

    Raises:
        WeightsFileError: It has numbers of another kind, or that the dtype does not hold.
    """
    if array.dtype == like:
        return array
    expected = f"numbers of {like} for {name}"
    # A float of another width is the same number, but for its last digits; a whole number must stay what it is.
    if (array.dtype.kind == "f") != (like.kind == "f"):
        raise WeightsFileError(
            file.path, str(array.dtype), "give float weights as they were trained", expected=expected
        )
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(like)
    same = np.isfinite(cast).all() if like.kind == "f" else np.array_equal(cast, array)
    if not same:
        raise WeightsFileError(file.path, "some that it does not hold", "scale the weights down", expected=expected)
    return cast
