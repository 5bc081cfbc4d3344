"""Samples of a file for a model's schema: arrays by the names of its inputs, or a table with a column a number."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.errors import DataFileError
from hedgerow.compile.sample_arrays import read_arrays, read_cells
from hedgerow.compile.samples import fitted
from hedgerow.counted import counted
from hedgerow.errors import InputError
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Output
from hedgerow.outputs.wanted import LABELS, ONLY, TARGET_VALUES, as_declared, taken_out
from hedgerow.schema import TensorSpec

__all__ = ["GivenSamples", "read_samples"]

NO_LABEL = -1
_LIMIT_BYTES = 512 * 2**20
_ENDINGS = (".npz", ".npy", ".csv")


@dataclass(frozen=True, slots=True)
class GivenSamples:
    """Samples as a model takes them.

    Attributes:
        inputs: Input name -> ``(n, *shape)``; of a model with state ``(n, steps, *shape)``.
        target_values: By output, as it declares them, a row for each sample or step; None: none is known.
        notes: One sentence for everything that may surprise.
    """

    inputs: dict[str, NDArray[Any]]
    target_values: dict[str, NDArray[Any]] | None
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
        wanted = _taken_out(place, arrays)
    elif path.suffix == ".npy":
        arrays, wanted = {specs[0].name: _array(path)}, {}
        if len(specs) > 1:
            raise DataFileError(place, f"arrays for {_listed(specs)}", "one array", "give a .npz file")
    elif path.suffix == ".csv":
        if schema.state:
            raise DataFileError(place, "sequences", "a table", "give a .npz file with arrays of (n, steps, ...)")
        arrays, wanted = _table(path, specs, notes)
    else:
        raise DataFileError(place, f"a file that ends in {', '.join(_ENDINGS)}", repr(path.suffix or path.name))
    if len(specs) == len(arrays) == 1:
        arrays = {specs[0].name: next(iter(arrays.values()))}
    if set(arrays) != {spec.name for spec in specs}:
        raise DataFileError(place, f"arrays for {_listed(specs)}", ", ".join(map(repr, arrays)) or "none")
    inputs = {spec.name: fitted(place, spec, arrays[spec.name], bool(schema.state)) for spec in specs}
    _check_counts(place, inputs, schema)
    notes += [note for spec in specs if (note := _outside(spec, inputs[spec.name]))]
    if wanted and not schema.answers:
        notes.append("target values are left out, for nobody has said what the model gives")
        wanted = {}
    return GivenSamples(inputs, _target_values(place, wanted, inputs, schema), tuple(notes))


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
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return the inputs of a table, and its target values as they stand there.

    Columns are called like an input of one number, or ``name.0``, ``name.1`` and so on in the order of the input's
    memory; the only input may have columns of any names, if there are as many as it has numbers.
    """
    place, (header, rows) = str(path), read_cells(path)
    if not rows or len(set(header)) != len(header) or any(len(row) != len(header) for row in rows):
        found = f"{len(rows)} rows under {', '.join(map(repr, header[:8])) or 'no header'}"
        raise DataFileError(place, "a header with each name once, and rows of its length", found)
    wanted = {spec.name: _columns(spec) for spec in specs}
    rest = [name for name in header if not _is_target(name)]
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
    columns_of: dict[str, list[int]] = {}
    for name in filter(_is_target, header):
        columns_of.setdefault(re.sub(r"\.\d+$", "", name), []).append(places[name])
    cells_by_name: dict[str, NDArray[Any]] = {}
    for name, at in columns_of.items():
        texts = np.array([[row[column] for column in at] for row in rows])
        cells_by_name[name] = texts if len(at) > 1 else texts[:, 0]
    return arrays, _taken_out(str(path), cells_by_name)


def _taken_out(place: str, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    try:
        return taken_out(arrays)
    except InputError as exc:
        raise DataFileError(
            place, f"target values as {LABELS!r} or as {TARGET_VALUES!r}", "both", "leave one out"
        ) from exc


def _is_target(column: str) -> bool:
    return column in {LABELS, TARGET_VALUES} or column.startswith(f"{TARGET_VALUES}.")


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


def _target_values(
    place: str, given: dict[str, NDArray[Any]], inputs: dict[str, NDArray[Any]], schema: ModelSchema
) -> dict[str, NDArray[Any]] | None:
    """Return target values as the outputs declare them, a row for each sample or step; text by the names it is."""
    if not given:
        return None
    axes = 2 if schema.state else 1
    wanted = next(iter(inputs.values())).shape[:axes]
    rows: dict[str, NDArray[Any]] = {}
    for name, values in given.items():
        if values.shape[:axes] != wanted:
            told = f"target values of {name}" if name != ONLY else "target values"
            expected = f"{told} of {' x '.join(map(str, wanted))}, one for each {'step' if schema.state else 'sample'}"
            raise DataFileError(place, expected, " x ".join(map(str, values.shape[:axes])) or "one")
        rows[name] = values.reshape(-1, *values.shape[axes:])
        output = schema.answers.alone if name == ONLY else schema.answers.get(name)
        if output is not None:
            rows[name] = _plain(place, rows[name], output)
    try:
        return dict(as_declared(schema.answers, rows, math.prod(wanted)))
    except InputError as exc:
        raise DataFileError(place, "target values as the model declares them", str(exc)) from exc


def _plain(place: str, values: NDArray[Any], output: Output) -> NDArray[Any]:
    """Return target values as numbers: text by the names of the output's parts, whole numbers in floats as they are."""
    is_whole = np.dtype(output.target_dtype).kind == "i"
    if values.dtype.kind in "US":
        names = [str(value) for value in values.reshape(-1)]
        values = (_places(place, names, output.part_names) if is_whole else _floats(place, names)).reshape(values.shape)
    if is_whole and values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = values.astype(np.int64)
        values = whole if np.array_equal(whole, values) else values
    return values


def _places(place: str, names: Sequence[str], parts: Sequence[str]) -> NDArray[np.int64]:
    try:
        return np.array([int(name) if name else NO_LABEL for name in names], np.int64)
    except (ValueError, OverflowError):
        known = {name: index for index, name in enumerate(parts)} | {"": NO_LABEL}
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            listed = ", ".join(parts[:10]) or "none"
            raise DataFileError(place, f"labels among {listed}", repr(unknown[:40])) from None
        return np.array([known[name] for name in names], np.int64)


def _floats(place: str, cells: Sequence[str]) -> NDArray[np.float64]:
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        raise DataFileError(place, "numbers as target values", "text") from None
