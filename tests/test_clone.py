"""A clone may be called hedgerow, as the README's is, and programs may be started beside it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_layout import FOLDERS, ROOT

PRODUCT = [path for folder in ("src", *FOLDERS) for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Install a clone called hedgerow for editing, and return its Python; the clone's parent is three folders up."""
    clone = tmp_path_factory.mktemp("beside") / "hedgerow"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "out", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, clone, ignore=ignored)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clone / ".venv"], check=True)
    # The packages of this environment, but not what its own .pth files add: they are read in site folders alone.
    (site,) = (clone / ".venv").glob("lib/python*/site-packages")
    (site / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    python = clone / ".venv" / "bin" / "python"
    pip = ["-m", "pip", "--python", python, "install", "-qq", "--no-deps", "--no-build-isolation", "-e", clone]
    subprocess.run([sys.executable, *pip], check=True, capture_output=True)
    return python


@pytest.mark.heavy
@pytest.mark.parametrize(
    "arguments",
    [
        (
            "-c",
            "import hedgerow.cli as c, hedgerow.fleet.errors as e; print(c.__file__, e.__file__)",
        ),
        ("beside.py",),
    ],
)
def test_a_program_beside_the_clone_finds_the_package(python, arguments):
    clone = python.parent.parent.parent
    (clone.parent / "beside.py").write_text("import hedgerow\nfrom hedgerow import Task\nprint(hedgerow.__file__)\n")

    done = subprocess.run([python, *arguments], cwd=clone.parent, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert all(Path(line).is_relative_to(clone) for line in done.stdout.split())


@pytest.mark.heavy
def test_the_command_runs_as_a_module_beside_the_clone(python):
    command = [python, "-m", "hedgerow.cli", "targets", "list"]

    done = subprocess.run(command, cwd=python.parent.parent.parent.parent, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "raspberry-pi-4" in done.stdout


def test_a_process_that_we_start_does_not_look_for_modules_where_it_is_started():
    started = {
        str(path.relative_to(ROOT)): re.findall(r"[(\[]sys\.executable,\s*([^,\]]*)", path.read_text())
        for path in PRODUCT
    }
    flags = {path: found for path, found in started.items() if found}

    assert len(flags) >= 4
    # A process that becomes itself anew has the flags that it had.
    assert {flag for found in flags.values() for flag in found} <= {
        '"-P"',
        '"-I"',
        "[sys.executable",
        "*sys.orig_argv[1:",
    }
