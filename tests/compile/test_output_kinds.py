"""Each kind of output through the files of every format, as the runtime of a target gives it, against torch."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("litert_torch")

from hedgerow.compile.arena import installed_version  # noqa: E402
from hedgerow.compile.errors import UnsuitableError, VerificationError  # noqa: E402
from hedgerow.compile.foundation import foundation_of  # noqa: E402
from hedgerow.compile.recipes import find_recipe  # noqa: E402
from hedgerow.compile.scoring import mean_score, signal_to_noise_db  # noqa: E402
from hedgerow.compile.train_graph.export import export_train_graph, largest_difference  # noqa: E402
from hedgerow.compile.units import compile_artifact, compile_reference  # noqa: E402
from hedgerow.hardware.lookup import load_target  # noqa: E402
from hedgerow.model_schema import ModelSchema  # noqa: E402
from hedgerow.outputs import Outputs  # noqa: E402
from hedgerow.progress import silent  # noqa: E402
from hedgerow.reference import Reference  # noqa: E402
from hedgerow.task_losses import loss_function  # noqa: E402
from hedgerow.task_module import LogitsModule, wanted_tensors  # noqa: E402
from hedgerow.weights import decode_arrays  # noqa: E402
from tests.output_tasks import HELD_OUT, STREAMING, TASKS  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # torch, litert-torch and their dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    # pandas, which fairlearn uses, divides nothing by nothing where a group has no sample.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

FLOAT_DB, HALF_DB, INT8_DB = 100.0, 55.0, 20.0
CASES = {
    "onnx-float": ("raspberry-pi-4", FLOAT_DB),
    "onnx-int8-s8s8": ("raspberry-pi-4", INT8_DB),
    "tflite-float": ("android-arm64", FLOAT_DB),
    "tflite-int8": ("android-arm64", INT8_DB),
    "coreml-fp16": ("iphone-15", HALF_DB),
    "tflite-int8-full": ("cortex-m7", INT8_DB),
    "tflite-int16-full": ("cortex-m7", 30.0),
}
"""Recipe -> the target whose runtime runs it, and what is left of the outputs at least."""


def trained(task, epochs=60):
    """Return a task's foundation with a model that has learned it; centrally, and in a second."""
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, data = task.model(), task.load_data()
        module, loss = LogitsModule(task, model), loss_function(task)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        inputs = [torch.from_numpy(data.train.inputs[spec.name]) for spec in task.inputs]
        wanted = wanted_tensors(task, data.train)
        for _epoch in range(epochs):
            for chosen in torch.randperm(len(data.train)).split(16):
                optimizer.zero_grad()
                told = tuple(part[chosen] for part in wanted) if isinstance(wanted, tuple) else wanted[chosen]
                loss(module(*(part[chosen] for part in inputs)), told).backward()
                optimizer.step()
    return foundation_of(task, model.eval(), data)


@pytest.fixture(scope="module")
def foundations():
    """Kind -> its foundation, trained when it is first asked for."""
    made = {}

    def of(kind, tasks=TASKS):
        key = (kind, tasks is STREAMING)
        if key not in made:
            made[key] = trained(tasks[kind])
        return made[key]

    return of


def by_torch(foundation):
    """What the model gives, by torch alone: pre-processing, model, activation of each kind."""
    task, x = foundation.source.task, torch.from_numpy(foundation.data.held_out.inputs["x"])
    with torch.no_grad():
        given = foundation.source.model(x / 2)
        parts = dict(zip(task.answers, given if isinstance(given, tuple) else (given,), strict=True))
        activations = {
            "classes": lambda part: part.softmax(-1),
            "tokens": lambda part: part.softmax(-1),
            "labels": torch.sigmoid,
            "reconstruction": lambda part: (part - x / 2).square().mean(1, keepdim=True),
        }
        return {
            name: activations.get(task.answers[name].kind, lambda part: part)(part).numpy()
            for name, part in parts.items()
        }


def generous(recipe):
    """The recipe without what four numbers are too few for: small files, and a share of the flags."""
    return replace(
        find_recipe(recipe),
        smaller_than_float=False,
        minimum_quantized_share=0.0,
        minimum_agreement=0.0,
        minimum_snr_db=0.0,
    )


