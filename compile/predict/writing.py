"""Answers as a file: a table, lines of JSON, or arrays, by the ending of its name."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.errors import DataFileError
from hedgerow.compile.predict.answers import ToldSamples
from hedgerow.durable import write_durably
from hedgerow.tensor_border import plain_numbers

__all__ = ["ENDINGS", "check_ending", "write_answers"]

_MOST_COLUMNS = 4096


def check_ending(path: Path) -> None:
    """Refuse a name whose ending says no form, before any work.

    Raises:
        DataFileError: It does.
    """
    if path.suffix not in ENDINGS:
        raise DataFileError(str(path), f"a name that ends in {', '.join(ENDINGS)}", repr(path.suffix or path.name))


def write_answers(path: Path, told: ToldSamples) -> None:
    """Write what was said of each sample; the file is there whole, or not at all.

    Raises:
        DataFileError: The ending is unknown, or a table would have too many columns.
        OSError: It cannot be written.
    """
    check_ending(path)
    write_durably(path, ENDINGS[path.suffix](path, told))


def _place(told: ToldSamples, row: int) -> dict[str, int]:
    if told.steps == 1:
        return {"sample": row}
    return {"sample": row // told.steps, "step": row % told.steps}


def _rows(told: ToldSamples) -> Iterator[dict[str, Any]]:
    for row in range(told.rows):
        yield {**_place(told, row), **{name: values[row] for name, values in told.answers.items()}}


def _as_table(path: Path, told: ToldSamples) -> bytes:
    flat = {name: values.reshape(told.rows, -1) for name, values in told.outputs.items()}
    columns = sum(values.shape[1] for values in flat.values())
    if columns > _MOST_COLUMNS:
        raise DataFileError(
            str(path), f"at most {_MOST_COLUMNS} numbers a sample in a table", str(columns), "write .npz or .jsonl"
        )
    names = [f"{name}.{place}" for name, values in flat.items() for place in range(values.shape[1])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_place(told, 0), *told.answers, *names])
    numbers = np.concatenate(list(flat.values()), axis=1)
    for row, answers in enumerate(_rows(told)):
        cells = ["" if value is None else _cell(value) for value in answers.values()]
        writer.writerow([*cells, *numbers[row].tolist()])
    return text.getvalue().encode()


def _as_lines(_path: Path, told: ToldSamples) -> bytes:
    lines = []
    for row, answers in enumerate(_rows(told)):
        outputs = {name: plain_numbers(values[row]) for name, values in told.outputs.items()}
        lines.append(json.dumps({**answers, "outputs": outputs}, allow_nan=False))
    return "".join(f"{line}\n" for line in lines).encode()


def _as_arrays(_path: Path, told: ToldSamples) -> bytes:
    arrays: dict[str, Any] = dict(told.outputs)
    for name, values in told.answers.items():
        # An output of that name is the model's own word.
        if name not in arrays:
            arrays[name] = _column(values)
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _cell(value: Any) -> Any:
    """Return a value for a table: lists and mappings as JSON."""
    return json.dumps(value, allow_nan=False) if isinstance(value, list | dict) else value


def _column(values: list[Any]) -> NDArray[Any]:
    """Return the values of all rows as an array: numbers as numbers, NaN for None; all else as text."""
    known = [value for value in values if value is not None]
    if known and all(type(value) in {int, float} for value in known):
        return np.array(
            [np.nan if value is None else value for value in values] if len(known) < len(values) else values
        )
    if len(known) == len(values) and all(type(value) is bool for value in known):
        return np.array(values)
    return np.array(["" if value is None else str(_cell(value)) for value in values])


ENDINGS: Mapping[str, Callable[[Path, ToldSamples], bytes]] = {
    ".csv": _as_table,
    ".jsonl": _as_lines,
    ".npz": _as_arrays,
}
"""Ending -> what makes the file's bytes."""
