import json
from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert")

from hedgerow.cli import main

pytestmark = pytest.mark.heavy


@pytest.fixture
def resnet(mlperf_tiny) -> Path:
    """ResNet-8 in full int8."""
    return mlperf_tiny / "pretrainedResnet_quant.tflite"


@pytest.fixture
def floating(mlperf_tiny) -> Path:
    """ResNet-8 in float."""
    return mlperf_tiny / "pretrainedResnet.tflite"


def answers(capsys, *arguments) -> tuple[int, dict]:
    code = main(["targets", "check", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_full_int8_file_fits_every_target_of_its_format(resnet, capsys):
    code, record = answers(capsys, resnet)
    assert code == 0
    assert (record["format"], record["bytes"]) == ("tflite", resnet.stat().st_size)
    names = [answer["target"] for answer in record["targets"]]
    assert names == ["android-arm64", "android-npu", "coral-edgetpu", "cortex-m4", "cortex-m7", "esp32-s3"]
    assert all(answer["fits"] and answer["misfits"] == [] for answer in record["targets"])
    assert all(answer["profile"]["macs"] == 12_501_632 for answer in record["targets"])


def test_a_float_file_is_told_what_is_in_the_way(floating, capsys):
    code, record = answers(capsys, floating, "--target", "cortex-m4", "--target", "android-arm64")
    assert code == 1
    microcontroller, phone = record["targets"]
    assert [misfit["check"] for misfit in microcontroller["misfits"]] == ["all integer", "integer border", "memory"]
    assert microcontroller["misfits"][0]["names"] == ["float32"]
    assert phone["fits"]


def test_a_target_of_another_format_says_so_and_has_no_profile(resnet, capsys):
    code, record = answers(capsys, resnet, "--target", "raspberry-pi-4")
    assert code == 1
    assert record["targets"][0]["misfits"][0]["check"] == "format"
    assert record["targets"][0]["profile"] is None


def test_people_get_one_line_for_a_fit_and_one_for_each_misfit(floating, capsys):
    assert main(["targets", "check", str(floating)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("android-arm64  fits; 196,608 bytes of memory beside the weights, ")
    assert "all integer: expected integers in every tensor, found also float32" in lines[1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "expected a file that can be read, found No such file or directory"),
        (lambda path: path.write_bytes(b"\xff\xff\0\0TFL3\xff\xff"), "expected a whole TFLite flatbuffer"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and nothing else"), "expected a zip of a Core ML package"),
        (lambda path: path.mkdir(), "expected a folder with a Manifest.json, as Core ML packages have, found none"),
    ],
)
def test_a_file_that_is_no_model_is_one_sentence_and_exit_code_1(make, said, tmp_path, capsys):
    path = tmp_path / "model"
    make(path)
    assert main(["targets", "check", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_an_unknown_target_is_named_before_anything_is_read(tmp_path, capsys):
    assert main(["targets", "check", str(tmp_path / "absent"), "--target", "toaster"]) == 1
    assert "no target is called 'toaster'" in capsys.readouterr().err
