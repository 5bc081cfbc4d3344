"""The folders are the import package, the agent is light, and the wheel holds everything."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import hedgerow
from hedgerow.cli import COMMANDS
from hedgerow.plugins import load_plugin

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


FOLDERS = tuple(PROJECT["tool"]["hedgerow"]["folders"])
OTHERS = ("benchmarks", "scripts", "tools")
"""Folders that have tests and are no part of the package."""


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the import name and the file of every module."""
    for base, package in [(ROOT / "src" / "hedgerow", "hedgerow"), *((ROOT / f, f"hedgerow.{f}") for f in FOLDERS)]:
        for path in sorted(base.rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__"))), path


MODULES = dict(modules())


def test_importing_a_folder_without_the_package_is_banned_for_every_folder():
    banned = PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]

    assert {name: entry["msg"] for name, entry in banned.items()} == {
        folder: f"import hedgerow.{folder}" for folder in FOLDERS if folder != "examples"
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_as_part_of_the_package(folder):
    module = importlib.import_module(f"hedgerow.{folder}")

    assert Path(module.__file__).parent == ROOT / folder


def test_no_folder_shadows_the_package():
    assert not (ROOT / "hedgerow").exists()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_says_what_it_is_and_what_it_exports(name):
    tree = ast.parse(MODULES[name].read_text())
    bound: set[str] = set()
    exported: list[str] | None = None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound.update(part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
            if ast.unparse(targets[0]) == "__all__":
                exported = ast.literal_eval(node.value)

    assert ast.get_docstring(tree), "a module without a docstring"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    offers_nothing = not any(isinstance(node, kinds) for node in tree.body)
    if offers_nothing or name.startswith("hedgerow.examples"):  # examples are written as users write
        return
    assert exported is not None, "a module without __all__"
    assert exported == sorted(set(exported), key=exported.index), "a name twice in __all__"
    if "__getattr__" not in bound:
        assert set(exported) <= bound


def test_the_root_exports_exactly_its_public_names():
    assert all(hasattr(hedgerow, name) for name in hedgerow.__all__)  # they are there from their first use on
    public = {name for name, value in vars(hedgerow).items() if getattr(value, "__module__", "").startswith("hedgerow")}

    assert {name for name in public if not name.startswith("_")} | {"__version__"} == set(hedgerow.__all__)


def test_importing_the_agent_loads_nothing_heavy():
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "light_import.py")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")


def test_importing_the_folders_leaves_the_environment_as_it_was():
    names = ["hedgerow", *(f"hedgerow.{folder}" for folder in FOLDERS), "hedgerow.client.cli", "hedgerow.server.cli"]
    script = f"""
import importlib, os
before = dict(os.environ)
for name in {names!r}:
    importlib.import_module(name)
changed = sorted(set(before.items()) ^ set(os.environ.items()))
raise SystemExit(str(changed) if changed else 0)
"""
    unset = {"FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK", "TF_CPP_MIN_LOG_LEVEL"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_writes_the_environment_when_it_is_imported(name):
    waiting = list(ast.parse(MODULES[name].read_text()).body)
    written = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            written += re.findall(
                r"os\.(?:environ\.(?:setdefault|update|pop|clear)|putenv|unsetenv)", ast.unparse(node)
            )
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            written += re.findall(r"^os\.environ", ast.unparse(node))
        waiting += ast.iter_child_nodes(node)

    assert written == []


def test_the_base_install_is_what_the_agent_imports():
    names = {re.match(r"[a-z0-9-]+", line).group() for line in PROJECT["project"]["dependencies"]}

    assert names == {
        "click",
        "filelock",
        "numpy",
        "onnxruntime",
        "paho-mqtt",
        "psutil",
        "safetensors",
        "tuf",
        "urllib3",
    }


def test_every_direct_dependency_is_pinned():
    pins = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    wanted = [*PROJECT["project"]["dependencies"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        wanted += extra
    names = {re.match(r"[A-Za-z0-9_-]+", line).group().lower().replace("_", "-") for line in wanted} - {"hedgerow"}

    assert names <= pins


def test_every_extra_is_in_all_and_dev_adds_the_tools():
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = extras["all"]

    assert set(re.search(r"\[(.*)\]", everything).group(1).split(",")) == set(extras) - {"all", "dev", "test"}
    assert "hedgerow[all,test]" in extras["dev"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Build the wheel from a copy, so that nothing an earlier build left behind gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "out", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-qq",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            folder,
            folder / "source",
        ],
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.mark.heavy
def test_the_wheel_holds_every_module_and_data_file(wheel):
    held = set(wheel.namelist())
    wanted = {
        "hedgerow/" + str(path.relative_to(ROOT / "src" / "hedgerow"))
        for path in (ROOT / "src" / "hedgerow").rglob("*.py")
    }
    wanted.add("hedgerow/py.typed")
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
                wanted.add(f"hedgerow/{path.relative_to(ROOT)}")

    assert sorted(wanted - held) == []
    assert {name for name in held if name.endswith("dist-info/licenses/LICENSE")}


def commands() -> Iterator[tuple[str, object]]:
    """Yield ``group command`` and its plug-in for every command of the table."""
    for name, entry in COMMANDS.items():
        if isinstance(entry, tuple):
            yield name, entry[0]
        else:
            yield from ((f"{name} {inner}", plugin) for inner, (plugin, _summary) in entry.items())


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "plugin"), list(commands()), ids=[name for name, _ in commands()])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries that a command imports
def test_every_command_imports_and_explains_itself_and_its_options(name, plugin):
    command = load_plugin("command", {name: plugin}, name)

    assert isinstance(command, click.Command)
    assert command.help
    unexplained = [
        option.name
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden and not option.help
    ]
    assert unexplained == []
    assert f"  hedgerow {name} " in f"{command.epilog} ", "no example"
    options = [option for option in command.params if isinstance(option, click.Option) and not option.multiple]
    defaults = {option.name: option.to_info_dict()["default"] for option in options if not option.show_default}
    silent = [name for name, default in defaults.items() if default not in (None, False, "")]
    assert silent == [], "defaults that are not shown"
    text = command.get_help(click.Context(command, info_name=f"hedgerow {name}", terminal_width=80))
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_the_folders_of_tests_mirror_the_tree():
    product = {"root": ROOT / "src" / "hedgerow", **{name: ROOT / name for name in (*FOLDERS, *OTHERS)}}
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}

    assert [
        str(folder)
        for folder in folders - {Path()}
        if not product.get(folder.parts[0], ROOT / "absent").joinpath(*folder.parts[1:]).is_dir()
    ] == []


def test_a_test_that_is_called_like_one_module_stands_in_its_folder():
    homes: dict[str, set[Path]] = {}
    for path in MODULES.values():
        inside = path.relative_to(ROOT).parent
        home = Path("root", *inside.parts[2:]) if inside.parts[0] == "src" else inside
        homes.setdefault(path.stem, set()).add(home)
    for path in (ROOT / "tests").rglob("test_*.py"):
        stem, home = path.stem.removeprefix("test_"), path.parent.relative_to(ROOT / "tests")
        near = {other for other in homes.get(stem, ()) if home.parts and other.parts[0] == home.parts[0]}
        assert not near or home in near, f"{path.relative_to(ROOT)}: expected in {sorted(map(str, near))}"
