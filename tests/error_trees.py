"""The errors of each folder, as the code has them and as the folder's errors.py draws them; nothing is imported."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ErrorClass", "drawn", "error_classes"]

_BULLET = re.compile(r"^( *)- (\w+): (.+)$")


@dataclass(frozen=True)
class ErrorClass:
    """One class.

    Attributes:
        folder: Such as ``client``; ``""`` for the root.
        name: Its name.
        base: Folder and name of what it derives from; the folder is None for what Python itself has.
        module: Its module.
    """

    folder: str
    name: str
    base: tuple[str | None, str]
    module: str


def _folder(module: str, folders: tuple[str, ...]) -> str | None:
    parts = module.split(".")
    if parts[0] != "hedgerow":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in folders else ""


def _classes(modules: dict[str, Path], folders: tuple[str, ...]) -> Iterator[ErrorClass]:
    for module, path in modules.items():
        tree = ast.parse(path.read_text())
        folder = _folder(module, folders) or ""
        home = {node.name: folder for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                found = _folder(node.module, folders)
                home |= {alias.asname or alias.name: found for alias in node.names if found is not None}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.bases:
                base = ast.unparse(node.bases[0])
                yield ErrorClass(folder, node.name, (home.get(base), base), module)


def error_classes(modules: dict[str, Path], folders: tuple[str, ...]) -> tuple[list[ErrorClass], list[ErrorClass]]:
    """Return what derives from HedgerowError, itself left out, and what derives from another exception."""
    classes = list(_classes(modules, folders))
    ours, others = (
        {("", "HedgerowError")},
        {(None, name) for name in ("Exception", "BaseException", "KeyboardInterrupt")},
    )
    for known in (ours, others):
        size = -1
        while size != len(known):
            size = len(known)
            known |= {(each.folder, each.name) for each in classes if each.base in known}
    tree = [each for each in classes if each.base in ours]
    return tree, [each for each in classes if each.base in others and (each.folder, each.name) not in ours]


def drawn(path: Path) -> list[tuple[str, str | None]]:
    """Return (name, name of what it stands under) of each bullet in a module's docstring, in order."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    found: list[tuple[str, str | None]] = []
    above: list[tuple[int, str]] = []
    for line in docstring.splitlines():
        match = _BULLET.match(line)
        if match is None:
            continue
        depth = len(match[1])
        while above and above[-1][0] >= depth:
            above.pop()
        found.append((match[2], above[-1][1] if above else None))
        above.append((depth, match[2]))
    return found
