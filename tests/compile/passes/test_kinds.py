import copy
import dataclasses
import pickle

import pytest

from hedgerow.compile.passes.builtin import PASSES
from hedgerow.compile.passes.kinds import MODEL, ExportPass, FilePass, ModelPass
from hedgerow.compile.passes.model.fine_tune import FineTune
from hedgerow.compile.passes.onnx.quantize_static import QuantizeOnnxStatic
from hedgerow.hardware.target import FORMATS


@pytest.mark.parametrize("name", sorted(PASSES))
def test_every_pass_is_of_one_kind_and_says_what_it_takes_and_gives(name):
    kind = PASSES[name]
    assert kind.name == name
    assert sum(issubclass(kind, base) for base in (ModelPass, ExportPass, FilePass)) == 1
    assert (kind.takes == MODEL) is not issubclass(kind, FilePass)
    assert (kind.gives == MODEL) is issubclass(kind, ModelPass)
    assert {kind.takes, kind.gives} <= {MODEL, *FORMATS}


@pytest.mark.parametrize("name", sorted(PASSES))
def test_every_pass_is_a_frozen_dataclass_that_explains_itself(name):
    assert dataclasses.is_dataclass(PASSES[name])
    assert PASSES[name].__dataclass_params__.frozen
    assert not PASSES[name].__doc__.startswith(PASSES[name].__name__), "the docstring that dataclass writes"


def test_a_pass_is_a_value():
    one, same = QuantizeOnnxStatic(activations="int8"), QuantizeOnnxStatic(activations="int8", calibration="minmax")
    assert one == same
    assert len({one, same, QuantizeOnnxStatic(activations="uint8")}) == 2
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.activations = "uint8"


def test_two_kinds_with_the_same_settings_are_two_values():
    mixed = PASSES["quantize-onnx-mixed"](activations="int8")
    assert mixed != QuantizeOnnxStatic(activations="int8")
    assert FineTune(epochs=1, learning_rate=0.1) != PASSES["train-quantized"](epochs=1, learning_rate=0.1)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            {"name": "Shrink It", "takes": "onnx", "gives": "onnx"},
            "a pass's name like 'quantize-onnx', found 'Shrink It'",
        ),
        ({"name": "shrink", "takes": "gguf", "gives": "onnx"}, "shrink.takes to be model, onnx, .*found 'gguf'"),
        ({"name": "shrink", "takes": "onnx"}, "shrink.gives to be model, onnx, .*found None"),
    ],
)
def test_a_class_whose_facts_are_wrong_is_not_made(facts, message):
    with pytest.raises(TypeError, match=message):
        type("Shrink", (FilePass,), facts)


def test_a_pass_that_applies_nothing_is_not_made():
    kind = type("Idle", (ModelPass,), {"name": "idle"})
    with pytest.raises(TypeError, match="abstract"):
        kind()
