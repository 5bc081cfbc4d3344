"""Imports Python files that a user names by their path, each as a module of its own."""

import ast
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hedgerow.errors import TaskError

__all__ = ["USER_MODULE", "import_file"]

USER_MODULE = "hedgerow_user_"
"""What the names of modules begin with that are imported from a file."""

_INSTALLED = {"site-packages", "dist-packages"}


def import_file(path: Path) -> Any:
    """Import a file once, and let it import the modules beside it.

    Raises:
        TaskError: There is no such file, it is no Python file, or a module beside it that it imports has the name of
            one that lies elsewhere.
    """
    if not path.is_file():
        raise TaskError(repr(str(path)), ["there is no such file; correct the path"])
    path = path.resolve()
    name = _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TaskError(repr(str(path)), ["it is not a Python file"])
    folder = str(path.parent)
    if folder not in sys.path:
        # As when Python runs the file: it may import its neighbours. Last, so that it hides no installed module.
        sys.path.append(folder)
    _check_neighbours(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_name(path: Path) -> str:
    """Return a name that no other file's module has."""
    stem = re.sub(r"\W", "_", path.stem)
    return f"{USER_MODULE}{stem}_{hashlib.sha256(bytes(path)).hexdigest()[:16]}"


def _check_neighbours(path: Path) -> None:
    """Refuse a file that would get another file's neighbour for its own, which Python does in silence.

    A module of the standard library or of an installed distribution is meant where it has the name of a neighbour.

    Raises:
        TaskError: It would.
    """
    seen, waiting = {path}, [path]
    while waiting:
        for name in _imported(waiting.pop()):
            neighbour = _neighbour(path.parent, name)
            found = _origin(name)
            if neighbour is None or found is None or name in sys.stdlib_module_names or _INSTALLED & set(found.parts):
                continue
            if found != neighbour:
                does = "was already imported from" if name in sys.modules else "is found first in"
                mistake = (
                    f"expected its module {name!r} from {neighbour}, but a module of that name {does} {found}; "
                    "rename one of the two"
                )
                raise TaskError(repr(str(path)), [mistake])
            if neighbour not in seen:
                seen.add(neighbour)
                waiting.append(neighbour)


def _neighbour(folder: Path, name: str) -> Path | None:
    """Return the file of the module *name* that lies in *folder*, if there is one."""
    places = (folder / name / "__init__.py", folder / f"{name}.py")
    return next((place.resolve() for place in places if place.is_file()), None)


def _origin(name: str) -> Path | None:
    """Return the file that Python takes for the module *name*; None: it has none, or is absent."""
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec is not None and spec.has_location else None
    return Path(origin).resolve() if isinstance(origin, str) else None


def _imported(path: Path) -> Iterator[str]:
    """Yield the first part of the name of each module that a file imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # importing it says so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module.partition(".")[0]
