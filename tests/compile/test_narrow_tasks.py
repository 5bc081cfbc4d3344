"""Tasks that push against a limit: inputs of 8-bit integers, and a model too small to gain from int8."""

from pathlib import Path

import pytest

from hedgerow.compile import Budget, CompileWorkers, compile_checkpoint, compile_targets

pytestmark = pytest.mark.heavy

BYTES = """
import numpy as np
from torch import nn
from hedgerow import Dataset, Task, TaskData, TensorSpec

def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    images = rng.integers(0, 60, (400, 1, 8, 8))
    for image, label in zip(images, labels):
        image[0, 4 * (label // 2):4 * (label // 2) + 4, 4 * (label % 2):4 * (label % 2) + 4] += 150
    seen = Dataset({"image": images.astype(np.uint8)}, labels)
    return TaskData(train=seen, held_out=seen)

task = Task(
    name="quadrants",
    inputs=[TensorSpec("image", (1, 8, 8), dtype="uint8", minimum=0, maximum=255)],
    labels=["a", "b", "c", "d"],
    model=lambda: nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 4),
    ),
    data=data,
    preprocess=lambda image: image.float() / 255,
)
"""
TINY = """
import numpy as np
from torch import nn
from hedgerow import Dataset, Task, TaskData, TensorSpec

def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    values = rng.normal(0, 1, (400, 8)) + 3 * labels[:, None]
    seen = Dataset({"x": values.astype(np.float32)}, labels)
    return TaskData(train=seen, held_out=seen)

task = Task(
    name="tiny", inputs=[TensorSpec("x", (8,))], labels=["a", "b"],
    model=lambda: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)), data=data,
)
"""


def trained(source: str, folder: Path) -> tuple[str, Path]:
    """Write a task, train it for a moment, and return its reference and the checkpoint."""
    import torch

    from hedgerow.examples.zoo.training import save_trained, train_centrally
    from hedgerow.task import load_task

    torch.set_num_threads(1)
    (folder / "task").mkdir()
    (folder / "task" / "task.py").write_text(source)
    reference = f"{folder / 'task' / 'task.py'}:task"
    task = load_task(reference)
    data = task.load_data()
    assert save_trained(folder / "run", task, train_centrally(task, data, epochs=6, learning_rate=0.01), data, epochs=6)
    return reference, folder / "run"


@pytest.fixture(scope="module")
def workers():
    with CompileWorkers() as pool:
        yield pool


def test_inputs_of_bytes_run_on_phones_and_gateways_and_others_name_what_is_in_the_way(workers, tmp_path):
    task, run = trained(BYTES, tmp_path)
    holds, refuses = ["x86-gateway", "android-arm64", "iphone-12"], ["cortex-m4", "jetson-orin-nano"]
    outcome = compile_targets(task, run, [*holds, *refuses], tmp_path / "out", workers=workers)
    assert [artifact.target for artifact in outcome.build.artifacts] == holds
    for artifact in outcome.build.artifacts:
        assert artifact.checks["accuracy"] == artifact.checks["parity"] == artifact.checks["golden"] == "passed"
    # Core ML has no 8-bit inputs: integers of 32 bits hold the same values.
    assert [artifact.inputs[0].dtype for artifact in outcome.build.artifacts] == ["uint8", "uint8", "int32"]
    assert [refusal.target for refusal in outcome.refused] == refuses
    core, gpu = outcome.refused
    # TensorFlow Lite Micro takes bytes; what makes numbers of them here are floats.
    assert (core.check, "found also float32" in core.reason) == ("all integer", True)
    assert gpu.check == "number types"
    assert "found also uint8" in gpu.reason
    assert "give the task's inputs" in gpu.reason


def test_a_model_larger_in_int8_than_in_float_stays_float_where_floats_run(workers, tmp_path):
    task, run = trained(TINY, tmp_path)
    fallbacks = {"raspberry-pi-4": "onnx-float", "android-arm64": "tflite-float", "iphone-12": "coreml-fp16"}
    outcome = compile_targets(
        task, run, [*fallbacks, "cortex-m4"], tmp_path / "out", cache=tmp_path / "cache", workers=workers
    )
    assert outcome.recipes == fallbacks
    assert [(refusal.target, refusal.check) for refusal in outcome.refused] == [("cortex-m4", "size")]
    states = {(trial.target, trial.state): trial for trial in outcome.trials}
    assert "fewer bytes than the float artifact" in states["raspberry-pi-4", "refused"].reason
    assert "expected a weight of at least 64 numbers, found 48" in states["iphone-12", "refused"].reason
    assert states["android-arm64", "passed"].recipe == "tflite-float"
    text = (tmp_path / "out" / "report.md").read_text()
    assert "fewer bytes than the float artifact" in text
    # All of it is known the next time, refusals too; and a strict compile takes the float file as well.
    again = compile_targets(task, run, [*fallbacks, "cortex-m4"], tmp_path / "out", cache=tmp_path / "cache")
    assert again.cached == tuple(fallbacks)
    build = compile_checkpoint(task, run, ["raspberry-pi-4"], tmp_path / "strict", cache=tmp_path / "cache")
    assert build.artifacts[0].blob == outcome.build.artifacts[0].blob
    searched = compile_targets(
        task,
        run,
        ["android-arm64", "iphone-12"],
        tmp_path / "searched",
        prefer="size",
        budget=Budget(max_drop=0.0),
        workers=workers,
    )
    assert searched.recipes["iphone-12"] == "coreml-fp16"
    assert len(searched.trials) > len(searched.recipes)