@pytest.mark.parametrize("recipe", CASES)
@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_is_what_torch_gives_in_every_format(foundations, kind, recipe, tmp_path):
    name, least_db = CASES[recipe]
    target = load_target(name)
    if target.runtime == "tflite-micro" and installed_version() is None:
        pytest.skip("needs the extra mcu")
    foundation = foundations(kind)
    wanted = by_torch(foundation)
    compiled = compile_artifact(foundation, target, generous(recipe), tmp_path, max_drop=1.0, report=silent)
    artifact = compiled.artifact
    executed = foundation.executed[(generous(recipe), target.runtime, target.all_integer)]
    outputs = foundation.outputs

    assert [tensor.name for tensor in artifact.outputs] == list(outputs)
    assert set(executed.answers) == set(outputs)
    held = {t.name: (np.iinfo(t.dtype).max - t.zero_point) * t.scale for t in artifact.outputs if t.scale is not None}
    for output, values in wanted.items():
        found = executed.answers[output]
        assert found.shape == (HELD_OUT, *outputs[output].tensor(output).shape)
        # An anomaly score ends where the integers do.
        near = np.minimum(values, held.get(output, np.inf)) if outputs[output].saturates else values
        assert signal_to_noise_db(near, found) > least_db, output
    key = outputs.score_key
    assert artifact.checks[key] == "passed"
    known = outputs.known(foundation.wanted)
    assert artifact.metrics["held_out_samples"] == known.sum() == HELD_OUT
    assert artifact.metrics[key] == pytest.approx(outputs.scores(executed.answers, foundation.wanted).mean())
    assert artifact.metrics[f"float_{key}"] == pytest.approx(outputs.scores(wanted, foundation.wanted).mean(), abs=0.01)
    golden = decode_arrays((tmp_path / "blobs" / artifact.golden.sha256).read_bytes(), "golden", limit_bytes=10**6)
    assert sorted(golden) == sorted(["input.x", *(f"output.{output}" for output in outputs)])
    assert set(artifact.golden_tolerances) == (set(outputs) if len(outputs) > 1 else set())


def test_flags_of_an_all_integer_file_are_the_float_models_in_16_bits(foundations, tmp_path):
    """In 8 bits the squares of what is normal are nothing beside one step, and such a file is refused."""
    if installed_version() is None:
        pytest.skip("needs the extra mcu")
    foundation = foundations("reconstruction")
    target = load_target("cortex-m7")
    compiled = compile_artifact(
        foundation,
        target,
        replace(find_recipe("tflite-int16-full"), smaller_than_float=False),
        tmp_path,
        max_drop=0.015,
        report=silent,
    )
    assert compiled.artifact.metrics["agreement"] >= 0.98
    assert compiled.artifact.checks["all integer"] == compiled.artifact.checks["parity"] == "passed"
    [anomaly] = compiled.artifact.outputs
    threshold = foundation.outputs["anomaly"].threshold
    assert anomaly.dtype == "int16"
    assert anomaly.scale < threshold / 50, "steps are fine where flags are decided"
    assert anomaly.scale * 32767 > 10 * threshold, "there is room above"


@pytest.mark.parametrize("kind", TASKS)
def test_the_reference_and_the_schema_of_a_release_say_what_the_float_model_was(foundations, kind, tmp_path):
    foundation = foundations(kind)
    facts = compile_reference(foundation, tmp_path, None, silent)
    outputs = foundation.outputs
    assert facts.model_schema.answers == outputs
    assert facts.metrics[outputs.score_key] == pytest.approx(
        outputs.scores(by_torch(foundation), foundation.wanted).mean(), abs=0.01
    )
    beside = facts.evaluation["baseline"]["metrics"][outputs.score_key]
    assert facts.metrics[outputs.score_key] > beside, "a model that has learned beats what looks at nothing"
    reference = Reference.decode((tmp_path / "blobs" / facts.reference.sha256).read_bytes())
    assert {f.name for f in reference.features} >= set(outputs.features(foundation.float_answers))
    from hedgerow.decode import Fields

    decoded = ModelSchema.from_fields(Fields(facts.model_schema.to_record(), "schema")).answers
    assert list(decoded) == list(outputs)
    assert decoded.to_record() == outputs.to_record()


def test_the_threshold_of_a_release_flags_as_many_normal_samples_as_it_says(foundations):
    foundation = foundations("reconstruction")
    output, judged = foundation.outputs["anomaly"], foundation.wanted["anomaly"]
    normal = by_torch(foundation)["anomaly"][judged == 0]
    assert foundation.source.task.answers["anomaly"].threshold is None
    assert (normal[:, 0] >= output.threshold).mean() == pytest.approx(0.05, abs=1 / len(normal))


@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
@pytest.mark.parametrize("kind", TASKS)
def test_a_step_of_training_is_torchs_for_every_kind(foundations, kind, file_format):
    foundation = foundations(kind)
    file = export_train_graph(foundation.source, file_format)
    wanted = {"reconstruction": []}.get(kind, list(foundation.source.task.answers))
    assert [tensor.name for tensor in file.targets] == wanted
    assert largest_difference(foundation.source, file, foundation.data.train) < 1e-5


