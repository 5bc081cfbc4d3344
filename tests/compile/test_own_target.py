"""A target of a user's own, as docs/targets.md shows it, through the command and its workers."""

import json
import re
from pathlib import Path

import pytest

from hedgerow.cli import main

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[2]
(DOOR,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "targets.md").read_text(), re.DOTALL)


def test_the_documented_target_is_compiled_for_and_its_sources_are_written(digits, digits_checkpoint, tmp_path, capsys):
    (tmp_path / "door.toml").write_text(DOOR)
    command = ["compile", str(digits_checkpoint), "--task", digits, "--target", f"{tmp_path}/door.toml", "--jobs", "1"]

    code = main([*command, "--recipe", "door=tflite-int8-full", "--json", "--out", str(tmp_path / "build")])

    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (code, record["refused"]) == (0, [])
    [artifact] = record["artifacts"]
    assert (artifact["target"], artifact["format"]) == ("door", "tflite")
    assert (tmp_path / "build" / "c" / "door" / "model.h").exists()


def test_two_targets_of_one_name_are_refused(digits, digits_checkpoint, tmp_path, capsys):
    (tmp_path / "cortex-m7.toml").write_text(DOOR)
    targets = ["--target", "cortex-m7", "--target", f"{tmp_path}/cortex-m7.toml"]

    code = main(["compile", str(digits_checkpoint), "--task", digits, *targets, "--out", str(tmp_path / "build")])

    assert code == 1
    assert "found several called cortex-m7" in capsys.readouterr().err
    assert not (tmp_path / "build").exists()
