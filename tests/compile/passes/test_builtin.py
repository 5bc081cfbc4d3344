import dataclasses
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.compile.errors import PassSettingsError
from hedgerow.compile.passes.builtin import PASSES, PASSES_GROUP, find_pass, pass_reference
from hedgerow.compile.passes.kinds import FilePass
from hedgerow.decode import Fields, encode_json
from hedgerow.errors import PluginError, UnknownNameError

MINE = """
from dataclasses import dataclass

from hedgerow.compile.passes.kinds import FilePass
from hedgerow.compile.passes.settings import between


@dataclass(frozen=True, kw_only=True)
class Shrink(FilePass):
    name, takes, gives = "shrink", "onnx", "onnx"
    share: float = between(0.0, 1.0, default=0.5)

    def apply(self, stage, source):
        return stage


class Other:
    pass
"""


@pytest.mark.parametrize("name", sorted(PASSES))
def test_each_of_ours_is_found_by_its_name(name):
    assert find_pass(name) is PASSES[name]
    assert pass_reference(PASSES[name]) == name


def settings_of(kind):
    """Return what draws settings that a pass must take, from its own fields."""
    drawn = {}
    for entry in dataclasses.fields(kind):
        if "choices" in entry.metadata:
            drawn[entry.name] = st.sampled_from(entry.metadata["choices"])
        elif "range" in entry.metadata:
            low, high = entry.metadata["range"]
            drawn[entry.name] = st.integers(low, high) if entry.type is int else st.floats(low, high)
        else:
            drawn[entry.name] = st.text(max_size=20)
    return st.fixed_dictionaries(drawn)


@given(data=st.data(), name=st.sampled_from(sorted(PASSES)))
def test_a_pass_comes_back_from_canonical_json_as_the_same_value(data, name):
    step = PASSES[name](**data.draw(settings_of(PASSES[name])))
    record = encode_json(dict(step.settings))
    found = PASSES[name](**Fields({"settings": json.loads(record)}, "pass").scalars("settings"))
    assert (found, hash(found), str(found)) == (step, hash(step), str(step))
    assert encode_json(dict(found.settings)) == record


@pytest.mark.parametrize("first", ["", "from __future__ import annotations\n"])
def test_a_pass_in_a_file_is_found_by_the_reference_that_it_gives(first, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(first + MINE)
    monkeypatch.chdir(tmp_path)
    kind = find_pass("mine.py:Shrink")
    assert str(kind(share=1)) == "shrink(share=1.0)"
    assert pass_reference(kind) == f"{tmp_path}/mine.py:Shrink"
    assert find_pass(pass_reference(kind)) is kind
    with pytest.raises(
        PassSettingsError, match=r"shrink: expected a number from 0 to 1 for the setting 'share', found 2.0"
    ):
        kind(share=2)
    with pytest.raises(PassSettingsError, match=r"shrink: expected one of its settings"):
        kind(part=0.5)


def test_a_pass_is_found_by_the_entry_point_of_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "someones_passes.py").write_text(MINE)
    facts = tmp_path / "someones_passes-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-passes\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[{PASSES_GROUP}]\nshrink = someones_passes:Shrink\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "someones_passes", raising=False)
    kind = find_pass("shrink")
    assert pass_reference(kind) == "someones_passes:Shrink"
    assert find_pass("someones_passes:Shrink") is kind


def test_what_is_no_pass_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        PluginError, match=r"the pass 'mine.py:Other' cannot be used: expected a class derived from Pass"
    ):
        find_pass("mine.py:Other")
    with pytest.raises(UnknownNameError, match=r"no pass is called 'trim-onx'; did you mean 'trim-onnx'"):
        find_pass("trim-onx")


def test_a_pass_that_no_other_process_could_find_has_no_reference():
    class Inner(FilePass):
        name, takes, gives = "inner", "onnx", "onnx"

        def apply(self, stage, source):
            raise NotImplementedError

    with pytest.raises(PluginError, match=r"the pass 'inner' cannot be used: expected the class .*Inner at the top"):
        pass_reference(Inner)
