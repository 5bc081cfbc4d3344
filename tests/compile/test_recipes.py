import pytest

from hedgerow.compile.passes.builtin import PASSES
from hedgerow.compile.passes.kinds import MODEL, ExportPass
from hedgerow.compile.passes.onnx.export import ExportOnnx
from hedgerow.compile.passes.onnx.trim import TrimOnnx
from hedgerow.compile.recipe import Recipe
from hedgerow.compile.recipes import RECIPES, RECIPES_GROUP, find_recipe
from hedgerow.compile.toolchains import TOOLCHAINS, check_installed
from hedgerow.errors import ExtraNotInstalledError, PluginError, UnknownNameError
from hedgerow.hardware.lookup import load_target, target_names

MINE = """
from hedgerow.compile.passes.onnx.export import ExportOnnx
from hedgerow.compile.recipe import Recipe

RECIPE = Recipe(passes=(ExportOnnx(),), minimum_quantized_share=0.0, smaller_than_float=False)
NONE = "onnx-float"
"""


@pytest.mark.parametrize("name", target_names())
def test_every_recipe_that_a_target_names_is_there_and_makes_its_format(name):
    target = load_target(name)
    assert {find_recipe(recipe).format for recipe in target.recipes} == {target.format}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_made_of_known_passes_and_promises_something(name):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert all(PASSES[step.name] is type(step) for step in (*recipe.model_passes, *recipe.passes, *recipe.float_passes))
    assert recipe.toolchain in TOOLCHAINS
    promises_float = name.endswith(("-float", "-fp16"))
    assert (recipe.minimum_quantized_share == 0) == promises_float
    assert recipe.minimum_agreement >= 0.75
    assert recipe.minimum_snr_db > 0


def test_a_recipe_knows_how_many_bits_its_weights_take():
    bits = {name: recipe.weight_bits for name, recipe in RECIPES.items()}
    assert {name for name, found in bits.items() if found == 32} == {"onnx-float", "tflite-float"}
    assert {name for name, found in bits.items() if found == 16} == {"onnx-fp16", "tflite-fp16", "coreml-fp16"}
    four = {"onnx-int4-weights", "onnx-int4-inc-rtn", "coreml-int4-weights", "coreml-palette4"}
    assert {name for name, found in bits.items() if found == 4} == four
    assert set(bits.values()) == {4, 8, 16, 32}


def test_plain_float_recipes_alone_need_not_be_smaller_than_float():
    larger = {name for name, recipe in RECIPES.items() if not recipe.smaller_than_float}
    assert larger == {"onnx-float", "tflite-float", "coreml-fp16"}


def test_the_float_artifact_is_made_of_the_untouched_model_by_export_alone():
    for recipe in RECIPES.values():
        export, *others = recipe.float_passes
        assert (isinstance(export, ExportPass), export.takes) == (True, MODEL)
        assert all(step.name.startswith("trim-") for step in others)
        assert recipe.float_passes[-1].gives == recipe.format


def test_no_recipe_uses_what_is_known_to_destroy_models():
    settings = [step.settings for recipe in RECIPES.values() for step in recipe.passes]
    assert "distribution" not in {entry.get("calibration") for entry in settings}
    assert not any("hadamard" in str(entry).lower() for entry in settings)


def test_an_unknown_recipe_is_named():
    with pytest.raises(UnknownNameError, match="no recipe is called 'onnx-int9'"):
        find_recipe("onnx-int9")
    with pytest.raises(UnknownNameError, match=r"no recipe is called 'mine.py:'"):
        find_recipe("mine.py:")


def test_a_recipe_is_found_in_a_file_and_called_as_it_was_asked_for(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    wanted = Recipe(
        name="mine.py:RECIPE", passes=(ExportOnnx(),), minimum_quantized_share=0.0, smaller_than_float=False
    )
    assert find_recipe("mine.py:RECIPE") == wanted
    assert find_recipe(f"{tmp_path}/mine.py:RECIPE").passes == (ExportOnnx(),)
    assert find_recipe("mine.py:RECIPE").float_passes == (ExportOnnx(), TrimOnnx())


def test_a_recipe_is_found_by_the_entry_point_of_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "someones_recipes.py").write_text(MINE)
    facts = tmp_path / "someones_recipes-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-recipes\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[{RECIPES_GROUP}]\nplain = someones_recipes:RECIPE\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_recipe("plain").name == "plain"
    with pytest.raises(UnknownNameError, match="did you mean 'plain'"):
        find_recipe("plane")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.py:NONE", "the recipe 'mine.py:NONE' cannot be used: expected a Recipe, found str"),
        ("mine.py:THEIRS", "cannot be used: mine.py has no 'THEIRS'; it has .*RECIPE"),
        ("yours.py:RECIPE", "cannot be used: there is no such file; correct the path"),
        ("no.such_module:RECIPE", "cannot be used: No module named 'no'"),
        ("broken.py:RECIPE", "cannot be used: importing broken.py raised RecipeError: .* takes model, found fold-onnx"),
        ("wrong.py:RECIPE", "cannot be used: importing wrong.py raised PassSettingsError: export-onnx: .* 'bits'"),
    ],
)
def test_what_is_no_recipe_is_refused_and_no_task_is_blamed(name, message, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    broken = MINE.replace("(ExportOnnx(),)", "(FoldOnnx(),)")
    (tmp_path / "broken.py").write_text(f"from hedgerow.compile.passes.onnx.fold import FoldOnnx\n{broken}")
    (tmp_path / "wrong.py").write_text(MINE.replace("ExportOnnx()", "ExportOnnx(bits=8)"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match=message):
        find_recipe(name)


def test_absent_packages_are_told_before_work_starts():
    check_installed("onnx", ["json", "os.path"])
    with pytest.raises(ExtraNotInstalledError, match=r"'no_such_package' is not installed; run: .*\[compile\]"):
        check_installed("onnx", ["json", "no_such_package.part"])
