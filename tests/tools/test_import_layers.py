"""Layers and arrows of a package are counted right, and a circle is named."""

import os
import subprocess
import sys
from graphlib import CycleError

import pytest

from hedgerow.task import load_attribute
from tests.test_layout import ROOT

TOOL = ROOT / "tools" / "import_layers.py"
layers_of = load_attribute(f"{TOOL}:layers_of")


def test_an_entry_stands_one_layer_above_the_highest_that_it_imports():
    arrows = {"web": {"service", "errors"}, "service": {"store", "errors"}, "store": {"errors"}, "errors": set()}

    assert layers_of(arrows) == [["errors"], ["store"], ["service"], ["web"]]


def test_entries_without_arrows_are_one_layer_and_no_entries_are_none():
    assert layers_of({"b": set(), "a": set()}) == [["a", "b"]]
    assert layers_of({}) == []


def test_a_circle_is_no_layers():
    with pytest.raises(CycleError) as caught:
        layers_of({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})

    assert set(caught.value.args[1]) == {"a", "b", "c"}


def test_a_package_that_imports_its_own_entries_is_an_entry_too(tmp_path):
    pytest.importorskip("grimp")
    package = tmp_path / "orchard"
    (package / "shed").mkdir(parents=True)
    (package / "__init__.py").write_text("from orchard.shed import tools\n")
    (package / "shed" / "__init__.py").write_text("")
    (package / "shed" / "tools.py").write_text("")
    (package / "trees.py").write_text("import orchard\n")
    command = [sys.executable, TOOL, "orchard", "--arrows"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "orchard: 3 entries, 3 layers, 2 arrows, no circle",
        "2: trees",
        "1: orchard",
        "0: shed",
        "orchard -> shed",
        "shed -> (nothing)",
        "trees -> orchard",
    ]

    (package / "shed" / "tools.py").write_text("from orchard import trees\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "a circle" in done.stdout


def test_the_fleet_has_no_circle_and_its_layers_are_printed_highest_first():
    pytest.importorskip("grimp")
    done = subprocess.run(
        [sys.executable, TOOL, "hedgerow.fleet", "--arrows"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first.endswith(" arrows, no circle")
    assert lines[0].endswith(": demo")
    assert "errors -> (nothing)" in lines
    arrows = sum(len(line.partition(" -> ")[2].split()) for line in lines if " -> " in line and "(nothing)" not in line)
    assert f", {arrows} arrows, " in first
