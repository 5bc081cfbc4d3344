"""What the C that prepares a sample does, found out by compiling it for this machine and running it."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.children.child import Child
from hedgerow.children.output import OutputFile
from hedgerow.compile.preparation.c_interface import PREPARE_HEADER, PREPARE_SOURCE, Interface
from hedgerow.compile.preparation.c_values import C_TYPES
from hedgerow.tensor_border import to_stored

__all__ = ["COMPILERS", "PrepareCheck", "check_prepare", "find_c_compiler", "run_prepare"]

COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O1", "-ffp-contract=off")
_TIMEOUT_S = 120.0
MOST_STEPS = 1
"""Two right executions differ where rounding falls the other way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareCheck:
    """What came of comparing the C with torch.

    Attributes:
        expected, found: What differs; empty where nothing does.
        not_run: Why it was not run; empty where it was.
        executed_by: The compiler that made it.
    """

    expected: str = ""
    found: str = ""
    not_run: str = ""
    executed_by: str = ""


class CBuildError(Exception):
    """The source was refused by the compiler, or what it made did not end well; its text says how."""


def find_c_compiler(search_path: str | None = None) -> str | None:
    """Return where a C compiler is (``CC`` of the environment first), or None.

    Args:
        search_path: Folders to look in, as in ``PATH``; None: those of ``PATH``.
    """
    named = os.environ.get("CC", "")
    found = (shutil.which(name, path=search_path) for name in (named, *COMPILERS) if name)
    return next((place for place in found if place), None)


def check_prepare(
    interface: Interface,
    source: str,
    inputs: Mapping[str, NDArray[Any]],
    wanted: Mapping[str, NDArray[Any]],
    *,
    search_path: str | None = None,
) -> PrepareCheck:
    """Compile the C, run it on samples, and compare what it gives with what torch gives.

    Args:
        interface: Of the source.
        source: See :func:`hedgerow.compile.preparation.c_file.prepare_source`.
        inputs: The task's inputs, name -> ``(n, *shape)``.
        wanted: What torch makes of them, by the names of the interface's outputs.
        search_path: As for :func:`find_c_compiler`.
    """
    compiler = find_c_compiler(search_path)
    if compiler is None:
        return PrepareCheck(not_run=f"no C compiler ({', '.join(COMPILERS)}) is on the PATH")
    made_by = f"C99 compiled by {Path(compiler).name} for this machine"
    expected = f"what preprocess gives, within {MOST_STEPS} step of the file's integers"
    try:
        found = run_prepare(interface, source, inputs, compiler)
    except CBuildError as exc:
        return PrepareCheck(expected=expected, found=str(exc), executed_by=made_by)
    for spec in interface.schema.outputs:
        tensor = interface.tensor(spec)
        one, other = to_stored(wanted[spec.name], tensor), found[spec.name]
        moved = np.abs(one.reshape(len(other), -1).astype(np.float64) - other.astype(np.float64))
        largest = float(np.nan_to_num(moved, nan=np.inf).max(initial=0.0))
        if largest > (MOST_STEPS if tensor.scale is not None else 0):
            count = int((moved > MOST_STEPS).any(1).sum())
            told = f"{spec.name} up to {largest:g} steps off, in {count} of {len(other)} samples"
            return PrepareCheck(expected=expected, found=told, executed_by=made_by)
    return PrepareCheck(executed_by=made_by)


def run_prepare(
    interface: Interface, source: str, inputs: Mapping[str, NDArray[Any]], compiler: str
) -> dict[str, NDArray[Any]]:
    """Return what the compiled C gives for each sample, as the file stores it: name -> ``(n, elements)``.

    Raises:
        CBuildError: It does not compile without a warning, or its program does not end well.
    """
    taken = interface.schema.inputs
    count = len(inputs[taken[0].name])
    rows = [np.ascontiguousarray(inputs[spec.name], dtype=spec.dtype).reshape(count, -1) for spec in taken]
    given = {spec.name: np.dtype(interface.tensor(spec).dtype) for spec in interface.schema.outputs}
    sizes = {spec.name: int(np.prod(spec.shape, dtype=np.int64)) for spec in interface.schema.outputs}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / PREPARE_HEADER).write_text(interface.header)
        (folder / PREPARE_SOURCE).write_text(source)
        (folder / "main.c").write_text(_main(interface))
        record = b"".join(b"".join(row[index].tobytes() for row in rows) for index in range(count))
        (folder / "inputs.bin").write_bytes(record)
        _run([compiler, *_FLAGS, PREPARE_SOURCE, "main.c", "-o", "prepare", "-lm"], folder, "the C compiler")
        _run([str(folder / "prepare"), "inputs.bin", "outputs.bin"], folder, "the compiled C")
        content = (folder / "outputs.bin").read_bytes()
    width = sum(sizes[key] * dtype.itemsize for key, dtype in given.items())
    if len(content) != count * width:
        raise CBuildError(f"{len(content)} bytes for {count} samples of {width}")
    table = np.frombuffer(content, np.uint8).reshape(count, width)
    found, start = {}, 0
    for key, dtype in given.items():
        end = start + sizes[key] * dtype.itemsize
        found[key] = np.ascontiguousarray(table[:, start:end]).view(dtype)
        start = end
    return found


def _run(command: list[str], folder: Path, name: str) -> None:
    with Child(command, name=name, output=OutputFile(folder / "output.txt"), folder=folder) as child:
        in_time = child.wait(_TIMEOUT_S)
        ended = child.end()
    if not in_time:
        raise CBuildError(f"{name} took more than {_TIMEOUT_S:g} s")
    if ended.code != 0:
        said = (folder / "output.txt").read_text("utf-8", "replace").splitlines()
        line = next((line for line in said if "error" in line), said[0] if said else "no word")
        raise CBuildError(f"{name} ended with {ended.code}: {line.strip()[:200]}")


def _main(interface: Interface) -> str:
    """Return a program that reads samples from one file and writes what is made of them to another."""
    taken = [(spec, C_TYPES[spec.dtype]) for spec in interface.schema.inputs]
    given = [(spec, C_TYPES[interface.tensor(spec).dtype]) for spec in interface.schema.outputs]

    def declared(spec: Any, kind: str) -> str:
        return f"static {kind} {spec.name}[{int(np.prod(spec.shape, dtype=np.int64))}];"

    reads = " && ".join(f"fread({s.name}, sizeof {s.name}, 1, from) == 1" for s, _kind in taken)
    writes = " && ".join(f"fwrite({s.name}, sizeof {s.name}, 1, to) == 1" for s, _kind in given)
    names = ", ".join(spec.name for spec, _kind in (*taken, *given))
    lines = [
        f'#include "{PREPARE_HEADER}"',
        "#include <stdio.h>",
        *(declared(spec, kind) for spec, kind in (*taken, *given)),
        "int main(int count, char **arguments) {",
        "    FILE *from, *to;",
        "    if (count != 3) { return 2; }",
        '    from = fopen(arguments[1], "rb");',
        '    to = fopen(arguments[2], "wb");',
        "    if (from == NULL || to == NULL) { return 3; }",
        f"    while ({reads}) {{",
        f"        {interface.symbol}({names});",
        f"        if (!({writes})) {{ return 4; }}",
        "    }",
        "    fclose(from);",
        "    return fclose(to) == 0 ? 0 : 5;",
        "}",
        "",
    ]
    return "\n".join(lines)
