"""Arrays from a file of samples: a ``.npz`` archive, or a ``.csv`` table."""

import csv
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.errors import DataFileError

__all__ = ["LABELS", "read_arrays", "read_cells", "read_table"]

LABELS = "labels"
"""The array, or column, that says the class of each sample."""
_LIMIT_BYTES = 512 * 2**20
_ARRAYS = "arrays of numbers as numpy.savez writes them, or a .csv file"


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name.

    Raises:
        DataFileError: It cannot be read, or is too large.
    """
    place = str(path)
    try:
        _check_size(place, path.stat().st_size)
        with zipfile.ZipFile(path) as archive:
            _check_size(place, sum(entry.file_size for entry in archive.infolist()))
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except OSError as exc:
        raise DataFileError(place, "a file that can be read", exc.strerror or str(exc)) from exc
    except zipfile.BadZipFile as exc:
        raise DataFileError(place, _ARRAYS, "a file that is no archive of arrays") from exc
    # What numpy raises for members that are no arrays of numbers or text, and for damaged ones.
    except (ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zlib.error) as exc:
        found = "an archive with an array of Python objects, or a damaged one"
        raise DataFileError(place, _ARRAYS, found) from exc


def _check_size(place: str, size_bytes: int) -> None:
    if size_bytes > _LIMIT_BYTES:
        raise DataFileError(place, f"at most {_LIMIT_BYTES} bytes of arrays", str(size_bytes))


def read_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table, as text.

    Raises:
        DataFileError: It cannot be read, is too large, or is no text.
    """
    place = str(path)
    try:
        _check_size(place, path.stat().st_size)
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except OSError as exc:
        raise DataFileError(place, "a file that can be read", exc.strerror or str(exc)) from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise DataFileError(place, "a table of text in UTF-8", str(exc)[:120]) from exc
    return header, rows


def read_table(path: Path, inputs: Sequence[set[str]]) -> dict[str, NDArray[Any]]:
    """Return the columns of a table as arrays of their own, where they have the names of all inputs; else as one array.

    Args:
        path: The file.
        inputs: Names of each input; any of them will do.

    Raises:
        DataFileError: It cannot be read, or is no table of numbers with a column of labels.
    """
    place, (header, rows) = str(path), read_cells(path)
    if not rows or header.count(LABELS) != 1 or any(len(row) != len(header) for row in rows):
        found = f"{len(rows)} rows under {', '.join(map(repr, header[:8])) or 'no header'}"
        raise DataFileError(place, f"a header with one column {LABELS!r}, and rows of its length", found)
    try:
        numbers = np.asarray(rows, dtype=np.float64)
    except ValueError as exc:
        raise DataFileError(place, "a number in every cell", _no_number(header, rows)) from exc
    columns = dict(zip(header, numbers.T, strict=True))
    labels = {LABELS: columns.pop(LABELS)}
    if len(columns) == len(inputs) == len(header) - 1 and all(names & columns.keys() for names in inputs):
        return columns | labels
    return {"table": np.delete(numbers, header.index(LABELS), axis=1)} | labels


def _no_number(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the first cell that is no number, and where it is."""
    for place, row in enumerate(rows, 2):
        for name, cell in zip(header, row, strict=True):
            try:
                float(cell)
            except ValueError:
                return f"{cell[:40]!r} in line {place}, column {name[:40]!r}"
    return "none"
