import json

import pytest

from hedgerow.cli import main
from hedgerow.compile.build import load_build
from hedgerow.compile.packing import pack_targets

pytest.importorskip("ai_edge_litert")

pytestmark = pytest.mark.heavy


def test_targets_that_cannot_hold_a_file_are_named_and_the_others_are_packed(mlperf_tiny, tmp_path):
    file, out = mlperf_tiny / "pretrainedResnet.tflite", tmp_path / "out"
    outcome = pack_targets(file, ["cortex-m4", "android-arm64", "x86-gateway"], out)
    assert [artifact.target for artifact in load_build(out).artifacts] == ["android-arm64"]
    assert outcome.recipes == {"android-arm64": "third-party"}
    assert [refusal.target for refusal in outcome.refused] == ["cortex-m4", "x86-gateway"]
    assert outcome.refused[1].check == "format"
    (artifact,) = outcome.to_record()["artifacts"]
    assert artifact["accuracy"] is None
    assert set(artifact["not_run"]) == {"accuracy", "parity"}
    assert "without a float model to compare with" in artifact["not_run"]["accuracy"]


def test_a_file_that_nobody_can_hold_leaves_no_build_and_exit_code_1(mlperf_tiny, tmp_path, capsys):
    file, out = mlperf_tiny / "pretrainedResnet.tflite", tmp_path / "out"
    assert main(["compile", "--artifact", str(file), "--target", "cortex-m4", "--out", str(out), "--json"]) == 1
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (record["out"], record["artifacts"]) == (None, [])
    assert record["refused"][0]["target"] == "cortex-m4"
    assert not out.exists()


def test_no_target_is_a_bug_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="at least one target"):
        pack_targets(tmp_path / "x.tflite", [], tmp_path / "out")
