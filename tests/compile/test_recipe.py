import dataclasses

import pytest

from hedgerow.compile.errors import PassSettingsError, RecipeError
from hedgerow.compile.passes.kinds import FilePass
from hedgerow.compile.passes.model.fine_tune import FineTune
from hedgerow.compile.passes.onnx.export import ExportOnnx
from hedgerow.compile.passes.onnx.fold import FoldOnnx
from hedgerow.compile.passes.onnx.quantize_weights import QuantizeOnnxWeights
from hedgerow.compile.passes.onnx.trim import TrimOnnx
from hedgerow.compile.passes.tflite.export import ExportTflite
from hedgerow.compile.passes.tflite.trim import TrimTflite
from hedgerow.compile.recipe import Recipe, read_recipe
from hedgerow.compile.recipes import RECIPES
from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import DecodeError, PluginError

TUNE = FineTune(epochs=1, learning_rate=0.01)


def test_a_recipe_is_compared_with_the_plain_export_of_its_format():
    assert Recipe(passes=(ExportOnnx(), FoldOnnx())).float_passes == (ExportOnnx(), TrimOnnx())
    recipe = Recipe(passes=[ExportTflite()], model_passes=[TUNE])
    assert (recipe.format, recipe.toolchain, recipe.model_passes) == ("tflite", "tflite", (TUNE,))
    assert recipe.float_passes == (ExportTflite(), TrimTflite())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"passes": ()}, "expected an export and file passes in passes, found no file at their end"),
        ({"passes": (FoldOnnx(),)}, "expected a pass that takes model, found fold-onnx, which takes onnx"),
        ({"passes": (ExportOnnx(), TrimTflite())}, "takes onnx, found trim-tflite, which takes tflite"),
        ({"passes": (ExportOnnx(), ExportTflite())}, "takes onnx, found export-tflite, which takes model"),
        ({"passes": (ExportOnnx(), TUNE)}, "takes onnx, found fine-tune, which takes model"),
        ({"passes": (ExportOnnx(),), "model_passes": (FoldOnnx(),)}, "takes model, found fold-onnx"),
        ({"passes": (ExportOnnx(),), "float_passes": (ExportTflite(),)}, "one in the format onnx, to compare with"),
        ({"passes": (ExportOnnx(), "fold-onnx")}, "expected passes such as ExportOnnx\\(\\), found str 'fold-onnx'"),
        ({"passes": (ExportOnnx,)}, "found _PassClass"),
        ({"passes": 5}, "expected a sequence of passes in passes, found int"),
        ({"passes": (ExportOnnx(),), "name": 5}, "expected a name of at most 4096 characters, found int 5"),
        ({"passes": (ExportOnnx(),), "name": "n" * 4097}, "expected a name of at most 4096 characters, found 4097"),
        ({"passes": (ExportOnnx(),), "smaller_than_float": "x"}, "smaller_than_float True or False, found str 'x'"),
        ({"passes": (ExportOnnx(),), "model_passes": (TUNE,) * 40}, "at most 32 passes in model_passes, found 40"),
        ({"passes": (ExportOnnx(), *[FoldOnnx()] * 32)}, "at most 32 passes in passes, found 33"),
        ({"passes": (ExportOnnx(),), "minimum_snr_db": 10**5000}, "from 0 to 200, found a whole number of 16610 bits"),
        ({"passes": (ExportOnnx(),), "minimum_agreement": 1.5}, "minimum_agreement from 0 to 1, found 1.5"),
        ({"passes": (ExportOnnx(),), "minimum_snr_db": float("nan")}, "minimum_snr_db from 0 to 200, found nan"),
        (
            {"passes": (ExportOnnx(),), "minimum_quantized_share": True},
            "minimum_quantized_share from 0 to 1, found True",
        ),
    ],
)
def test_passes_that_do_not_follow_from_one_another_make_no_recipe(parts, message):
    with pytest.raises(RecipeError, match=message):
        Recipe(**parts)


class Anything(FilePass):
    """A user's pass that does not say what becomes of weights."""

    name, takes, gives = "anything", "onnx", "onnx"

    def apply(self, stage, source):
        raise NotImplementedError


def test_a_pass_that_does_not_say_what_becomes_of_weights_rules_nothing_out():
    assert Recipe(passes=(ExportOnnx(), Anything(), TrimOnnx())).weight_bits == 1
    assert Recipe(passes=(ExportOnnx(), FoldOnnx(), TrimOnnx())).weight_bits == 32


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_comes_back_from_its_record_as_the_same_value(name):
    record = encode_json(RECIPES[name].to_record())
    found = read_recipe(decode_json(record, "recipe", limit_bytes=2**20))
    assert found == RECIPES[name]
    assert hash(found) == hash(RECIPES[name])
    assert encode_json(found.to_record()) == record


def test_a_setting_that_was_left_out_and_one_that_was_given_are_one_record():
    short = Recipe(passes=(ExportOnnx(), QuantizeOnnxWeights(bits=4)))
    full = Recipe(passes=(ExportOnnx(), QuantizeOnnxWeights(bits=4, block=32, minimum_elements=64)))
    assert encode_json(short.to_record()) == encode_json(full.to_record())
    other = Recipe(passes=(ExportOnnx(), QuantizeOnnxWeights(bits=4, block=64)))
    assert encode_json(short.to_record()) != encode_json(other.to_record())


@pytest.mark.parametrize(
    "key", ["name", "passes", "float_passes", "model_passes", "minimum_snr_db", "smaller_than_float"]
)
def test_a_record_without_one_of_its_keys_is_refused(key):
    record = {name: value for name, value in RECIPES["onnx-float"].to_record().items() if name != key}
    with pytest.raises(DecodeError, match=key):
        read_recipe(Fields(record, "recipe"))


def test_a_record_with_another_key_is_refused():
    record = RECIPES["onnx-float"].to_record()
    with pytest.raises(DecodeError, match="surprise"):
        read_recipe(Fields({**record, "surprise": 1}, "recipe"))
    record["passes"][0]["surprise"] = 1
    with pytest.raises(DecodeError, match="surprise"):
        read_recipe(Fields(record, "recipe"))


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        (
            {"pass": "hedgerow.compile.passes.kinds:FilePass", "settings": {}},
            PluginError,
            "found FilePass, which is abs",
        ),
        ({"pass": "hedgerow.compile.passes.kinds:Pass", "settings": {}}, PluginError, "found Pass, which is abstract"),
        ({"pass": "trim-onnx", "settings": {"cls": 1}}, PassSettingsError, "for the setting 'cls', found a setting"),
        ({"pass": "trim-onnx", "settings": {"self": 1}}, PassSettingsError, "for the setting 'self', found a setting"),
        (
            {"pass": "fine-tune", "settings": {"epochs": 1, "learning_rate": 10**400}},
            PassSettingsError,
            "expected a finite number for the setting 'learning_rate'",
        ),
    ],
)
def test_a_pass_of_a_record_that_cannot_be_made_is_the_records_error(entry, error, said):
    record = {**RECIPES["onnx-float"].to_record(), "passes": [entry]}
    with pytest.raises(error, match=said):
        read_recipe(Fields(record, "recipe"))


def test_a_recipe_is_a_value():
    one = RECIPES["onnx-int4-weights"]
    assert dataclasses.replace(one) == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "other"
