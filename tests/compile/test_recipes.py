import pytest

from hedgerow.compile.recipes import MODEL_PASSES, PASSES, RECIPES, PassCall, find_recipe
from hedgerow.compile.toolchains import TOOLCHAINS, check_installed
from hedgerow.errors import ExtraNotInstalledError, UnknownNameError
from hedgerow.hardware.target import load_target, target_names


@pytest.mark.parametrize("name", target_names())
def test_every_target_has_a_recipe_that_makes_its_format(name):
    target = load_target(name)
    assert find_recipe(target.recipe).format == target.format


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_made_of_known_passes_and_promises_something(name):
    recipe = RECIPES[name]
    assert all(call.name in PASSES for call in (*recipe.passes, *recipe.float_passes))
    assert all(call.name in MODEL_PASSES for call in recipe.model_passes)
    assert recipe.toolchain in TOOLCHAINS
    promises_float = name.endswith(("-float", "-fp16"))
    assert (recipe.minimum_quantized_share == 0) == promises_float
    assert recipe.minimum_agreement >= 0.75
    assert recipe.minimum_snr_db > 0


def test_plain_float_recipes_alone_need_not_be_smaller_than_float():
    larger = {name for name, recipe in RECIPES.items() if not recipe.smaller_than_float}
    assert larger == {"onnx-float", "tflite-float", "coreml-fp16"}


def test_the_float_artifact_is_made_of_the_untouched_model_by_export_alone():
    for recipe in RECIPES.values():
        assert not any(call.name.startswith(("quantize", "palettize", "convert")) for call in recipe.float_passes)


def test_no_recipe_uses_what_is_known_to_destroy_models():
    settings = [call.settings for recipe in RECIPES.values() for call in recipe.passes]
    assert "distribution" not in {entry.get("calibration") for entry in settings}
    assert not any("hadamard" in str(entry).lower() for entry in settings)


def test_a_pass_call_reads_as_it_is_recorded():
    assert str(PassCall("fold-onnx")) == "fold-onnx"
    assert str(PassCall("quantize", {"b": 1, "a": "int8"})) == "quantize(a=int8, b=1)"


def test_an_unknown_recipe_is_named():
    with pytest.raises(UnknownNameError, match="no recipe is called 'onnx-int9'"):
        find_recipe("onnx-int9")


def test_absent_packages_are_told_before_work_starts():
    check_installed("onnx", ["json", "os.path"])
    with pytest.raises(ExtraNotInstalledError, match=r"'no_such_package' is not installed; run: .*\[compile\]"):
        check_installed("onnx", ["json", "no_such_package.part"])
