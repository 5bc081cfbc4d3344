"""Samples of a file for a model's schema: arrays by the names of its inputs, or a table with a column a number."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.errors import DataFileError
from hedgerow.compile.sample_arrays import LABELS, read_arrays, read_cells
from hedgerow.compile.samples import fitted
from hedgerow.counted import counted
from hedgerow.schema import ModelSchema, TensorSpec

__all__ = ["NO_LABEL", "GivenSamples", "read_samples"]

NO_LABEL = -1
_LIMIT_BYTES = 512 * 2**20
_ENDINGS = (".npz", ".npy", ".csv")


@dataclass(frozen=True, slots=True)
class GivenSamples:
    """Samples as a model takes them.

    Attributes:
        inputs: Input name -> ``(n, *shape)``; of a model with state ``(n, steps, *shape)``.
        labels: Class of each, -1 where it is not known, ``int64[n]`` or ``int64[n, steps]``; None: none is known.
        notes: One sentence for everything that may surprise.
    """

    inputs: dict[str, NDArray[Any]]
    labels: NDArray[np.int64] | None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


def read_samples(path: Path, schema: ModelSchema) -> GivenSamples:
    """Read samples and check them by a schema.

    Args:
        path: A ``.npz``, ``.npy`` or ``.csv`` file.
        schema: Of the model.

    Raises:
        DataFileError: It cannot be read, or its samples are not the model's.
    """
    place, specs, notes = str(path), schema.given.inputs, list[str]()
    if path.suffix == ".npz":
        arrays = read_arrays(path)
        labels = arrays.pop(LABELS, None)
    elif path.suffix == ".npy":
        arrays, labels = {specs[0].name: _array(path)}, None
        if len(specs) > 1:
            raise DataFileError(place, f"arrays for {_listed(specs)}", "one array", "give a .npz file")
    elif path.suffix == ".csv":
        if schema.state:
            raise DataFileError(place, "sequences", "a table", "give a .npz file with arrays of (n, steps, ...)")
        arrays, labels = _table(path, specs, notes)
    else:
        raise DataFileError(place, f"a file that ends in {', '.join(_ENDINGS)}", repr(path.suffix or path.name))
    if len(specs) == len(arrays) == 1:
        arrays = {specs[0].name: next(iter(arrays.values()))}
    if set(arrays) != {spec.name for spec in specs}:
        raise DataFileError(place, f"arrays for {_listed(specs)}", ", ".join(map(repr, arrays)) or "none")
    inputs = {spec.name: fitted(place, spec, arrays[spec.name], bool(schema.state)) for spec in specs}
    _check_counts(place, inputs, schema)
    notes += [note for spec in specs if (note := _outside(spec, inputs[spec.name]))]
    return GivenSamples(inputs, _labels(place, labels, inputs, schema), tuple(notes))


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(repr(spec.name) for spec in specs)


def _array(path: Path) -> NDArray[Any]:
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise DataFileError(str(path), f"at most {_LIMIT_BYTES} bytes of arrays", str(path.stat().st_size))
        found = np.load(path, allow_pickle=False)
    except OSError as exc:
        raise DataFileError(str(path), "a file that can be read", exc.strerror or str(exc)) from exc
    except (ValueError, EOFError) as exc:
        raise DataFileError(str(path), "an array of numbers as numpy.save writes it", "something else") from exc
    if not isinstance(found, np.ndarray):
        raise DataFileError(str(path), "one array", "an archive", "let its name end in .npz")
    return found


def _table(
    path: Path, specs: Sequence[TensorSpec], notes: list[str]
) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    """Return the inputs of a table, and its labels as they stand there.

    Columns are called like an input of one number, or ``name.0``, ``name.1`` and so on in the order of the input's
    memory; the only input may have columns of any names, if there are as many as it has numbers.
    """
    place, (header, rows) = str(path), read_cells(path)
    if not rows or len(set(header)) != len(header) or any(len(row) != len(header) for row in rows):
        found = f"{len(rows)} rows under {', '.join(map(repr, header[:8])) or 'no header'}"
        raise DataFileError(place, "a header with each name once, and rows of its length", found)
    wanted = {spec.name: _columns(spec) for spec in specs}
    rest = [name for name in header if name != LABELS]
    if not all(set(columns) <= set(header) for columns in wanted.values()):
        if len(specs) > 1 or len(rest) != len(wanted[specs[0].name]):
            first = [
                columns[0] if len(columns) == 1 else f"{columns[0]} to {columns[-1]}" for columns in wanted.values()
            ]
            raise DataFileError(place, f"the columns {', '.join(first)}", ", ".join(map(repr, rest[:8])) or "none")
        wanted = {specs[0].name: rest}
    places = {name: place for place, name in enumerate(header)}
    left = [name for name in rest if not any(name in columns for columns in wanted.values())]
    if left:
        notes.append(f"{counted(len(left), 'column')} left out, such as {left[0]!r}")
    arrays: dict[str, NDArray[Any]] = {}
    for name, columns in wanted.items():
        cells = [(places[each], each) for each in columns]
        arrays[name] = np.array(
            [[_number(place, row[at], each, line) for at, each in cells] for line, row in enumerate(rows, start=2)]
        )
    return arrays, np.array([row[places[LABELS]] for row in rows]) if LABELS in places else None


def _columns(spec: TensorSpec) -> list[str]:
    size = int(np.prod(spec.shape, dtype=np.int64))
    return [spec.name] if size == 1 else [f"{spec.name}.{place}" for place in range(size)]


def _number(place: str, cell: str, column: str, line: int) -> float:
    try:
        return float(cell)
    except ValueError:
        found = f"{cell[:40]!r} in line {line}, column {column[:40]!r}"
        raise DataFileError(place, "a number in every cell", found) from None


def _check_counts(place: str, inputs: dict[str, NDArray[Any]], schema: ModelSchema) -> None:
    axes = 2 if schema.state else 1
    ranks = {spec.name: len(spec.shape) for spec in schema.given.inputs}
    if any(values.ndim != ranks[name] + axes for name, values in inputs.items()):
        raise DataFileError(place, "sequences, (n, steps, ...), for a model with state", "samples without steps")
    counts = {values.shape[:axes] for values in inputs.values()}
    if len(counts) > 1:
        found = " and ".join(" x ".join(map(str, count)) for count in sorted(counts))
        raise DataFileError(place, "as many samples of every input", found)
    if 0 in counts.pop():
        raise DataFileError(place, "at least one sample", "none")


def _outside(spec: TensorSpec, values: NDArray[Any]) -> str:
    """Return that samples are outside the valid range of an input, or nothing."""
    low, high = spec.minimum, spec.maximum
    outside = np.zeros(values.shape, bool)
    if low is not None:
        outside |= values < low
    if high is not None:
        outside |= values > high
    rows = int(outside.reshape(len(values), -1).any(axis=1).sum())
    bounds = f"{'' if low is None else f'{low:g}'}..{'' if high is None else f'{high:g}'}"
    return f"{counted(rows, 'sample')} of {len(values):,} with {spec.name} outside {bounds}" if rows else ""


def _labels(
    place: str, labels: NDArray[Any] | None, inputs: dict[str, NDArray[Any]], schema: ModelSchema
) -> NDArray[np.int64] | None:
    """Return labels as indices: whole numbers as they are, text by the names of the classes."""
    if labels is None:
        return None
    axes = 2 if schema.state else 1
    wanted = next(iter(inputs.values())).shape[:axes]
    if labels.shape != wanted:
        expected = f"labels of {' x '.join(map(str, wanted))}, one for each {'step' if schema.state else 'sample'}"
        raise DataFileError(place, expected, " x ".join(map(str, labels.shape)) or "one")
    if labels.dtype.kind in "US":
        labels = _indices(place, [str(each) for each in labels.reshape(-1)], schema).reshape(labels.shape)
    with np.errstate(invalid="ignore"):
        whole = labels.astype(np.int64) if labels.dtype.kind in "fiub" else None
    if whole is None or not np.array_equal(whole, labels):
        raise DataFileError(place, "whole numbers or names of classes as labels", f"{labels.dtype} others")
    last = max(0, len(schema.labels) - 1)
    if whole.min() < NO_LABEL or (schema.labels and whole.max() > last):
        raise DataFileError(place, f"labels in 0..{last}, or -1", f"{whole.min()}..{whole.max()}")
    return whole


def _indices(place: str, names: Sequence[str], schema: ModelSchema) -> NDArray[np.int64]:
    try:
        return np.array([int(name) if name else NO_LABEL for name in names], np.int64)
    except (ValueError, OverflowError):
        known = {name: index for index, name in enumerate(schema.labels)} | {"": NO_LABEL}
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            listed = ", ".join(schema.labels[:10]) or "none"
            raise DataFileError(place, f"labels among {listed}", repr(unknown[:40])) from None
        return np.array([known[name] for name in names], np.int64)
