"""Errors are one tree: one root a folder, each in an errors.py, and each drawn where a reader looks first."""

from pathlib import Path

import pytest

from tests.error_trees import drawn, error_classes
from tests.test_layout import FOLDERS, MODULES, ROOT

TREE, OTHERS = error_classes(MODULES, tuple(FOLDERS))
ROOTS = {"client": "ClientError", "compile": "CompileError", "fleet": "FleetError", "server": "ServerError"}
FILES = sorted(path.relative_to(ROOT).as_posix() for path in MODULES.values() if path.name == "errors.py")


def whole_tree(folder: str) -> set[tuple[str, str | None]]:
    """Return (name, name of its base) of every error of a folder, with its root under nothing."""
    root = ROOTS.get(folder, "HedgerowError")
    return {(root, None)} | {(each.name, each.base[1]) for each in TREE if each.folder == folder and each.name != root}


def test_what_is_looked_at_is_there():
    assert ("fleet", "ReleaseError", ("fleet", "FleetError")) in {(each.folder, each.name, each.base) for each in TREE}
    assert {"client/errors.py", "src/hedgerow/errors.py", "server/cohort/errors.py"} <= set(FILES)
    assert len(TREE) > 70


def test_each_folder_has_one_root_and_no_other_branch():
    below = {(each.folder, each.name) for each in TREE if each.base == ("", "HedgerowError") and each.folder}
    assert below == set(ROOTS.items())
    strangers = {(each.folder, each.name, each.base) for each in TREE if each.base[0] not in {each.folder, ""}}
    assert strangers == set()
    foreign = [each for each in TREE if each.folder and each.base[0] == "" and each.base[1] != "HedgerowError"]
    assert foreign == [], "an error of a folder derives from the folder's root"


def test_each_error_stands_in_an_errors_file():
    assert {each.module for each in TREE if not each.module.endswith(".errors")} == set()


@pytest.mark.parametrize("folder", ["", *sorted(ROOTS)])
def test_a_folders_file_draws_the_whole_tree(folder):
    path = ROOT / (folder or "src/hedgerow") / "errors.py"
    found = drawn(path)
    assert len(found) == len(set(found)), "a name twice"
    assert set(found) == whole_tree(folder)


@pytest.mark.parametrize("file", FILES)
def test_a_rooms_file_draws_its_own_errors_below_the_folders_root(file):
    path = ROOT / file
    folder = "" if file.startswith("src/") else Path(file).parts[0]
    found = set(drawn(path))
    assert found <= whole_tree(folder)
    names = {each.name for each in TREE if MODULES[each.module] == path}
    assert names <= {name for name, _above in found}
    assert {above for _name, above in found if above is not None} <= {name for name, _above in found}


@pytest.mark.parametrize("file", FILES)
def test_siblings_are_drawn_in_the_order_of_their_names(file):
    found = drawn(ROOT / file)
    for above in {above for _name, above in found}:
        siblings = [name for name, of in found if of == above]
        assert siblings == sorted(siblings)


def test_an_exception_that_is_none_of_the_tree_is_private_or_known():
    public = {(each.module, each.name) for each in OTHERS if not each.name.startswith("_")}
    assert public == {
        # A signal, which nobody who catches Exception may swallow.
        ("hedgerow.interrupts", "Interrupted"),
        # It says inside the reference evaluation that an operator has no formula, and gets no further.
        ("hedgerow.compile.coreml_evaluation.operation", "NotEvaluatedError"),
        # The same of an operator that has no C, and of a source that a host's compiler refuses.
        ("hedgerow.compile.preparation.c_call", "UntranslatableCallError"),
        ("hedgerow.compile.preparation.host_check", "CBuildError"),
    }
