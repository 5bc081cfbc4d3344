"""The tables of docs/architecture.md are kept: an import that they do not allow is found, in each direction."""

import ast
import shutil
import subprocess
import sys
import tomllib
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
    pytest.importorskip("grimp")  # of import-linter, which only who works on Hedgerow needs
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
def test_the_module_of_a_folder_with_rooms_imports_none_of_them_and_none_imports_it(tree, tmp_path):
    view = tmp_path / "view"
    shutil.copytree(tree, view)
    fleet = view / "hedgerow" / "fleet"
    for path, line in (
        (fleet / "__init__.py", "from hedgerow.fleet.store.writing import Store\n"),
        (fleet / "rollout" / "rules.py", "from hedgerow.fleet import Store\n"),
        (fleet / "drift" / "findings.py", 'LATER = "hedgerow.fleet:Store"\n'),
    ):
        path.write_text(path.read_text() + line)

    done = check(view)

    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "hedgerow.fleet imports hedgerow.fleet.store.writing: hedgerow.fleet may not import hedgerow.fleet.store",
        "hedgerow.fleet.drift.findings imports hedgerow.fleet: hedgerow.fleet.drift may not import hedgerow.fleet",
        "hedgerow.fleet.rollout.rules imports hedgerow.fleet: hedgerow.fleet.rollout may not import hedgerow.fleet",
    ]


@pytest.mark.heavy
def test_a_library_whose_name_begins_like_ours_is_a_library_and_an_attribute_of_a_class_is_an_import(tree, tmp_path):
    view = tmp_path / "view"
    shutil.copytree(tree, view)
    root = view / "hedgerow"
    (root / "planted.py").write_text(
        '"""Planted."""\nimport hedgerow_server_plugin\nX = "hedgerow.fleet.serving:Retraining.task"\n'
    )

    done = check(view)

    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "hedgerow.planted imports hedgerow.fleet.serving: hedgerow may not import hedgerow.fleet",
        "hedgerow.planted imports hedgerow_server_plugin: hedgerow may not",
    ]


def test_the_client_knows_of_the_hardware_the_names_of_targets_alone():
    found = {
        ast.unparse(node)
        for path in sorted((ROOT / "client").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom) and "hardware" in ast.unparse(node)
    }

    assert found == {"from hedgerow.hardware.lookup import target_names"}


PURE = {
    *("collections", "dataclasses", "enum", "functools", "hashlib", "itertools", "math", "typing"),
    *("numpy", "scipy", "hedgerow"),
}
"""What the rules of rollouts and of drift are made of; what is new here knows no clock, disk, socket or process."""
(RULES,) = (
    contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    if "hedgerow.fleet.drift" in contract["source_modules"]
)


@pytest.mark.parametrize("room", RULES["source_modules"])
def test_rules_import_nothing_but_values_and_mathematics(room):
    found = set()
    for path in sorted((ROOT / room.removeprefix("hedgerow.").replace(".", "/")).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])

    assert found <= PURE


@pytest.mark.parametrize(
    "name",
    [
        "datetime",
        "uuid",
        "shutil",
        "glob",
        "urllib",
        "http",
        "multiprocessing",
        "concurrent",
        "signal",
        "select",
        "mmap",
    ],
)
def test_the_contract_of_the_rules_names_what_knows_a_clock_a_disk_a_socket_or_a_process(name):
    assert name in RULES["forbidden_modules"]
    assert not PURE & set(RULES["forbidden_modules"])


@pytest.mark.heavy
def test_a_room_without_a_row_is_found(tree, tmp_path):
    view = tmp_path / "view"
    shutil.copytree(tree, view)
    (view / "hedgerow" / "fleet" / "planted.py").write_text('"""Planted."""\n')

    done = check(view)

    line = "hedgerow.fleet.planted: expected a row in the table of hedgerow.fleet, found none\n"
    assert (done.returncode, done.stdout) == (1, line)
