"""Advice names the command that works for this copy, and no index that it is not on."""

import re
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from hedgerow import installation
from hedgerow.errors import ExtraNotInstalledError
from hedgerow.installation import extra_of, install_command, is_installed, pip_arguments, require
from tests.test_layout import FOLDERS, ROOT

CLONE = "file:///home/me/hedge%20row"


@pytest.mark.parametrize(
    ("origin", "arguments"),
    [
        (
            {"url": CLONE, "dir_info": {"editable": True}},
            ["-c", "/home/me/hedge row/constraints.txt", "-e", "/home/me/hedge row[train]"],
        ),
        ({"url": CLONE, "dir_info": {}}, ["-c", "/home/me/hedge row/constraints.txt", "/home/me/hedge row[train]"]),
        ({"url": "file:///tmp/hedgerow-0.1.0.whl"}, ["hedgerow[train] @ file:///tmp/hedgerow-0.1.0.whl"]),
        ({"url": "https://x.org/hedgerow-0.1.0.whl"}, ["hedgerow[train] @ https://x.org/hedgerow-0.1.0.whl"]),
        (
            {"url": "https://x.org/h.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}},
            ["hedgerow[train] @ git+https://x.org/h.git@ab12"],
        ),
        # From an index pip notes nothing.
        ({}, ["hedgerow[train]"]),
        # Run from its sources.
        (None, ["-c", "constraints.txt", ".[train]"]),
    ],
)
def test_the_command_fits_how_this_copy_was_installed(origin, arguments):
    assert pip_arguments(origin, "train", is_folder=lambda _path: True) == arguments


def test_a_clone_that_is_gone_is_not_named():
    origin = {"url": "file:///tmp/gone", "dir_info": {}}

    assert pip_arguments(origin, "fleet", is_folder=lambda _path: False) == ["-c", "constraints.txt", ".[fleet]"]


def test_the_base_install_has_no_extra():
    assert pip_arguments(None, "") == ["-c", "constraints.txt", "."]


def test_the_command_is_that_of_the_python_that_runs():
    command = install_command("fleet")

    assert command.startswith(f"{sys.executable} -m pip install -c ")
    assert f"{ROOT}[fleet]" in command


class Record:
    """What importlib.metadata finds of one installation."""

    def __init__(self, **files):
        self.files = files

    def read_text(self, name):
        return self.files.get(name.partition(".")[0])


@pytest.mark.parametrize(
    ("records", "end"),
    [
        ([], "-c constraints.txt '.[fleet]'"),
        ([Record(direct_url="{", INSTALLER="pip")], "-c constraints.txt '.[fleet]'"),
        ([Record(direct_url="[1]", INSTALLER="pip")], "'hedgerow[fleet]'"),
        ([Record(INSTALLER="pip")], "'hedgerow[fleet]'"),
        (
            [Record(), Record(direct_url='{"url": "file:///a.whl"}', INSTALLER="pip")],
            "'hedgerow[fleet] @ file:///a.whl'",
        ),
        ([Record()], "-c constraints.txt '.[fleet]'"),
    ],
)
def test_what_a_build_left_in_a_clone_and_a_damaged_record_are_no_installation(records, end, monkeypatch):
    monkeypatch.setattr(installation, "distributions", lambda name: records)

    assert install_command("fleet") == f"{sys.executable} -m pip install {end}"


def test_without_a_record_no_extra_is_known(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(installation, "requires", absent)
    assert extra_of("torch") is None


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch", "train"),
        ("torch.nn", "train"),
        ("flwr", "train"),
        ("onnx", "compile"),
        ("sklearn", "examples"),
        ("ai_edge_litert", "litert"),
        ("numpy", None),
        ("no_such_module", None),
        (None, None),
    ],
)
def test_the_extra_of_a_module_is_the_one_that_brings_it(module, extra):
    assert extra_of(module) == extra


def test_what_is_installed_is_seen_without_importing():
    assert is_installed("wave.anything")
    assert not is_installed("no_such_package.inner")
    assert not is_installed("")


def test_what_is_absent_is_refused_by_name():
    require("counting", "train", ("math", "wave"))
    with pytest.raises(ExtraNotInstalledError) as caught:
        require("counting", "train", ("wave", "no_such_b.inner", "no_such_a"))

    assert (caught.value.feature, caught.value.extra, caught.value.missing) == ("counting", "train", "no_such_a")


def test_no_message_and_no_page_names_an_index_that_has_no_hedgerow():
    folders = ("src", *FOLDERS, "scripts", "tools", "docs")
    files = [
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {"", ".md", ".py", ".toml"}
    ]
    files += [*ROOT.glob("*.md"), ROOT / ".ci" / "run"]
    pattern = re.compile(r"pip install[^\n]*['\" ]hedgerow\b(?!\.)")

    assert [str(path) for path in files if path.is_file() and pattern.search(path.read_text())] == []
