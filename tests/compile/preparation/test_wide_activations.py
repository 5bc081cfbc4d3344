"""int8 weights with int16 activations: what the files hold, and what the runtimes themselves make of them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.inspection.model import read_facts  # noqa: E402
from hedgerow.compile.making import Steps, make  # noqa: E402
from hedgerow.compile.recipes import RECIPES  # noqa: E402
from hedgerow.compile.units import compile_artifact  # noqa: E402
from hedgerow.hardware import load_target  # noqa: E402
from hedgerow.progress import silent  # noqa: E402
from hedgerow.task_module import predict  # noqa: E402
from hedgerow.tensor_border import from_stored, to_stored  # noqa: E402
from tests.compile.only import only  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
MICRO = ("cortex-m4", "cortex-m7", "esp32-s3")


def in_micro(made, inputs):
    """Run a file in TensorFlow Lite Micro's interpreter, directly."""
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    interpreter = runtime.Interpreter.from_bytes(made.stage.content, arena_size=2**20)
    taken, given, rows = made.stage.inputs[0], made.stage.outputs[0], []
    for row in to_stored(inputs, taken):
        interpreter.set_input(row[None], 0)
        interpreter.invoke()
        rows.append(from_stored(interpreter.get_output(0), given)[0])
    return np.array(rows)


def noise(wanted, found) -> float:
    return float(np.abs(wanted - found).mean())


def test_the_file_of_a_microcontroller_is_finer_than_int8_in_its_own_runtime(bench, fresh):
    inputs = bench.halves.prepared(fresh.inputs)["prepared_0"]
    wanted = only(predict(bench.source.task, bench.source.model, fresh.inputs))
    found = {}
    for recipe in ("tflite-int8-full", "tflite-int16-full"):
        made = make(bench, RECIPES[recipe], Steps("test", 9, silent), all_integer=True)
        found[recipe] = noise(wanted, in_micro(made, inputs))
    assert found["tflite-int16-full"] < found["tflite-int8-full"] / 2


def test_the_file_holds_int8_weights_and_int16_activations(bench):
    made = make(bench, RECIPES["tflite-int16-full"], Steps("test", 9, silent), all_integer=True)
    facts = read_facts("tflite", made.stage.content, None)
    assert (made.stage.inputs[0].dtype, made.stage.outputs[0].dtype) == ("int16", "int16")
    assert facts.number_types == {"int8", "int16", "int64"}
    assert facts.quantized_weights >= 43 * 48 + 48 * 24 + 24 * 5


def test_litert_runs_it_between_floats(scaled_bench, fresh):
    from ai_edge_litert.interpreter import Interpreter

    made = make(scaled_bench, RECIPES["tflite-int16"], Steps("test", 9, silent))
    assert (made.stage.inputs[0].dtype, made.stage.outputs[0].dtype) == ("float32", "float32")
    runner = Interpreter(model_content=made.stage.content, num_threads=1).get_signature_runner()
    rows = np.array([runner(args_0=row[None])["output_0"][0] for row in fresh.inputs["features"]])
    wanted = only(predict(scaled_bench.source.task, scaled_bench.source.model, fresh.inputs))
    assert noise(wanted, rows) < 0.01


@pytest.mark.parametrize("target", MICRO)
def test_it_passes_every_check_of_a_microcontroller(target, bench, tmp_path):
    pytest.importorskip("tflite_micro")
    recipe = RECIPES["tflite-int16-full"]
    compiled = compile_artifact(bench, load_target(target), recipe, tmp_path, max_drop=0.01, report=silent)
    assert set(compiled.artifact.checks.values()) == {"passed"}
    assert compiled.artifact.prepare is not None
    assert compiled.executed_by["accuracy"].startswith("TensorFlow Lite Micro")


def test_it_stands_behind_the_int8_recipes_of_each_target_that_runs_it():
    for target in (*MICRO, "android-arm64"):
        recipes = load_target(target).recipes
        assert recipes.index("tflite-int16-full") > recipes.index("tflite-int8-full")
    assert "tflite-int16-full" not in load_target("coral-edgetpu").recipes
