"""What a recipe promises of weights, it promises of those of the model's layers, not of what prepares samples."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")
pytest.importorskip("litert_torch")

from hedgerow.compile.making import Steps, make  # noqa: E402
from hedgerow.compile.recipes import find_recipe  # noqa: E402
from hedgerow.progress import silent  # noqa: E402
from tests.compile.preparation import tones  # noqa: E402
from tests.compile.preparation.conftest import make_foundation  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
LAYERS = 112 * 64 + 64 * 3
"""Weights of both layers; the front end's matrix alone has 256 x 258 numbers."""
BIASES = 64 + 3


@pytest.fixture(scope="module")
def foundation():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make_foundation(tones.task, tones.model().eval(), tones.data())


@pytest.mark.parametrize("name", ["coreml-int8-weights", "onnx-int8-s8s8", "tflite-int8"])
def test_weights_of_layers_are_counted_and_the_matrices_of_a_front_end_are_not(foundation, name):
    recipe = find_recipe(name)
    facts = make(foundation, recipe, Steps(name, 9, silent)).facts

    assert facts.quantized_weights == pytest.approx(LAYERS, abs=BIASES)
    assert facts.float_weights <= BIASES
    assert facts.quantized_share >= recipe.minimum_quantized_share


def test_a_core_ml_file_of_floats_has_the_layers_weights_as_floats(foundation):
    facts = make(foundation, find_recipe("coreml-fp16"), Steps("x", 9, silent)).facts

    assert (facts.quantized_weights, facts.float_weights) == (0, LAYERS + BIASES)
