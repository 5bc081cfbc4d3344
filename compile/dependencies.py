"""What a compile's result depends on beside its arguments, as one hash: sources, data files, versions of libraries.

Nothing is imported: a result that is kept already must not cost the import of torch.
"""

import ast
import hashlib
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from hedgerow.durable import sha256_of
from hedgerow.errors import TaskError

__all__ = ["DATA_FILES", "task_fingerprint", "tool_versions"]

DATA_FILES = "DATA_FILES"
"""Name of a module-level tuple of strings in a task's module: files or folders that its data comes from, relative to
the module, with ``~`` and environment variables expanded. It is written out, because it is read without running it."""

_OURS = "hedgerow"
_PACKAGES = (
    "ai-edge-litert", "ai-edge-quantizer", "coremltools", "fairlearn", "hedgerow", "litert-torch", "neural-compressor",
    "numpy", "onnx", "onnxruntime", "onnxscript", "scikit-learn", "tflite-micro", "torch", "torch-pruning", "torchao",
)  # fmt: skip
_MAXIMUM_FILES = 10_000


def task_fingerprint(task_reference: str, search_path: Iterable[str]) -> str:
    """Return the hash of a task's sources and of the data files that it names.

    The sources are all Python files of the folder of ``file.py``, with its packages, or of the module's top package.
    Code and data that a task takes from elsewhere are not seen: name the data in :data:`DATA_FILES`, and compile
    without a cache after a change of the rest.

    Args:
        task_reference: ``module:attribute`` or ``file.py:attribute``.
        search_path: Where modules are found.

    Raises:
        TaskError: There is no such file or module.
    """
    place, _, attribute = task_reference.rpartition(":")
    module, root = _locate(place, task_reference, tuple(search_path))
    digest = hashlib.sha256(attribute.encode())
    for name, path in _python_files(root):
        digest.update(f"\n{name} {sha256_of(path)}".encode())
    for path in _data_files(module):
        digest.update(f"\ndata {path.name} {sha256_of(path)}".encode())
    return digest.hexdigest()


def _locate(place: str, reference: str, search_path: tuple[str, ...]) -> tuple[Path, Path]:
    """Return a task's module, and the folder (or file) that its sources lie in."""
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise TaskError(repr(place), ["there is no such file; correct the path"])
        return path.resolve(), path.resolve().parent
    top, *rest = place.split(".")
    if top == _OURS and rest:
        # Our own top package holds everything; the folder below it is what a task of ours belongs to.
        spec = find_spec(f"{top}.{rest.pop(0)}")
        folders = list(spec.submodule_search_locations or ()) if spec else []
    else:
        folders = [
            entry for entry in (str(Path(folder or ".") / top) for folder in search_path) if Path(entry).is_dir()
        ]
        files = [path for path in (Path(folder or ".") / f"{top}.py" for folder in search_path) if path.is_file()]
        if not folders and files:
            return files[0], files[0]
        if not folders and (spec := find_spec(top)) is not None:
            folders = list(spec.submodule_search_locations or ())
    if not folders:
        raise TaskError(repr(reference), [f"there is no module {place}; correct the reference"])
    base = Path(folders[0]).joinpath(*rest)
    module = base.with_suffix(".py") if rest and base.with_suffix(".py").is_file() else base / "__init__.py"
    # A package's neighbours may be large: within ours, the task's own folder says enough.
    return module, module.parent if top == _OURS else Path(folders[0])


def _python_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the Python files of a folder and of the packages in it, by name, sorted."""
    if root.is_file():
        yield root.name, root
        return
    found = []
    for folder, names, files in os.walk(root, followlinks=True):
        here = Path(folder)
        names[:] = sorted(name for name in names if (here / name / "__init__.py").is_file())
        found += [(str((here / name).relative_to(root)), here / name) for name in files if name.endswith(".py")]
        if len(found) > _MAXIMUM_FILES:
            raise TaskError(str(root), [f"its folder holds more than {_MAXIMUM_FILES} Python files; give it its own"])
    yield from sorted(found)


def _data_files(module: Path) -> list[Path]:
    try:
        tree = ast.parse(module.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []  # importing the task will say what is wrong with it
    named: list[str] = []
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if _assigned(node) is not None and any(isinstance(t, ast.Name) and t.id == DATA_FILES for t in targets):
            named += _texts(_assigned(node), module)
    found: list[Path] = []
    for name in named:
        path = module.parent / os.path.expandvars(Path(name).expanduser())
        found += sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [path for path in found if path.is_file()]


def _assigned(node: ast.stmt) -> ast.expr | None:
    """Return what an assignment assigns."""
    return node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None


def _texts(value: ast.expr | None, module: Path) -> list[str]:
    try:
        texts = ast.literal_eval(value) if value is not None else ()
    except ValueError:
        texts = None
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise TaskError(str(module), [f"{DATA_FILES} must be a written-out tuple of strings"])
    return list(texts)


@cache
def tool_versions() -> dict[str, str]:
    """Return what turns a model into a file here: versions of libraries, and the hash of our own passes."""
    versions = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "edgetpu_compiler": shutil.which("edgetpu_compiler") or "",
    }
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    digest = hashlib.sha256()
    # An installation from a working tree changes without another version number.
    for folder in ("compile", "hardware"):
        spec = find_spec(f"{_OURS}.{folder}")
        for root in spec.submodule_search_locations or () if spec else ():
            for name, path in _python_files(Path(root)):
                digest.update(f"{folder}/{name} {sha256_of(path)}\n".encode())
    package = find_spec(_OURS)
    for place in package.submodule_search_locations or () if package else ():
        for path in sorted(Path(place).glob("*.py")):
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return versions | {"sources": digest.hexdigest()}
