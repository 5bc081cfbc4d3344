"""The tables of docs/architecture.md are kept: an import that they do not allow is found, in each direction."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.task import load_attribute
from tests.test_layout import FOLDERS, ROOT

TOOL = ROOT / "tools" / "import_contracts.py"
TABLES = load_attribute(f"{TOOL}:read_tables")((ROOT / "docs" / "architecture.md").read_text())
(FIRST, *ROOMS) = TABLES


def check(view: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, TOOL, view], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the package, as the installation lays it out."""
    view = tmp_path_factory.mktemp("view")
    sources = {"hedgerow": ROOT / "src" / "hedgerow", **{f"hedgerow/{folder}": ROOT / folder for folder in FOLDERS}}
    for place, source in sources.items():
        shutil.copytree(source, view / place, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    return view


def forbidden(table) -> Iterator[tuple[str, str]]:
    for entry, allowed in table.allowed.items():
        for other in table.allowed:
            if other != entry and other not in allowed:
                yield entry, other


def file_in(view: Path, entry: str, name: str) -> Path:
    """Return a file to write in an entry: a new one in a folder, the file itself otherwise."""
    place = view / entry.replace(".", "/")
    return place / f"{name}.py" if place.is_dir() else place.with_suffix(".py")


def test_every_folder_and_every_room_of_the_fleet_has_a_row():
    assert {f"hedgerow.{folder}" for folder in FOLDERS} <= set(FIRST.allowed)
    (fleet,) = (table for table in ROOMS if table.package == "hedgerow.fleet")
    inside = [path for path in (ROOT / "fleet").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert set(fleet.allowed) == {f"hedgerow.fleet.{path.stem}" for path in inside} - {"hedgerow.fleet.__init__"}


def test_the_tables_hold_of_the_tree(tree):
    done = check(tree)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("none broken\n")


@pytest.mark.heavy
@pytest.mark.parametrize("table", TABLES, ids=[table.package for table in TABLES])
@pytest.mark.parametrize("form", ["import {}\n", 'PLUG_INS = {{"x": "{}:x"}}\n', 'COMMAND = ["-m", "{}"]\n'])
def test_every_import_that_a_table_does_not_allow_is_found(tree, tmp_path, table, form):
    view = tmp_path / "view"
    shutil.copytree(tree, view)
    planted = {}
    for number, (entry, other) in enumerate(forbidden(table)):
        path = file_in(view, entry, f"planted_{number}")
        before = path.read_text() if path.exists() else '"""Planted."""\n'
        path.write_text(before + form.format(other))
        module = entry if path.stem == entry.rpartition(".")[2] else f"{entry}.{path.stem}"
        planted[f"{module} imports {other}: {entry} may not import {other}"] = path

    done = check(view)

    assert planted
    assert done.returncode == 1
    assert set(done.stdout.splitlines()) == set(planted)


@pytest.mark.heavy
def test_a_library_that_the_root_may_not_import_is_found(tree, tmp_path):
    view = tmp_path / "view"
    shutil.copytree(tree, view)
    (view / "hedgerow" / "planted.py").write_text('"""Planted."""\nimport torch\nimport json\nimport numpy\n')

    done = check(view)

    assert (done.returncode, done.stdout) == (1, "hedgerow.planted imports torch: hedgerow may not\n")


@pytest.mark.heavy
def test_a_room_without_a_row_is_found(tree, tmp_path):
    view = tmp_path / "view"
    shutil.copytree(tree, view)
    (view / "hedgerow" / "fleet" / "planted.py").write_text('"""Planted."""\n')

    done = check(view)

    line = "hedgerow.fleet.planted: expected a row in the table of hedgerow.fleet, found none\n"
    assert (done.returncode, done.stdout) == (1, line)
