import json
from pathlib import Path

import numpy as np
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


def without_progress(err: str) -> list[str]:
    """Return the lines of *err*; under load the command shows how far it is before it gives up."""
    return [line for line in err.splitlines() if not line.startswith("check ")]


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
    assert len(without_progress(captured.err)) == 1


def open_onnx(folder: Path) -> Path:
    """Return a product of a series of any length with a matrix."""
    onnx = pytest.importorskip("onnx")
    weight = onnx.numpy_helper.from_array(np.ones((6, 3), np.float32), "w")
    taken = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, "time", 6))
    given = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, "time", 3))
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "graph", [taken], [given], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "open.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_model_with_an_open_size_is_unknown_and_never_fits(tmp_path, capsys):
    path = open_onnx(tmp_path)
    code, record = answers(capsys, path, "--target", "raspberry-pi-4")
    assert code == 1
    [answer] = record["targets"]
    assert (answer["fits"], answer["misfits"]) == (None, [])
    assert answer["unknown"] == {
        "memory": "unknown, because the file leaves open the dimension 'time' of the input 'x'"
    }
    assert set(answer["profile"]) == {"parameters"}
    assert main(["targets", "check", str(path), "--target", "raspberry-pi-4"]) == 1
    [line] = capsys.readouterr().out.splitlines()
    assert line == (
        "raspberry-pi-4  unknown  memory: unknown, because the file leaves open the dimension 'time' of the input 'x'; "
        "give its sizes with --shape NAME=SIZExSIZE..."
    )


def test_a_given_shape_answers_the_question(tmp_path, capsys):
    path = open_onnx(tmp_path)
    code, record = answers(capsys, path, "--target", "raspberry-pi-4", "--shape", "x=1x1000x6")
    assert (code, record["targets"][0]["fits"]) == (0, True)
    # 1,000 rows of 6 and of 3 floats.
    assert record["targets"][0]["profile"]["peak_memory_bytes"] == 36_000
    assert record["targets"][0]["profile"]["macs"] == 18_000


@pytest.mark.parametrize("shape", ["x", "x=", "x=1,0,6", "x=1,-1,6", "=1", "x=1,a,6", "z=1,6", "x=1,6"])
def test_a_shape_that_is_none_or_does_not_fit_is_one_sentence(shape, tmp_path, capsys):
    assert main(["targets", "check", str(open_onnx(tmp_path)), "--shape", shape]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "correct --shape" in captured.err
    assert len(without_progress(captured.err)) == 1


def test_a_file_that_kills_the_parser_ends_in_one_sentence(tmp_path, capsys, monkeypatch):
    (tmp_path / "dying_worker.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("hedgerow.compile.foreign._MODULE", "dying_worker")
    assert main(["targets", "check", str(open_onnx(tmp_path))]) == 1
    captured = capsys.readouterr()
    assert without_progress(captured.err)[0].startswith("hedgerow: starting to look at open.onnx in the onnx parser: ")
    assert "the signal SIGSEGV" in captured.err
    assert len(without_progress(captured.err)) == 1


def test_an_accelerators_time_is_not_run_rather_than_modelled(resnet, capsys):
    _, record = answers(capsys, resnet)
    modelled = {answer["target"]: "target_latency_ms" in answer["profile"] for answer in record["targets"]}
    assert modelled == {
        "android-arm64": True,
        "android-npu": False,
        "coral-edgetpu": False,
        "cortex-m4": True,
        "cortex-m7": True,
        "esp32-s3": True,
    }
    assert main(["targets", "check", str(resnet), "--target", "coral-edgetpu"]) == 0
    said = capsys.readouterr().out
    assert "its time was not run: nothing has run on the accelerator (edgetpu)" in said
    assert "cost model" not in said


def test_an_unknown_target_is_named_before_anything_is_read(tmp_path, capsys):
    assert main(["targets", "check", str(tmp_path / "absent"), "--target", "toaster"]) == 1
    assert "no target is called 'toaster'" in capsys.readouterr().err
