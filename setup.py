"""Map the top-level folders onto the import package (everything else is in pyproject.toml)."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
FOLDERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hedgerow"]["folders"]
SOURCE = ROOT / "src"


class EditableWheel(editable_wheel):
    """Puts src/ on the path, beside the import hook for the mapped folders.

    Python asks hooks last: a folder called hedgerow where a program was started, such as a clone, would be taken for
    the package. A package on the path wins over a mere folder.
    """

    def _select_strategy(self, *arguments: Any) -> "OnThePath":
        return OnThePath(super()._select_strategy(*arguments))


class OnThePath:
    """What setuptools writes into an editable wheel, and one line more."""

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy

    def __enter__(self) -> Self:
        self._strategy.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._strategy.__exit__(kind, error, trace)

    def __call__(self, wheel: Any, files: list[str], mapping: Mapping[str, str]) -> None:
        """Write them; setuptools calls this with the wheel that is open."""
        self._strategy(wheel, files, mapping)
        wheel.writestr("__editable__.hedgerow-src.pth", f"{SOURCE}\n".encode())


packages = find_packages("src")
for folder in FOLDERS:
    packages += [f"hedgerow.{folder}", *(f"hedgerow.{folder}.{sub}" for sub in find_packages(folder))]

setup(
    packages=packages,
    package_dir={"hedgerow": "src/hedgerow", **{f"hedgerow.{name}": name for name in FOLDERS}},
    cmdclass={"editable_wheel": EditableWheel},
)
