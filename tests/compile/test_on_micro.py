"""What is said of a microcontroller's artifact is what TensorFlow Lite Micro gives, and nothing that LiteRT gives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("ai_edge_litert")

from hedgerow.compile.arena import installed_version  # noqa: E402
from hedgerow.compile.errors import ForeignFileError, RuntimeRefusedError, VerificationError  # noqa: E402
from hedgerow.compile.foundation import Foundation, Workbench  # noqa: E402
from hedgerow.compile.on_micro import run_on_micro  # noqa: E402
from hedgerow.compile.portions import portions  # noqa: E402
from hedgerow.compile.recipes import find_recipe  # noqa: E402
from hedgerow.compile.runners.tflite import predict_tflite  # noqa: E402
from hedgerow.compile.scoring import signal_to_noise_db  # noqa: E402
from hedgerow.compile.units import CompiledArtifact, compile_artifact  # noqa: E402
from hedgerow.durable import sha256_of  # noqa: E402
from hedgerow.hardware.lookup import load_target  # noqa: E402
from hedgerow.progress import ProgressRecorder, silent  # noqa: E402
from hedgerow.weights import decode_arrays  # noqa: E402
from tests.compile.only import only  # noqa: E402

RECIPE = find_recipe("tflite-int8-full")
CORE = load_target("cortex-m7")
ABSENT = "the interpreter of TensorFlow Lite Micro is not installed; install the extra mcu"
needs_mcu = pytest.mark.skipif(installed_version() is None, reason="needs the extra mcu")
quiet = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
pytestmark = quiet


@given(st.integers(1, 5000), st.integers(0, 10**12), st.integers(0, 10**9))
def test_portions_hold_every_sample_once_and_none_is_empty(samples, macs, sample_bytes):
    found = portions(samples, macs, sample_bytes)
    assert [begin for begin, _end in found] == [0, *(end for _begin, end in found[:-1])]
    assert found[-1][1] == samples
    assert all(begin < end for begin, end in found)
    largest = max(end - begin for begin, end in found)
    assert largest == 1 or (largest * macs <= 2 * 10**10 and largest * sample_bytes <= 64 * 2**20)


def test_portions_are_of_one_size_where_one_would_be_too_large():
    assert portions(360, 10_000, 256) == [(0, 360)]
    assert portions(4000, 12_500_000, 12_288) == [(0, 1334), (1334, 2668), (2668, 4000)]


@pytest.fixture(scope="module")
def foundation(digits, digits_checkpoint) -> Foundation:
    return Workbench().foundation(digits, digits_checkpoint, sha256_of(digits_checkpoint / "weights.safetensors"))


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    return tmp_path_factory.mktemp("build")


@pytest.fixture(scope="module")
def steps() -> ProgressRecorder:
    return ProgressRecorder()


@pytest.fixture(scope="module")
def compiled(foundation, build, steps) -> CompiledArtifact:
    return compile_artifact(foundation, CORE, RECIPE, build, max_drop=0.015, report=steps)


def predicted(content: bytes, arena_bytes: int, values: np.ndarray) -> np.ndarray:
    """Return what the interpreter gives, driven without any code of ours: no runner, no border, no child process."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)
    taken, given = interpreter.get_input_details(0), interpreter.get_output_details(0)
    [scale], [point] = taken["quantization_parameters"]["scales"], taken["quantization_parameters"]["zero_points"]
    [step], [zero] = given["quantization_parameters"]["scales"], given["quantization_parameters"]["zero_points"]
    rows = []
    for row in values:
        stored = np.clip(np.rint(row[None].astype(np.float32) / np.float32(scale)) + point, -128, 127)
        interpreter.set_input(stored.astype(np.int8), 0)
        interpreter.invoke()
        rows.append((interpreter.get_output(0).astype(np.float64) - zero).astype(np.float32) * np.float32(step))
    return np.concatenate(rows)


@needs_mcu
@pytest.mark.heavy
def test_score_parity_classes_and_golden_samples_are_those_of_an_interpreter_that_is_driven_directly(
    compiled, foundation, build
):
    artifact, held_out = compiled.artifact, foundation.data.held_out
    content = (build / "blobs" / artifact.blob.sha256).read_bytes()
    wanted = predicted(content, compiled.arena.bytes, held_out.inputs["image"])
    right = wanted.argmax(axis=1) == held_out.target_values
    assert artifact.metrics["held_out_samples"] == len(held_out)
    assert artifact.metrics["accuracy"] == right.mean()
    floats = foundation.float_answers["probabilities"]
    assert artifact.metrics["agreement"] == (wanted.argmax(axis=1) == floats.argmax(axis=1)).mean()
    noise = np.square(floats.astype(np.float64) - wanted).sum()
    snr_db = 10 * np.log10(np.square(floats.astype(np.float64)).sum() / noise)
    assert artifact.metrics["snr_db"] == pytest.approx(snr_db, abs=1e-9)
    for label, row in enumerate(compiled.evaluation["classes"]):
        assert row["recall"] == pytest.approx(right[held_out.target_values == label].mean(), abs=1e-6)
    golden = decode_arrays((build / "blobs" / artifact.golden.sha256).read_bytes(), "golden", limit_bytes=10**6)
    [name] = [name for name in golden if name.startswith("output.")]
    assert np.array_equal(golden[name], predicted(content, compiled.arena.bytes, golden["input.image"]))


