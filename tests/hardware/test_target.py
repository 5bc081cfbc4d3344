import re
import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError, UnknownNameError
from hedgerow.hardware.fit import CHECKS
from hedgerow.hardware.lookup import load_target, target_names
from hedgerow.hardware.operator_table import OperatorTable, decode_operators
from hedgerow.hardware.target import (
    ACCELERATORS,
    RUNTIMES,
    decode_recipe_lists,
    decode_target,
    read_target_record,
)

TARGETS = (
    *("android-arm64", "android-npu", "coral-edgetpu", "cortex-m4", "cortex-m7", "esp32-s3", "iphone-12", "iphone-15"),
    *("jetson-orin-nano", "raspberry-pi-4", "raspberry-pi-5", "x86-gateway", "x86-gateway-novnni"),
)
OPTIONAL = {"arena_bytes", "maximum_latency_ms"}
INTEGER = {"tflite-micro-int8": OperatorTable(versions={"ADD": 2}, source="a test")}
TABLES = {"onnxruntime-cpu": OperatorTable(versions={"Conv": 21, "Relu": 0}, source="a test")}
SHIPPED = decode_recipe_lists((files("hedgerow.hardware") / "recipes.toml").read_text("utf-8"))
PAGE = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()


def text_of(name: str) -> str:
    return (files("hedgerow.hardware") / "targets" / f"{name}.toml").read_text("utf-8")


def test_every_target_of_the_documents_exists():
    assert target_names() == TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_is_read_and_makes_sense(name):
    target = load_target(name)
    assert target.name == name
    assert target.recipe == target.recipes[0]
    assert ("float32" in target.number_types) is not target.all_integer
    assert target.integer_io is target.all_integer
    assert set(target.cost.macs_per_s) <= target.number_types
    assert "assumption" in target.cost.source
    assert 1 < target.cost.error_factor <= 10
    assert len(target.operators) >= 40
    # TensorFlow Lite Micro knows no versions.
    assert all((version > 0) is (target.runtime != "tflite-micro") for version in target.operators.values())
    assert target.operators_source


def test_a_target_names_lists_of_recipes_in_its_own_order():
    arm = ("onnx-int8-s8s8", "onnx-int8-s8s8-per-channel")
    cut = ("onnx-int8-entropy", "onnx-int8-percentile", "onnx-int8-mixed")
    rest = ("onnx-int4-weights", "onnx-int8-dynamic", "onnx-fp16", "onnx-float")
    inc = ("onnx-int8-inc", "onnx-int8-inc-smoothquant")
    assert load_target("raspberry-pi-4").recipes == (*arm, *cut, "onnx-int8-u8s8-reduced", *inc, *rest)
    assert load_target("x86-gateway").recipes == ("onnx-int8-u8s8-reduced", *arm, *cut, *inc, *rest)
    assert load_target("cortex-m4").recipes == ("tflite-int8-full", "tflite-int16-full")


def test_each_recipe_stands_once_in_the_data_and_each_list_is_used():
    named = {name for target in TARGETS for name in tomllib.loads(text_of(target))["recipes"]}
    assert named == {f"@{name}" for name in SHIPPED}
    written = [recipe for members in SHIPPED.values() for recipe in members]
    assert len(written) == len(set(written)) == 31


LISTS = {"floats": ("onnx-fp16", "onnx-float")}


def pi_with(recipes: str) -> str:
    text, count = re.subn(
        r"^recipes = \[.*?\]", f"recipes = {recipes}", text_of("raspberry-pi-4"), flags=re.DOTALL | re.MULTILINE
    )
    assert count == 1
    return text


def test_a_target_of_ones_own_mixes_recipes_and_lists():
    own = f"{'folder/' * 30}mine.py:RECIPE"
    target = decode_target("pi", pi_with(f'["onnx-int8-inc", "@floats", "{own}"]'), TABLES, LISTS)
    assert target.recipes == ("onnx-int8-inc", "onnx-fp16", "onnx-float", own)
    assert decode_target("pi", pi_with('["onnx-int8-inc"]'), TABLES).recipes == ("onnx-int8-inc",)


@pytest.mark.parametrize(
    ("recipes", "message"),
    [
        ('["@halves"]', "recipes: expected recipes, or lists among @floats, found @halves"),
        ('["onnx-float", "@floats"]', "recipes: expected each recipe once, found onnx-float twice"),
        ('["@floats", "@floats"]', "expected at least one name, each once"),
        ("[]", "expected at least one name, each once"),
    ],
)
def test_a_list_that_is_not_there_or_repeats_a_recipe_is_refused(recipes, message):
    with pytest.raises(DecodeError, match=message):
        decode_target("pi", pi_with(recipes), TABLES, LISTS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('schema_version = 1\n[lists]\na = ["x", "y"]\nb = ["y"]', "each recipe in one list, found y in several"),
        ('schema_version = 1\n[lists]\na = ["x", "x"]', "at least one name, each once"),
        ('schema_version = 2\n[lists]\na = ["x"]', "schema_version"),
        ('schema_version = 1\nother = 1\n[lists]\na = ["x"]', "other"),
        ("schema_version = 1", "lists"),
        ("[", "a TOML document"),
    ],
)
def test_lists_of_recipes_that_are_wrong_are_refused(text, message):
    with pytest.raises(DecodeError, match=message):
        decode_recipe_lists(text)


