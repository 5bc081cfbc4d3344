import tomllib
from importlib.resources import files

import pytest

from hedgerow.errors import DecodeError, UnknownNameError
from hedgerow.hardware.target import decode_target, load_target, target_names

TARGETS = ("android-arm64", "iphone-15", "raspberry-pi-4", "x86-gateway")


def text_of(name: str) -> str:
    return (files("hedgerow.hardware") / "targets" / f"{name}.toml").read_text("utf-8")


def test_the_four_targets_of_the_main_job_exist():
    assert target_names() == TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_is_read_and_makes_sense(name):
    target = load_target(name)
    assert target.name == name
    assert "float32" in target.number_types
    assert target.flash_bytes <= target.ram_bytes
    assert target.cost.source
    assert {"onnxruntime": "onnx", "litert": "tflite", "coreml": "mlpackage"}[target.runtime] == target.format
    assert target.train_format in {"", target.format}


def test_an_unknown_target_is_named_with_a_near_one():
    with pytest.raises(UnknownNameError, match=r"no target is called 'raspbery-pi-4'; did you mean 'raspberry-pi-4'\?"):
        load_target("raspbery-pi-4")


@pytest.mark.parametrize("name", ["../secrets", "", "raspberry-pi-4.toml"])
def test_a_name_is_no_path(name):
    with pytest.raises(UnknownNameError):
        load_target(name)


def test_every_key_is_needed():
    text = text_of("raspberry-pi-4")
    for key in tomllib.loads(text):
        document = "\n".join(line for line in text.splitlines() if not line.startswith((f"{key} =", f"[{key}]")))
        with pytest.raises(DecodeError):
            decode_target("device", document)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('format = "onnx"', 'format = "pickle"', "format: expected one of mlpackage, onnx, tflite"),
        ('runtime = "onnxruntime"', 'runtime = "torch"', "runtime: expected one of"),
        ('"float32", "int8"', '"float32", "int7"', "number_types: expected names among"),
        ('"float32", "int8"', '"int8", "int8"', "each once"),
        ("schema_version = 1", "schema_version = 2", "schema_version"),
        ("schema_version = 1", 'schema_version = 1\ncolour = "red"', "also colour"),
        ("ram_bytes = 1073741824", "ram_bytes = -1", "ram_bytes: expected a whole number"),
        ("ram_bytes = 1073741824", "ram_bytes = true", "ram_bytes: expected a whole number"),
        ("active_watts = 4.0", "active_watts = nan", "active_watts: expected a finite number"),
        ("{ float32 = 3.0e9, int8 = 6.0e9 }", "{}", "macs_per_s: expected rates"),
        ("{ float32 = 3.0e9, int8 = 6.0e9 }", "{ float31 = 1e9 }", "float31"),
        ("[cost]", "[cost", "expected a TOML document"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(before, after, said):
    text = text_of("raspberry-pi-4")
    assert before in text
    with pytest.raises(DecodeError, match="target device") as caught:
        decode_target("device", text.replace(before, after))
    assert said in str(caught.value)


def test_a_record_holds_plain_values_only():
    record = load_target("iphone-15").to_record()
    assert record["minimum_version"] == "iOS17"
    assert record["operators"] == sorted(record["operators"])