@needs_mcu
@pytest.mark.heavy
def test_the_figures_are_not_litert_s_where_the_two_differ(compiled, foundation):
    stage = foundation.made[(RECIPE, True)].stage
    other = only(predict_tflite(stage, foundation.data.held_out.inputs))
    of_litert = signal_to_noise_db(foundation.float_answers["probabilities"], other)
    assert (
        np.abs(other - foundation.executed[(RECIPE, "tflite-micro", True)].answers["probabilities"]).max()
        >= stage.outputs[0].scale
    )
    assert abs(compiled.artifact.metrics["snr_db"] - of_litert) > 1e-3
    # LiteRT was not even asked.
    assert set(foundation.executed) == {(RECIPE, "tflite-micro", True)}
    assert compiled.latency is None


@needs_mcu
@pytest.mark.heavy
def test_each_check_says_that_the_interpreter_ran_it_and_which_one(compiled):
    asked = ("accuracy", "parity", "golden", "oracle", "operators", "memory")
    ran = f"TensorFlow Lite Micro's reference kernels {installed_version()}"
    assert compiled.executed_by == dict.fromkeys(asked, ran)
    assert {compiled.artifact.checks[name] for name in asked} == {"passed"}
    assert compiled.not_run == {}
    assert compiled.artifact.metrics["peak_memory_bytes"] == compiled.arena.bytes


@needs_mcu
@pytest.mark.heavy
def test_the_work_says_how_many_samples_were_run(compiled, steps, foundation):
    samples = len(foundation.data.held_out)
    notes = [step.note for step in steps.steps]
    assert f"{samples} of {samples} samples in tflite-micro" in notes
    done = [step.done for step in steps.steps]
    assert done == sorted(done)
    assert steps.steps[-1].is_over


@pytest.mark.heavy
def test_without_the_interpreter_nothing_is_claimed_and_litert_does_not_stand_for_it(foundation, tmp_path, monkeypatch):
    monkeypatch.setattr("hedgerow.compile.on_micro.installed_version", lambda: None)
    monkeypatch.setattr(
        "hedgerow.compile.runners.tflite.predict_tflite", lambda *_: pytest.fail("LiteRT was asked in its place")
    )
    alone = replace(foundation, executed={})
    found = compile_artifact(alone, CORE, RECIPE, tmp_path, max_drop=0.015, report=silent)
    absent = ("accuracy", "parity", "golden", "oracle", "operators", "memory")
    assert {name for name, state in found.artifact.checks.items() if state == "not run"} == set(absent)
    assert found.not_run == dict.fromkeys(absent, ABSENT)
    assert found.executed_by == {}
    assert (found.artifact.golden, found.evaluation, found.latency, found.arena) == (None, None, None, None)
    assert not {"accuracy", "snr_db", "agreement", "peak_memory_bytes"} & set(found.artifact.metrics)


def lying(error: Exception):
    """Return what stands in the place of a search for the arena and raises."""

    def arena(_self):
        raise error

    return arena


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("error", "check", "words"),
    [
        (
            RuntimeRefusedError("TensorFlow Lite Micro", "has", "COS, which it does not have", operator="COS"),
            "operators",
            "found COS, which it does not have; replace these layers in the model or leave this target out",
        ),
        (
            RuntimeRefusedError("TensorFlow Lite Micro", "allocates", "it asks for 10 bytes at once"),
            "oracle",
            "expected a file that TensorFlow Lite Micro allocates, found it asks for 10 bytes at once; ",
        ),
        (
            ForeignFileError("digits.tflite", "TensorFlow Lite Micro", "running", "the signal SIGSEGV"),
            "oracle",
            "expected TensorFlow Lite Micro to live through running the file, found the signal SIGSEGV; ",
        ),
    ],
)
def test_what_the_interpreter_has_against_a_file_refuses_the_target(
    error, check, words, foundation, tmp_path, monkeypatch
):
    monkeypatch.setattr("hedgerow.compile.on_micro.installed_version", lambda: "1")
    monkeypatch.setattr("hedgerow.compile.foreign.ForeignFile.arena", lying(error))
    with pytest.raises(VerificationError) as caught:
        compile_artifact(replace(foundation, executed={}), CORE, RECIPE, tmp_path, max_drop=0.015, report=silent)
    assert [failure[0] for failure in caught.value.failures] == [check]
    assert words in str(caught.value)


@needs_mcu
@pytest.mark.heavy
def test_an_interpreter_that_remembers_earlier_samples_fails_the_golden_samples(compiled, foundation, monkeypatch):
    from hedgerow.compile.foreign import ForeignFile

    predict = ForeignFile.predict

    def drifting(self, *args, **named):
        found = predict(self, *args, **named)
        return replace(found, outputs={name: values + np.float32(0.5) for name, values in found.outputs.items()})

    monkeypatch.setattr(ForeignFile, "predict", drifting)
    executed = run_on_micro(foundation, foundation.made[(RECIPE, True)], lambda *_: None)
    assert executed.replay_difference == pytest.approx(0.5)
