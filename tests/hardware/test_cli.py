import json
import subprocess
import sys

from hedgerow.cli import main
from hedgerow.hardware.target import target_names


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