@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m7", "esp32-s3"])
def test_a_microcontroller_takes_int8_in_an_arena_and_its_model_as_c_source(name):
    target = load_target(name)
    assert target.runtime == "tflite-micro"
    assert target.emits_c_array
    assert target.static_shapes
    assert target.arena_bytes is not None
    assert target.arena_bytes <= target.ram_bytes
    assert target.train_format == ""


def test_tensorrt_takes_symmetric_int8_only():
    target = load_target("jetson-orin-nano")
    assert target.symmetric
    assert target.accelerator == "tensorrt"
    assert "uint8" not in target.number_types
    assert target.recipe == "onnx-int8-symmetric"


def test_int4_weights_need_a_newer_iphone():
    assert "coreml-int4-weights" in load_target("iphone-15").recipes
    assert "coreml-int4-weights" not in load_target("iphone-12").recipes
    assert "constexpr_blockwise_shift_scale" not in load_target("iphone-12").operators


def test_an_unknown_target_is_named_with_a_near_one():
    with pytest.raises(UnknownNameError, match=r"no target is called 'raspbery-pi-4'; did you mean 'raspberry-pi-4'\?"):
        load_target("raspbery-pi-4")


@pytest.mark.parametrize("name", ["../secrets", ""])
def test_a_name_without_toml_is_no_path(name):
    with pytest.raises(UnknownNameError):
        load_target(name)


def test_every_key_but_the_optional_ones_is_needed():
    text = text_of("cortex-m7")
    decode_target("device", text, INTEGER, SHIPPED)
    for key in tomllib.loads(text).keys() - OPTIONAL:
        document = "\n".join(line for line in text.splitlines() if not line.startswith((f"{key} =", f"[{key}]")))
        with pytest.raises(DecodeError):
            decode_target("device", document, INTEGER, SHIPPED)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('format = "onnx"\n', 'format = "pickle"\n', "format: expected one of mlpackage, onnx, tflite"),
        ('runtime = "onnxruntime"', 'runtime = "torch"', "runtime: expected one of"),
        ('runtime = "onnxruntime"', 'runtime = "litert"', "format: expected tflite, which litert runs, found onnx"),
        ('train_format = "onnx"', 'train_format = "tflite"', "train_format: expected onnx or nothing"),
        ('accelerator = "none"', 'accelerator = "abacus"', "accelerator: expected one of"),
        ('"float32", "float16"', '"float32", "int7"', "number_types: expected names among"),
        ('"float32", "float16"', '"int8", "int8"', "each once"),
        ('operators = "onnxruntime-cpu"', 'operators = "tensorrt"', "operators: expected one of onnxruntime-cpu"),
        ("all_integer = false", "all_integer = true", "integers only where all_integer is set, found float16, float32"),
        ("symmetric = false", "symmetric = 0", "symmetric: expected true or false"),
        ("schema_version = 1", "schema_version = 2", "schema_version"),
        ("schema_version = 1", 'schema_version = 1\ncolour = "red"', "also colour"),
        ("ram_bytes = 1073741824", "ram_bytes = -1", "ram_bytes: expected a whole number"),
        ("ram_bytes = 1073741824", "ram_bytes = true", "ram_bytes: expected a whole number"),
        ("emits_c_array", "arena_bytes = 2147483648\nemits_c_array", "arena_bytes: expected at most the ram_bytes"),
        ("emits_c_array", "maximum_latency_ms = 0\nemits_c_array", "maximum_latency_ms: expected a finite number"),
        ("active_watts = 4.0", "active_watts = nan", "active_watts: expected a finite number"),
        ("error_factor = 3.0", "error_factor = 0.5", "error_factor: expected a finite number from 1"),
        ("{ float32 = 3.0e9, int8 = 6.0e9 }", "{}", "macs_per_s: expected rates"),
        ("{ float32 = 3.0e9, int8 = 6.0e9 }", "{ float31 = 1e9 }", "float31"),
        ("[cost]", "[cost", "expected a TOML document"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(before, after, said):
    text = text_of("raspberry-pi-4")
    assert before in text
    with pytest.raises(DecodeError, match="target device") as caught:
        decode_target("device", text.replace(before, after), TABLES, SHIPPED)
    assert said in str(caught.value)


def test_integers_everywhere_means_integers_at_the_border():
    text = text_of("cortex-m7").replace("integer_io = true", "integer_io = false")
    with pytest.raises(DecodeError, match="integer_io: expected true where all_integer is set"):
        decode_target("device", text, INTEGER, SHIPPED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('schema_version = 1\nsource = "x"\n[versions]\n', "versions: expected names of operators, found none"),
        ('schema_version = 1\nsource = "x"\n[versions]\nADD = -1\n', "versions.ADD: expected a whole number"),
        ('schema_version = 1\nsource = "x"\n[versions]\nADD = "2"\n', "versions.ADD: expected a whole number"),
        ('schema_version = 1\nsource = "x"\n[versions]\n"A B" = 1\n', "expected names of operators, found A B"),
        ("schema_version = 1\n[versions]\nADD = 1\n", "source: expected a value"),
        ('schema_version = 1\nsource = "x"\nall = 1\n[versions]\nADD = 1\n', "also all"),
        (
            'schema_version = 1\nsource = "x"\n[versions]\nADD = 1\n[types]\nSUB = ["int8"]\n',
            "types: expected operators among its versions, found SUB",
        ),
        (
            'schema_version = 1\nsource = "x"\n[versions]\nADD = 1\n[types]\nADD = ["int8 or so"]\n',
            "types.ADD: expected types such as int8, float32/int8 or float32>int8, found int8 or so",
        ),
        (
            'schema_version = 1\nsource = "x"\n[versions]\nADD = 1\n[ranks]\n"SUB int8" = [4]\n',
            "ranks: expected operators among its versions, found SUB",
        ),
        (
            'schema_version = 1\nsource = "x"\n[versions]\nADD = 1\n[ranks]\nADD = [17]\n',
            "ranks.ADD: expected numbers of dimensions from 1 to 16, found [17]",
        ),
    ],
)
def test_a_wrong_operator_table_is_refused_with_the_place(text, said):
    with pytest.raises(DecodeError, match="operator table mine") as caught:
        decode_operators("mine", text)
    assert said in str(caught.value)


