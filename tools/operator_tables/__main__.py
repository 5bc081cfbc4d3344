"""Make the operator tables by running one-operator files in the runtimes that are installed here.

``python -m tools.operator_tables`` writes ``hardware/operators/*.toml``; with names of tables, those alone;
``--check`` writes nothing, and says what differs from the files that are there (exit code 1).
"""

import argparse
import difflib
import importlib.util
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.operator_tables.table import Table, render

FOLDER = Path(__file__).resolve().parents[2] / "hardware" / "operators"
_SHOWN = 40


def _litert() -> Table:
    from tools.operator_tables.tflite_tables import litert_table

    return litert_table()


def _micro() -> Table:
    from tools.operator_tables.tflite_tables import micro_table

    return micro_table()


def _onnx() -> Table:
    from tools.operator_tables.onnx_table import onnx_table

    return onnx_table()


TABLES: Mapping[str, tuple[str, Callable[[], Table]]] = {
    "litert-cpu": ("ai_edge_litert", _litert),
    "onnxruntime-cpu": ("onnxruntime", _onnx),
    "tflite-micro-int8": ("tflite_micro", _micro),
}
"""Table -> the package that it is made with, and what makes it."""


def main(arguments: list[str] | None = None) -> int:
    """Make tables or compare them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.operator_tables", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TABLE", help=f"any of {', '.join(TABLES)} (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a table differs")
    chosen = parser.parse_args(arguments)
    if unknown := sorted(set(chosen.names) - set(TABLES)):
        parser.error(f"expected tables among {', '.join(TABLES)}, found {', '.join(unknown)}")
    before = logging.root.manager.disable
    # Runtimes log each file that they refuse.
    logging.disable(logging.WARNING)
    try:
        return _make(chosen.names or list(TABLES), check=chosen.check)
    finally:
        logging.disable(before)


def _make(names: list[str], *, check: bool) -> int:
    differing = False
    for name in names:
        package, make = TABLES[name]
        path = FOLDER / f"{name}.toml"
        if importlib.util.find_spec(package) is None:
            print(f"{name}: not run: {package} is not installed", flush=True)
            continue
        begun = time.monotonic()
        text = render(make())
        there = path.read_text("utf-8") if path.is_file() else ""
        print(f"{name}: {'as it was' if text == there else 'differs'}, {time.monotonic() - begun:.0f} s", flush=True)
        if text == there:
            continue
        differing = True
        if check:
            lines = difflib.unified_diff(
                there.splitlines(), text.splitlines(), str(path.name), "found", lineterm="", n=0
            )
            sys.stdout.writelines(f"  {line}\n" for line, _ in zip(lines, range(_SHOWN), strict=False))
        else:
            path.write_text(text, "utf-8")
    if differing and check:
        print("run `python -m tools.operator_tables` with the pinned runtimes, and look at what changes")
    return int(differing and check)


if __name__ == "__main__":
    sys.exit(main())
