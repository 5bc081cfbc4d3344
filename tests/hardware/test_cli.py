import json
import subprocess
import sys

import pytest

from hedgerow.cli import main
from hedgerow.hardware.lookup import target_names


def test_list_names_every_target(capsys):
    assert main(["targets", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in target_names())


def test_list_prints_one_json_object(capsys):
    assert main(["targets", "list", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [target["name"] for target in record["targets"]] == list(target_names())


def test_show_prints_a_target(capsys):
    assert main(["targets", "show", "iphone-15"]) == 0
    assert "mlpackage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raspberry-pi-4", "by the model below, within a factor of "),
        ("jetson-orin-nano", "not run: nothing has run on the accelerator (tensorrt); the model below is not used"),
    ],
)
def test_show_says_whether_the_cost_model_stands_for_anything(name, said, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["targets", "show", name]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("latency and energy")]
    assert said in line


def test_show_prints_one_json_object(capsys):
    assert main(["targets", "show", "iphone-15", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runtime"] == "coreml"


def test_an_unknown_target_is_one_sentence_and_exit_code_1(capsys):
    assert main(["targets", "show", "toaster"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("hedgerow: no target is called 'toaster'; choose one of: ")
    assert captured.err.count("\n") == 1


def test_hardware_loads_no_heavy_library():
    code = (
        "import sys, hedgerow.hardware.cli; "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'scipy', 'rich') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