def test_types_and_ranks_of_operators_are_read_and_what_stands_there_for_a_type_too():
    text = """schema_version = 1
source = "x"
[versions]
ADD = 2
"com.microsoft.Gelu" = 1
[types]
ADD = ["float32", "int16/int8"]
"com.microsoft.Gelu" = ["float32>float16"]
[ranks]
ADD = [4, 5]
"ADD int16" = [4]
"""
    table = decode_operators("mine", text)
    assert table.versions == {"ADD": 2, "com.microsoft.Gelu": 1}
    assert table.types == {
        "ADD": frozenset({"float32", "int16/int8"}),
        "com.microsoft.Gelu": frozenset({"float32>float16"}),
    }
    assert table.ranks == {"ADD": frozenset({4, 5}), "ADD int16": frozenset({4})}


def test_a_table_says_whether_a_runtime_made_it_or_somebody_wrote_it():
    for name in ("coreml-ios17", "coreml-ios18", "edgetpu", "litert-npu", "tensorrt"):
        assert _source(name).startswith("Written by hand, because ")
    for name in ("litert-cpu", "onnxruntime-cpu", "tflite-micro-int8"):
        assert _source(name).startswith("Generated by tools/operator_tables, which ran ")


def _source(name: str) -> str:
    return decode_operators(name, (files("hedgerow.hardware") / "operators" / f"{name}.toml").read_text()).source


def test_a_record_holds_plain_values_only():
    record = load_target("iphone-15").to_record()
    assert record["minimum_version"] == "iOS18"
    assert list(record["operators"]) == sorted(record["operators"])
    assert record["operators"]["conv"] == 18
    assert record["cost"]["error_factor"] == 4.0


def test_a_recipe_that_is_a_long_path_comes_back_from_the_record():
    recipe = f"/home/{'x' * 100}/recipes.py:mine"
    target = replace(load_target("raspberry-pi-4"), recipes=(recipe, "onnx-float"))

    assert read_target_record(Fields(target.to_record(), "target")) == target


def test_the_document_shows_a_whole_file():
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)

    target = decode_target("door-camera", example, INTEGER)

    assert target.operators == {"ADD": 2}


def test_the_document_explains_every_key_and_no_other():
    explained = set(re.findall(r"^\| `([a-z_0-9]+)` \|", PAGE, re.MULTILINE))
    written = [tomllib.loads(text_of(name)) for name in TARGETS]
    keys = {key for document in written for key in (*document, *document["cost"])}

    assert explained == keys
    assert all(set(document) >= keys - OPTIONAL - set(document["cost"]) for document in written)


def test_the_document_names_every_choice_check_and_table():
    tables = sorted(path.name.removesuffix(".toml") for path in (files("hedgerow.hardware") / "operators").iterdir())

    assert [name for name in (*RUNTIMES, *ACCELERATORS, *CHECKS, *tables) if f"`{name}`" not in PAGE] == []
