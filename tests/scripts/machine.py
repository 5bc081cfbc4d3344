"""A machine with few programs: what a script finds of Python there, and elsewhere."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.test_layout import ROOT

PROGRAMS = [
    "awk",
    "bash",
    "cat",
    "cut",
    "dirname",
    "env",
    "flock",
    "grep",
    "head",
    "rm",
    "sha256sum",
    "sort",
    "tail",
    "tr",
]


class Machine:
    """A project's scripts, run with a PATH of one folder that a test fills."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.root = folder / "project"
        self._home = folder
        self.bin.mkdir()
        for name in PROGRAMS:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        for name in ("scripts", "tools"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "constraints.txt", "setup.py"):
            shutil.copy(ROOT / name, self.root / name)

    def add_program(self, name: str, script: str) -> Path:
        """Put a shell script on the PATH."""
        path = self.bin / name
        path.write_text(f"#!{self.bin / 'bash'}\n{script}\n")
        path.chmod(0o755)
        return path

    def add_python(self, name: str, *, version: tuple[int, int] = (3, 11), without: Sequence[str] = ()) -> Path:
        """Put this Python on the PATH, as one of another version, and without some modules."""
        site = self._home / f"{name}-site"
        site.mkdir()
        lines = [f"import sys\nsys.version_info = ({version[0]}, {version[1]}, 0, 'final', 0)"]
        lines += [f"sys.executable = {str(self.bin / name)!r}"]
        lines += [f"sys.modules[{module!r}] = None" for module in without]
        (site / "sitecustomize.py").write_text("\n".join(lines))
        return self.add_program(name, f'PYTHONPATH={site} exec {sys.executable} "$@"')

    def run(self, script: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a script of the project to its end."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYENV", "PYTHON"))}
        return subprocess.run(
            [self.root / "scripts" / script, *arguments],
            env={**kept, "PATH": str(self.bin), "HOME": str(self._home), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
