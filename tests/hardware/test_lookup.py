"""A target of a user's own: the documented file, an attribute, an entry point; and what is said of what is none."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError, PluginError, UnknownNameError
from hedgerow.hardware import load_target, target_names
from hedgerow.hardware.cli import list_command, show
from hedgerow.hardware.target import read_target_record
from tests.distributions import install_distribution

ROOT = Path(__file__).parents[2]
(DOOR,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "targets.md").read_text(), re.DOTALL)


@pytest.fixture
def door(tmp_path) -> Path:
    path = tmp_path / "door.toml"
    path.write_text(DOOR)
    return path


def test_the_documented_file_is_a_target_called_like_the_file(door):
    target = load_target(str(door))

    assert (target.name, target.runtime, target.ram_bytes) == ("door", "tflite-micro", 262_144)
    assert target.operators == load_target("cortex-m7").operators


def test_a_command_shows_a_target_of_the_users_own(door):
    result = CliRunner().invoke(show, [str(door), "--json"], catch_exceptions=False)

    assert result.exit_code == 0
    assert '"name": "door"' in result.output


def test_an_attribute_of_a_file_is_a_target_or_the_path_of_one(door, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from hedgerow.hardware import load_target\n"
        f"PATH = Path({str(door)!r})\n"
        "SMALL = replace(load_target('cortex-m4'), name='small', ram_bytes=65536)\n"
        "NONE = 3\n"
    )

    assert load_target(f"{tmp_path}/mine.py:PATH") == load_target(str(door))
    assert load_target(f"{tmp_path}/mine.py:SMALL").ram_bytes == 65_536
    with pytest.raises(PluginError, match="expected a Target or the path of its file, found int"):
        load_target(f"{tmp_path}/mine.py:NONE")
    with pytest.raises(PluginError, match="ABSENT"):
        load_target(f"{tmp_path}/mine.py:ABSENT")


def test_an_installed_package_brings_targets_by_entry_points(door, tmp_path, monkeypatch):
    module = f"from pathlib import Path\nDOOR = Path({str(door)!r})\n"
    site = tmp_path / "site"
    install_distribution(site, "door_targets", module, {"hedgerow.targets": {"front-door": "door_targets:DOOR"}})
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "door_targets", raising=False)

    assert load_target("front-door") == replace(load_target(str(door)), name="front-door")
    with pytest.raises(UnknownNameError, match="front-door"):
        load_target("back-door")
    assert "front-door" in target_names()
    listed = CliRunner().invoke(list_command, catch_exceptions=False).output
    assert "front-door" in listed


def test_a_name_beside_a_file_of_that_name_is_told_the_files_path(door, monkeypatch):
    monkeypatch.chdir(door.parent)
    with pytest.raises(UnknownNameError, match=r"^no target is called 'door'; name the file, as \./door\.toml$"):
        load_target("door")
    with pytest.raises(UnknownNameError, match=f"as {door}$"):
        load_target(str(door.with_suffix("")))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "expected a TOML file that can be read, found none (No such file or directory)"),
        (b"\xff\xfe", "expected a TOML file that can be read, found none"),
        (b"#" * (2**16 + 1), "expected a file of at most 65536 bytes, found more"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, content, expected):
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(PluginError) as caught:
        load_target(str(path))

    assert str(caught.value).startswith(f"the target {str(path)!r} cannot be used: {expected}")


@pytest.mark.parametrize("content", ["a = " + "[" * 30_000, "ram_bytes = " + "9" * 5000, f"summary = 0x{'f' * 30_000}"])
def test_a_file_beyond_what_toml_should_hold_is_one_sentence(tmp_path, content):
    (tmp_path / "deep.toml").write_text(content)
    done = CliRunner().invoke(show, [str(tmp_path / "deep.toml")])

    assert isinstance(done.exception, DecodeError)
    assert re.match(r"target deep(\.summary)?: expected ", str(done.exception))
    assert len(str(done.exception)) < 200


def test_a_files_mistake_is_named_with_its_place(tmp_path):
    path = tmp_path / "door.toml"
    path.write_text(DOOR.replace("ram_bytes = 262144", "ram_bytes = 1"))

    with pytest.raises(DecodeError, match=r"target door\.ram_bytes"):
        load_target(str(path))
    (tmp_path / "Door!.toml").write_text(DOOR)
    with pytest.raises(DecodeError, match="expected a file name like"):
        load_target(str(tmp_path / "Door!.toml"))


@pytest.mark.parametrize("name", target_names())
def test_a_targets_record_is_read_as_the_same_target(name):
    target = load_target(name)

    assert read_target_record(Fields(target.to_record(), "target")) == target


def test_a_record_whose_recipe_is_not_the_first_of_its_recipes_is_refused():
    record = {**load_target("cortex-m7").to_record(), "recipe": "onnx-float"}

    with pytest.raises(DecodeError) as caught:
        read_target_record(Fields(record, "target"))
    assert (
        str(caught.value) == "target.recipe: expected 'tflite-int8-full', the first of its recipes, found 'onnx-float'"
    )


def test_a_record_with_an_unknown_key_is_refused():
    record = {**load_target("cortex-m7").to_record(), "colour": "green"}

    with pytest.raises(DecodeError, match="colour"):
        read_target_record(Fields(record, "target"))
