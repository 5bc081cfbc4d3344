"""On a device's install, every command says in one sentence which extra it needs."""

import re
import subprocess
import sys
from importlib.metadata import distributions, packages_distributions, requires
from pathlib import Path

import pytest

from tests import base_install
from tests.test_layout import commands

HIDE = """
import sys

HIDDEN = {hidden!r}


class Hider:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Hider)
"""


def in_the_base_install() -> set[str]:
    """Return the normalized names of Hedgerow's base dependencies and of what they need."""
    found, waiting = set(), ["hedgerow"]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        asked = [line for line in requires(name) or () if name != "hedgerow" or "extra ==" not in line]
        names = {
            re.match(r"[\w.-]+", line).group() for line in asked if "extra ==" not in line or name == "securesystemslib"
        }
        waiting += sorted({normal(each) for each in names} & INSTALLED)
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


INSTALLED = {normal(found.metadata["Name"]) for found in distributions()}


@pytest.fixture
def base_only(tmp_path, monkeypatch) -> Path:
    """Hide everything that only extras bring from every Python that is started."""
    base = in_the_base_install()
    hidden = {module for module, owners in packages_distributions().items() if not {normal(o) for o in owners} & base}
    assert {"torch", "flwr", "rich", "fastapi", "jinja2", "onnx", "sqlite_utils"} <= hidden
    (tmp_path / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_every_command_that_needs_an_extra_is_called():
    called = {command.partition(" --")[0] for command in base_install.COMMANDS}

    assert called == {name for name, plugin in commands() if plugin.extra} - base_install.WORK


@pytest.mark.heavy  # some fifteen processes
def test_every_command_says_which_extra_it_needs(base_only):
    done = subprocess.run([sys.executable, base_install.__file__], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.heavy
@pytest.mark.parametrize("arguments", [("targets", "list"), ("agent", "run", "--help"), ("--help",)])
def test_what_needs_no_extra_works(base_only, arguments):
    command = [sys.executable, "-P", "-m", "hedgerow.cli", *arguments]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