@pytest.mark.parametrize("recipe", ["onnx-int8-s8s8", "tflite-int8", "coreml-fp16", "tflite-int16-full"])
@pytest.mark.parametrize("kind", ["values", "several", "reconstruction"])
def test_each_step_of_a_sequence_answers_for_every_kind(foundations, kind, recipe, tmp_path):
    name, _least_db = CASES[recipe]
    target = load_target(name)
    if target.runtime == "tflite-micro" and installed_version() is None:
        pytest.skip("needs the extra mcu")
    foundation = foundations(kind, STREAMING)
    compiled = compile_artifact(foundation, target, generous(recipe), tmp_path, max_drop=1.0, report=silent)
    executed = foundation.executed[(generous(recipe), target.runtime, target.all_integer)]
    assert set(executed.answers) == set(foundation.outputs)
    assert all(len(values) == len(foundation.data.held_out) for values in executed.answers.values())
    assert compiled.artifact.checks["state"] == "passed"
    assert compiled.artifact.metrics["snr_db"] > 15


def test_a_forecast_is_held_against_the_last_value(foundations, tmp_path):
    wanted = STREAMING["values"].load_data().held_out.target_values
    worth = 1 - np.minimum(1, np.abs(wanted[:, :-1].astype(np.float64) - wanted[:, 1:]) / [1.0, 2.0])
    told = compile_reference(foundations("values", STREAMING), tmp_path, None, silent).evaluation
    assert told["last_value"] == pytest.approx(worth.mean())
    assert compile_reference(foundations("values"), tmp_path, None, silent).evaluation["last_value"] is None


def test_an_output_of_ones_own_without_a_score_is_compared_and_not_scored(foundations, tmp_path):
    foundation = foundations("custom")
    bare = Outputs({"output": replace(foundation.outputs["output"], score=None)})
    foundation = replace(foundation, outputs=bare, executed={})
    compiled = compile_artifact(
        foundation, load_target("raspberry-pi-4"), generous("onnx-float"), tmp_path, max_drop=0.0, report=silent
    )
    assert compiled.artifact.checks["score"] == "not run"
    assert compiled.not_run["score"] == "there is no score function for output here"
    assert "score" not in compiled.executed_by
    assert compiled.artifact.metrics["agreement"] > 0.999


def test_a_file_that_its_runtime_does_not_take_fails_a_check_and_is_no_bug_of_ours(tmp_path):
    task = TASKS["values"]
    model = task.model().eval()
    with torch.no_grad():
        model[0].bias.fill_(-100.0)  # nothing passes the ReLU, so that the range of what follows is empty
    foundation = foundation_of(task, model, task.load_data())

    with pytest.raises(VerificationError, match=r"expected a file that LiteRT runs, found .*XNNPACK") as caught:
        compile_artifact(
            foundation, load_target("android-arm64"), generous("tflite-int8"), tmp_path, max_drop=1.0, report=silent
        )
    assert (caught.value.subject, caught.value.check) == ("android-arm64", "runs")
    assert str(caught.value).endswith("; choose another recipe or leave this target out")


def test_a_recipe_that_distills_learns_from_what_every_kind_gives(foundations):
    from hedgerow.compile.passes.runner import run_model_pass

    [distill] = find_recipe("onnx-distilled-int8").model_passes
    short = replace(distill, epochs=100, learning_rate=0.01)
    for kind in ("values", "labels", "reconstruction", "several"):
        foundation = foundations(kind)
        task = replace(foundation.source.task, student=foundation.source.task.model)
        student = run_model_pass(short, replace(foundation.source, task=task)).model
        learned = foundation_of(task, student, foundation.data)
        score = mean_score(learned.outputs, learned.float_answers, learned.wanted)
        assert score > mean_score(foundation.outputs, foundation.float_answers, foundation.wanted) - 0.1, kind
    with pytest.raises(UnsuitableError, match="a task with a student"):
        run_model_pass(short, foundations("values").source)


def test_pruning_leaves_the_layers_of_all_outputs_as_they_are(foundations):
    from hedgerow.compile.passes.model.prune_channels import PruneChannels
    from hedgerow.compile.passes.runner import run_model_pass

    foundation = foundations("several")
    model = run_model_pass(PruneChannels(share=0.5, round_to=4), foundation.source).model
    assert (model.state.weight.shape, model.level.weight.shape) == ((3, 8), (2, 8))
