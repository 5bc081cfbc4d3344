import json
import subprocess
import sys
from dataclasses import replace

import pytest

from hedgerow.cli import main
from hedgerow.compile.arena import installed_version
from hedgerow.compile.build import load_build
from hedgerow.compile.packing import pack_targets
from hedgerow.hardware.lookup import load_target

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
    assert "give some with --data or --task" in artifact["not_run"]["accuracy"]
    assert "without a float model to compare with" in artifact["not_run"]["parity"]


def test_a_file_that_nobody_can_hold_leaves_no_build_and_exit_code_1(mlperf_tiny, tmp_path, capsys):
    file, out = mlperf_tiny / "pretrainedResnet.tflite", tmp_path / "out"
    assert main(["compile", "--artifact", str(file), "--target", "cortex-m4", "--out", str(out), "--json"]) == 1
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (record["out"], record["artifacts"]) == (None, [])
    assert record["refused"][0]["target"] == "cortex-m4"
    assert not out.exists()


def test_a_file_that_would_kill_litert_is_refused_by_its_operator_and_packed_for_who_runs_it(
    scrambled, tmp_path, capsys
):
    """In a process of its own, as a user calls it: exit code 139 and no word is what it was."""
    file, out = tmp_path / "keyword_scrambled_8bit.tflite", tmp_path / "out"
    file.write_bytes(scrambled)
    targets = ("android-arm64", "cortex-m4", "x86-gateway")
    command = [sys.executable, "-m", "hedgerow.cli", "compile", "--artifact", str(file), "--out", str(out)]
    command += [word for name in targets for word in ("--target", name)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    record = json.loads(done.stdout.splitlines()[-1])
    refused = {refusal["target"]: refusal for refusal in record["refused"]}
    assert set(refused) == {"android-arm64", "x86-gateway"}
    assert refused["android-arm64"]["check"] == "number types"
    assert "found SVDF on int8" in refused["android-arm64"]["reason"]
    assert refused["x86-gateway"]["check"] == "format"
    # TensorFlow Lite Micro runs it, 16-bit integers at its border and all.
    assert [artifact["target"] for artifact in record["artifacts"]] == ["cortex-m4"]
    assert [artifact.target for artifact in load_build(out).artifacts] == ["cortex-m4"]


def test_a_file_that_kills_its_runtime_is_a_refused_target_with_the_signal_and_not_a_dead_command(
    scrambled, tmp_path, monkeypatch
):
    """What a table does not know: here nothing is known of types."""
    phone = replace(load_target("android-arm64"), operator_types={})
    monkeypatch.setattr("hedgerow.compile.third_party.load_target", lambda _name: phone)
    file, out = tmp_path / "keyword_scrambled_8bit.tflite", tmp_path / "out"
    file.write_bytes(scrambled)
    outcome = pack_targets(file, ["android-arm64"], out)
    (refusal,) = outcome.refused
    assert (outcome.build, refusal.check) == (None, "process")
    # Which step meets the memory that the file has spoilt is chance.
    begins = (
        f"{step} {file.name} in LiteRT: expected a process that ends by itself, found the signal SIG"
        for step in ("loading", "running")
    )
    assert refusal.reason.startswith(tuple(begins))
    assert not out.exists()


@pytest.mark.skipif(installed_version() is None, reason="needs the extra mcu")
def test_a_microcontrollers_artifact_is_run_in_its_own_interpreter_and_the_report_says_so(own_int8_file, tmp_path):
    file, out = tmp_path / "own.tflite", tmp_path / "out"
    file.write_bytes(own_int8_file)
    outcome = pack_targets(file, ["cortex-m7", "android-arm64"], out)
    assert outcome.refused == ()
    micro, phone = outcome.to_record()["artifacts"]
    assert phone["executed_by"]["golden"].startswith("LiteRT ")
    assert phone["arena"] is None
    header = (out / "c" / "cortex-m7" / "model.h").read_text()
    assert {micro["checks"][name] for name in ("oracle", "operators", "memory", "golden")} == {"passed"}
    assert micro["executed_by"] == dict.fromkeys(
        ("oracle", "operators", "memory", "golden"),
        f"TensorFlow Lite Micro's reference kernels {installed_version()}",
    )
    assert micro["peak_memory_bytes"] == micro["arena"]["bytes"]
    assert f"#define OWN_MODEL_ARENA_BYTES {micro['arena']['bytes']}\n" in header


def test_without_the_extra_nothing_is_claimed_of_a_microcontroller_and_no_other_runtime_stands_for_it(
    own_int8_file, tmp_path, monkeypatch
):
    monkeypatch.setattr("hedgerow.compile.judgement.installed_version", lambda: None)
    file = tmp_path / "own.tflite"
    file.write_bytes(own_int8_file)
    outcome = pack_targets(file, ["cortex-m7"], tmp_path / "out")
    (micro,) = outcome.to_record()["artifacts"]
    for name in ("oracle", "operators", "memory", "golden"):
        assert micro["checks"][name] == "not run"
        assert micro["not_run"][name] == (
            "the interpreter of TensorFlow Lite Micro is not installed; install the extra mcu"
        )
    assert (micro["executed_by"], micro["peak_memory_bytes"]) == ({}, None)
    assert outcome.build.artifacts[0].golden is None
    assert "ARENA_BYTES" not in (tmp_path / "out" / "c" / "cortex-m7" / "model.h").read_text()


def test_no_target_is_a_bug_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="at least one target"):
        pack_targets(tmp_path / "x.tflite", [], tmp_path / "out")


@pytest.mark.skipif(installed_version() is None, reason="needs the extra mcu")
def test_an_operator_that_the_targets_own_runtime_lacks_is_told_by_it_with_what_to_do(tmp_path, capsys):
    from tests.compile.test_foreign import one_operator

    file = tmp_path / "diagonal.tflite"
    file.write_bytes(one_operator("MATRIX_DIAG"))
    outcome = pack_targets(file, ["cortex-m7"], tmp_path / "out")
    (refusal,) = outcome.refused
    words = "expected operators that TensorFlow Lite Micro has, found MATRIX_DIAG, which it does not have"
    assert words in refusal.reason
    assert refusal.reason.count("MATRIX_DIAG") == 1
    assert "replace these layers in the model or leave this target out" in refusal.reason
    assert main(["targets", "check", str(file), "--target", "cortex-m7"]) == 1
    said = capsys.readouterr().out
    assert f"operators: {words}" in said
    assert said.count("MATRIX_DIAG") == 1
