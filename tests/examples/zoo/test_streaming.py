"""The streaming detector in its runtimes, driven by hand: frames in, the state copied from output to input as it is.

Nothing of the product's own gate and runners is used here: each file is opened in onnxruntime, LiteRT or TensorFlow
Lite Micro and compared with the torch model on recordings that nobody has seen.
"""

from collections.abc import Callable

import numpy as np
import pytest

from hedgerow.compile.predict.running import RunArtifact
from hedgerow.manifest.artifact import Artifact
from tests.examples.zoo.streaming_model import RECIPES, fresh, trained

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

Step = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(frame as stored, state as stored) -> (probabilities as stored, state as stored)."""


def in_onnxruntime(content: bytes, _artifact: Artifact) -> Step:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [(node.name, node.shape) for node in session.get_inputs()] == [("frame", [1, 16]), ("state", [2, 1, 32])]

    def step(frame, state):
        return session.run(["probabilities", "state_next"], {"frame": frame, "state": state})

    return step


def in_litert(content: bytes, _artifact: Artifact) -> Step:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner()
    taken, given = runner.get_input_details(), runner.get_output_details()
    assert taken["args_1"]["shape"].tolist() == given["output_1"]["shape"].tolist() == [2, 1, 32]
    assert taken["args_1"]["dtype"] is given["output_1"]["dtype"] is np.int8
    assert taken["args_1"]["quantization"] == given["output_1"]["quantization"]

    def step(frame, state):
        found = runner(args_0=frame, args_1=state)
        return found["output_0"], found["output_1"]

    return step


def in_micro(content: bytes, artifact: Artifact) -> Step:
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=2**18)
    taken, given = interpreter.get_input_details(1), interpreter.get_output_details(1)
    assert list(taken["shape"]) == list(given["shape"]) == [2, 1, 32]
    assert taken["dtype"] is given["dtype"]
    for name in ("scales", "zero_points"):
        assert taken["quantization_parameters"][name] == given["quantization_parameters"][name]
    assert np.dtype(taken["dtype"]).name == artifact.inputs[1].dtype

    def step(frame, state):
        interpreter.set_input(frame, 0)
        interpreter.set_input(state, 1)
        interpreter.invoke()
        return interpreter.get_output(0), interpreter.get_output(1)

    return step


DRIVERS = {
    "raspberry-pi-4": in_onnxruntime,
    "raspberry-pi-5": in_onnxruntime,
    "android-arm64": in_litert,
    "cortex-m7": in_micro,
    "esp32-s3": in_micro,
}
STORED = {
    "raspberry-pi-4": "float32",
    "raspberry-pi-5": "float32",
    "android-arm64": "int8",
    "cortex-m7": "int8",
    "esp32-s3": "int16",
}


def stored(values: np.ndarray, scale: float | None, zero_point: int, dtype: str) -> np.ndarray:
    if scale is None:
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(dtype)


def real(values: np.ndarray, scale: float | None, zero_point: int) -> np.ndarray:
    return values if scale is None else (values.astype(np.float32) - zero_point) * np.float32(scale)


def by_hand(target: str, frames: np.ndarray, *, forgets: bool = False) -> np.ndarray:
    """Run one recording; *forgets*: the state is zero at each frame."""
    artifact = trained().artifact(target)
    step = DRIVERS[target](trained().content(target), artifact)
    (frame_in, state_in), (answer, _) = artifact.inputs, artifact.outputs
    zero = stored(np.zeros((2, 1, 32)), state_in.scale, state_in.zero_point, state_in.dtype)
    state, rows = zero, []
    for frame in frames:
        given, state = step(stored(frame[None], frame_in.scale, frame_in.zero_point, frame_in.dtype), state)
        rows.append(real(given, answer.scale, answer.zero_point)[0])
        state = zero if forgets else state
    return np.stack(rows)


@pytest.mark.parametrize("target", DRIVERS)
def test_sequences_are_predicted_with_the_state_that_a_device_would_keep(target):
    recordings = fresh(2)
    artifact, blobs = trained().artifact(target), trained().folder / "build" / "blobs"
    run = RunArtifact(artifact, trained().outcome.build.model_schema, lambda blob: (blobs / blob.sha256).read_bytes())

    found = run({"frame": recordings.inputs["frame"]}).outputs

    wanted = np.concatenate([by_hand(target, frames) for frames in recordings.inputs["frame"]])
    assert list(found) == ["probabilities"]
    np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-6)


def test_every_target_has_an_artifact_and_its_runtime_has_measured_it():
    outcome = trained().outcome

    assert outcome.refused == ()
    assert {artifact.target: outcome.recipes[artifact.target] for artifact in outcome.build.artifacts} == RECIPES
    for artifact in outcome.build.artifacts:
        assert artifact.checks["state"] == "passed"
        assert artifact.checks["accuracy"] == artifact.checks["golden"] == "passed"
        assert artifact.metrics["float_accuracy"] > 0.9
        assert artifact.metrics["held_out_samples"] == 9000
    assert outcome.build.model_schema.state == {"state": "state_next"}
    assert outcome.build.train_graphs == ()
    assert outcome.build.artifact("raspberry-pi-4").checks["train graph"] == "not run"
    assert outcome.not_run["raspberry-pi-4"]["train graph"].startswith("a train graph takes single samples")


def test_the_model_needs_what_it_remembers():
    recordings = fresh(60)
    labels = recordings.target_values.reshape(-1)
    remembered = np.concatenate([trained().in_torch(frames) for frames in recordings.inputs["frame"]])
    alone = np.concatenate(
        [trained().in_torch(frame[None]) for frames in recordings.inputs["frame"] for frame in frames]
    )

    assert (remembered.argmax(axis=1) == labels).mean() > 0.9
    assert (alone.argmax(axis=1) == labels).mean() < 0.8


@pytest.mark.parametrize("target", DRIVERS)
def test_a_file_driven_by_hand_says_what_torch_says_on_fresh_recordings(target):
    recordings = fresh(60)
    frames, labels = recordings.inputs["frame"], recordings.target_values
    wanted = np.stack([trained().in_torch(each) for each in frames])
    found = np.stack([by_hand(target, each) for each in frames])
    state = trained().artifact(target).inputs[1]

    assert (state.shape, state.dtype) == ((2, 1, 32), STORED[target])
    float_share, share = ((each.argmax(axis=2) == labels).mean() for each in (wanted, found))
    assert float_share > 0.9
    assert float_share - share <= 0.015
    assert (found.argmax(axis=2) == wanted.argmax(axis=2)).mean() >= 0.97
    if "float" in RECIPES[target]:
        np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("target", ["raspberry-pi-4", "android-arm64", "cortex-m7"])
def test_a_state_that_is_not_carried_is_seen_at_once(target):
    recordings = fresh(20)
    forgotten = np.stack([by_hand(target, each, forgets=True) for each in recordings.inputs["frame"]])

    assert (forgotten.argmax(axis=2) == recordings.target_values).mean() < 0.8


def test_int8_files_hold_their_weights_in_bytes():
    """Counted in the files themselves: 9,058 weights and biases, of which 8,768 stand in matrices."""
    from ai_edge_litert import schema_py_generated as flatbuffer
    from onnx import TensorProto, load_model_from_string

    model = load_model_from_string(trained().content("raspberry-pi-4"))
    sizes = dict.fromkeys((TensorProto.FLOAT, TensorProto.INT8), 0)
    for constant in model.graph.initializer:
        if constant.data_type in sizes:
            sizes[constant.data_type] += int(np.prod(constant.dims))
    assert sizes[TensorProto.INT8] >= 8768
    assert sizes[TensorProto.FLOAT] < 1000

    for target in ("android-arm64", "cortex-m7"):
        file = flatbuffer.ModelT.InitFromPackedBuf(trained().content(target), 0)
        (graph,) = file.subgraphs
        held = dict.fromkeys((flatbuffer.TensorType.INT8, flatbuffer.TensorType.FLOAT32), 0)
        for tensor in graph.tensors:
            if file.buffers[tensor.buffer].data is not None and tensor.type in held:
                held[tensor.type] += int(np.prod(tensor.shape))
        assert held[flatbuffer.TensorType.INT8] >= 8768
        assert held[flatbuffer.TensorType.FLOAT32] == 0
