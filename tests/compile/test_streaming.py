"""Models with state in every recipe: stored alike at both ends, calibrated on real states, right over sequences."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.coreml_evaluation.evaluate import predict_coreml_steps  # noqa: E402
from hedgerow.compile.errors import UnsuitableError  # noqa: E402
from hedgerow.compile.executing import execute  # noqa: E402
from hedgerow.compile.making import Steps, make  # noqa: E402
from hedgerow.compile.recipes import RECIPES, find_recipe  # noqa: E402
from hedgerow.compile.runners.onnx import predict_onnx, predict_onnx_steps  # noqa: E402
from hedgerow.compile.runners.tflite import predict_tflite_steps  # noqa: E402
from hedgerow.compile.scoring import signal_to_noise_db  # noqa: E402
from hedgerow.compile.stepwise import state_ends  # noqa: E402
from hedgerow.compile.train_graph.export import export_train_graph  # noqa: E402
from hedgerow.progress import silent  # noqa: E402
from hedgerow.weights import decode_arrays  # noqa: E402
from tests.compile.streaming_nets import STEPS, Cells, Gru, Lstm, Window, foundation_of, task_of  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

RUN_STEPS = {"onnx": predict_onnx_steps, "tflite": predict_tflite_steps, "mlpackage": predict_coreml_steps}
FOUNDATIONS: dict = {}
EXACT_DB, FINE_DB, COARSE_DB = 90.0, 40.0, 18.0


def foundation(net, **changes):
    key = (net, *changes)
    if key not in FOUNDATIONS:
        FOUNDATIONS[key] = foundation_of(net, **changes)
    return FOUNDATIONS[key]


def made_by(name: str, base, *, all_integer: bool = False):
    return make(base, find_recipe(name), Steps("made", 9, silent), all_integer=all_integer)


def outputs_of(base, made):
    given = base.given(made, base.data.held_out)
    return RUN_STEPS[made.stage.format](made.stage, given.inputs, base.steps)


def changes_the_model(name: str) -> bool:
    return bool(find_recipe(name).model_passes)


def wanted_db(name: str) -> float:
    if "float" in name:
        return EXACT_DB
    return FINE_DB if "16" in name else COARSE_DB


KEPT = [name for name in RECIPES if not changes_the_model(name)]
CHANGING = [name for name in RECIPES if changes_the_model(name)]


def test_there_are_recipes_of_both_kinds():
    assert len(KEPT) >= 25
    assert len(CHANGING) >= 9


@pytest.mark.parametrize("name", KEPT)
def test_a_recipe_gives_a_state_of_two_layers_that_is_copied_as_it_is(name):
    base = foundation(Lstm)
    made = made_by(name, base)
    ends = state_ends(made.stage)

    assert list(ends) == ["state"]
    taken, given = ends["state"]
    assert taken == given
    assert "[2, 1, 128]" in taken
    found = outputs_of(base, made)
    assert signal_to_noise_db(base.float_answers["probabilities"], found["probabilities"]) > wanted_db(name)
    # The state that the model was in before a step is what it gave at the step before.
    states = base.data.held_out.inputs["state"].reshape(-1, STEPS, 2, 1, 128)[:, 1:]
    own = found["state_next"].reshape(-1, STEPS, 2, 1, 128)[:, :-1]
    assert signal_to_noise_db(states, own) > wanted_db(name)


@pytest.mark.parametrize("name", CHANGING)
def test_a_recipe_that_changes_the_model_is_refused_in_a_sentence(name):
    with pytest.raises(UnsuitableError) as caught:
        made_by(name, foundation(Lstm))

    assert str(caught.value).endswith(
        "expected a model without state to change, found the state state of 'streaming'; "
        "choose a recipe that exports the model as it is"
    )


@pytest.mark.parametrize("net", [Gru, Cells, Window])
@pytest.mark.parametrize("name", ["onnx-int8-s8s8", "tflite-int8-full", "tflite-int16-full", "coreml-fp16"])
def test_other_layers_states_apart_and_windows_of_frames_pass_too(net, name):
    base = foundation(net)
    made = made_by(name, base)

    assert list(state_ends(made.stage)) == list(net.state)
    assert all(taken == given for taken, given in state_ends(made.stage).values())
    found = outputs_of(base, made)
    assert signal_to_noise_db(base.float_answers["probabilities"], found["probabilities"]) > wanted_db(name)


@pytest.mark.parametrize("name", ["onnx-int8-s8s8", "tflite-int8", "tflite-int8-full", "coreml-int8-weights"])
def test_state_goes_past_what_prepares_a_sample(name):
    base = foundation(Lstm, preprocess=lambda x: x / 3 + 0.5)
    made = made_by(name, base)

    assert {tensor.name for tensor in made.stage.inputs} == {"x", "state"}
    found = outputs_of(base, made)
    assert signal_to_noise_db(base.float_answers["probabilities"], found["probabilities"]) > wanted_db(name)


def test_state_goes_past_what_prepares_a_sample_beside_a_file_of_integers():
    # One feature in thousands beside others below one: the raw input has no scale in 8 bits.
    def prepare(x):
        return torch.cat([x[:, :1] / 1000, x[:, 1:]], dim=1)

    data = task_of(Lstm).load_data()
    for part in (data.train, data.held_out):
        part.inputs["x"][..., 0] *= 1000
    base = foundation(Lstm, preprocess=prepare, data=lambda: data)
    made = made_by("tflite-int8-full", base, all_integer=True)

    assert made.beside is not None
    assert {tensor.name for tensor in made.stage.inputs} == {"prepared_0", "state"}
    assert [tensor.name for tensor in made.beside.file.inputs] == ["x"]
    found = outputs_of(base, made)
    assert signal_to_noise_db(base.float_answers["probabilities"], found["probabilities"]) > COARSE_DB


def test_ranges_of_state_come_from_states_that_the_model_was_in():
    base = foundation(Lstm)
    made = made_by("tflite-int8-full", base)
    state = next(tensor for tensor in made.stage.inputs if tensor.name == "state")
    low, high = (float((edge - state.zero_point) * state.scale) for edge in (-128, 127))
    seen = base.source.calibration.inputs["state"]

    assert low == pytest.approx(float(seen.min()), rel=0.2)
    assert high == pytest.approx(float(seen.max()), rel=0.2)
    assert float(seen.max()) > 0.1, "a range of zeros would have one step"


def test_a_row_alone_takes_the_state_that_it_has():
    base = foundation(Lstm)
    stage = made_by("onnx-float", base).stage
    rows = predict_onnx(stage, base.data.held_out.inputs)["probabilities"]

    np.testing.assert_allclose(rows, base.float_answers["probabilities"], atol=1e-5)
    zeros = {**base.data.held_out.inputs, "state": np.zeros_like(base.data.held_out.inputs["state"])}
    assert signal_to_noise_db(base.float_answers["probabilities"], predict_onnx(stage, zeros)["probabilities"]) < 30


def test_golden_samples_are_sequences_with_the_files_own_state():
    base = foundation(Lstm)
    recipe = find_recipe("tflite-int8-full")
    made = made_by("tflite-int8-full", base)
    executed = execute(base, recipe, made, "litert", lambda _done, _of: None)
    golden = decode_arrays(executed.golden, "golden", limit_bytes=10**8)

    assert executed.replay_difference == 0
    assert sorted(golden) == ["input.state", "input.x", "output.probabilities", "output.state_next"]
    state, after = golden["input.state"], golden["output.state_next"]
    assert state.shape == (16, 2, 1, 128)
    assert not state[0].any()
    assert not state[8].any()
    for step in (*range(1, 8), *range(9, 16)):
        np.testing.assert_array_equal(state[step], after[step - 1])


@pytest.mark.parametrize("runtime", ["litert", "tflite-micro"])
def test_a_file_is_measured_over_sequences_in_each_runtime(runtime):
    if runtime == "tflite-micro":
        pytest.importorskip("tflite_micro")
    base = foundation(Lstm)
    made = made_by("tflite-int8-full", base)
    executed = execute(base, find_recipe("tflite-int8-full"), made, runtime, lambda _done, _of: None)

    assert executed.answers["probabilities"].shape == (80, 3)
    assert executed.replay_difference == 0
    assert signal_to_noise_db(base.float_answers["probabilities"], executed.answers["probabilities"]) > COARSE_DB


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_train_graph_is_refused_in_a_sentence(kind):
    with pytest.raises(UnsuitableError) as caught:
        export_train_graph(foundation(Lstm).source, kind)

    assert str(caught.value) == (
        "a train graph: expected a task without state: it takes single samples, and no sequences, found the state "
        "state of 'streaming'; train it with hedgerow train, and release it anew"
    )


def test_a_word_of_core_mls_language_is_found_under_the_name_that_it_got():
    stage = made_by("coreml-fp16", foundation(Lstm)).stage

    assert {tensor.name: tensor.tensor for tensor in stage.inputs} == {"x": "x", "state": "state_workaround"}
    assert predict_coreml_steps(stage, foundation(Lstm).data.held_out.inputs, STEPS)["state_next"].shape[0] == 80


def test_ends_that_differ_are_refused_by_the_gate():
    stage = made_by("tflite-int8-full", foundation(Lstm)).stage
    probabilities, state = stage.outputs
    other = replace(stage, outputs=(probabilities, replace(state, scale=state.scale * 2)))
    taken, given = state_ends(other)["state"]

    assert taken != given
