"""How this copy of Hedgerow was installed, and with it: which command adds what is missing."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distributions, requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hedgerow.errors import ExtraNotInstalledError

__all__ = ["extra_of", "install_command", "is_installed", "pip_arguments", "require"]

_NAMES = {"scikit-learn": "sklearn"}
"""Distribution -> module, where they are called differently and a user's file imports the module."""


def install_command(extra: str) -> str:
    """Return the command that installs *extra* of this copy into this environment; empty: the base install."""
    python, arguments = shlex.quote(sys.executable), shlex.join(pip_arguments(_origin(), extra))
    return f"{python} -m pip install {arguments}"


def _origin() -> Mapping[str, Any] | None:
    """Return what :func:`pip_arguments` takes."""
    origin: Mapping[str, Any] | None = None
    for found in distributions(name="hedgerow"):
        try:
            noted = json.loads(found.read_text("direct_url.json") or "{}")
        except ValueError:
            continue
        if isinstance(noted, Mapping) and noted:
            return noted
        # What a build leaves in a clone (egg-info) was installed by nobody.
        if found.read_text("INSTALLER"):
            origin = {}
    return origin


def pip_arguments(
    origin: Mapping[str, Any] | None, extra: str, *, is_folder: Callable[[Path], bool] = Path.is_dir
) -> list[str]:
    """Return what follows ``pip install``.

    Args:
        origin: What pip noted of where it took Hedgerow from (direct_url.json, PEP 610); empty: an index; None: it was
            not installed, but runs from its sources.
        extra: An extra, or nothing.
        is_folder: Whether a path is a folder.
    """
    extras = f"[{extra}]" if extra else ""
    url = str((origin or {}).get("url", ""))
    if origin is not None and not url:
        return [f"hedgerow{extras}"]
    if url and not url.startswith("file:"):
        return [f"hedgerow{extras} @ {_with_commit(url, origin or {})}"]
    folder = Path(unquote(urlsplit(url).path)) if url else None
    if folder is not None and folder.suffix == ".whl":
        return [f"hedgerow{extras} @ {url}"]
    if folder is None or not is_folder(folder):
        # The folder that it was installed from is gone; the command is for a clone.
        return ["-c", "constraints.txt", f".{extras}"]
    editable = ["-e"] if (origin or {}).get("dir_info", {}).get("editable") else []
    return ["-c", str(folder / "constraints.txt"), *editable, f"{folder}{extras}"]


def _with_commit(url: str, origin: Mapping[str, Any]) -> str:
    version_control = origin.get("vcs_info")
    if not isinstance(version_control, Mapping):
        return url
    return f"{version_control.get('vcs', 'git')}+{url}@{version_control.get('commit_id', 'main')}"


def is_installed(module: str) -> bool:
    """Return whether the package that *module* lies in can be imported."""
    try:
        return find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def require(feature: str, extra: str, modules: Iterable[str]) -> None:
    """Refuse work whose packages are absent before it begins.

    Args:
        feature: What needs them, such as ``training``.
        extra: What installs them.
        modules: What it imports.

    Raises:
        ExtraNotInstalledError: One is absent.
    """
    for module in sorted({module.partition(".")[0] for module in modules}):
        if not is_installed(module):
            raise ExtraNotInstalledError(feature, extra, module)


def extra_of(module: str | None) -> str | None:
    """Return the first extra that installs the package of *module*, or None when no extra does."""
    try:
        requirements = requires("hedgerow") or ()
    except PackageNotFoundError:
        return None
    wanted = (module or "").partition(".")[0]
    found = []
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)
        extra = re.search(r"extra == ['\"]([a-z]+)['\"]", requirement)
        if name and extra and _module(name.group()) == wanted:
            found.append(extra.group(1))
    # Torch comes with several; who trains needs the fewest packages for it.
    return "train" if "train" in found else min(found, default=None)


def _module(name: str) -> str:
    return _NAMES.get(name, re.sub(r"[-.]", "_", name).lower())
