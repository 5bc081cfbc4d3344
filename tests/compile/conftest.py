"""A trained digits checkpoint, once for all tests that compile."""

import os
from pathlib import Path

import pytest

from hedgerow.checkpoint import Checkpoint, save_checkpoint

DIGITS = f"{Path(__file__).parents[2] / 'examples' / 'digits' / 'task.py'}:task"
TARGETS = ("raspberry-pi-4", "android-arm64", "x86-gateway", "iphone-15")


@pytest.fixture(scope="session")
def mlperf_tiny() -> Path:
    """The folder of MLPerf Tiny's reference models; tests that need it are skipped where it is not."""
    shared = os.environ.get("HEDGEROW_DATA") or Path(__file__).parents[3] / "shared" / "data"
    folder = Path(shared) / "mlperf-tiny"
    if not folder.is_dir():
        pytest.skip(f"needs the reference models of MLPerf Tiny at {folder} (or set HEDGEROW_DATA)")
    return folder


@pytest.fixture(scope="session")
def scrambled() -> bytes:
    """A TFLite file that aborts LiteRT and runs in TensorFlow Lite Micro."""
    return (Path(__file__).parents[1] / "client" / "keyword_scrambled_8bit.tflite").read_bytes()


@pytest.fixture(scope="session")
def own_int8_file() -> bytes:
    """ResNet-8 with random weights, every tensor int8: a file for microcontrollers."""
    pytest.importorskip("litert_torch")
    from hedgerow.compile.passes.runner import run_file_pass
    from hedgerow.compile.passes.tflite.export import ExportTflite
    from hedgerow.compile.passes.tflite.quantize_static import QuantizeTfliteFull
    from tests.compile.nets import make_source, resnet8

    source = make_source(resnet8)
    return run_file_pass(QuantizeTfliteFull(), source, run_file_pass(ExportTflite(), source, None)).content


@pytest.fixture(scope="session")
def digits() -> str:
    """The reference of the digits task."""
    return DIGITS


@pytest.fixture(scope="session")
def digits_checkpoint(tmp_path_factory) -> Path:
    """A folder with a checkpoint of the digits task, trained centrally for a few epochs."""
    import torch

    from hedgerow.task import load_task
    from hedgerow.task_losses import loss_function
    from hedgerow.task_module import LogitsModule, model_weights, predict

    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = load_task(DIGITS)
    data = task.load_data()
    model = task.model()
    module, loss = LogitsModule(task, model), loss_function(task)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = torch.from_numpy(data.train.inputs["image"])
    labels = torch.from_numpy(data.train.target_values)
    for _epoch in range(12):
        for start in range(0, len(labels), 16):
            optimizer.zero_grad()
            loss(module(inputs[start : start + 16]), labels[start : start + 16]).backward()
            optimizer.step()
    found = task.measure(predict(task, model.eval(), data.held_out.inputs), task.wanted(data.held_out))["accuracy"]
    folder = tmp_path_factory.mktemp("digits") / "checkpoint"
    save_checkpoint(
        folder,
        Checkpoint(
            weights=model_weights(model),
            task="digits",
            run="run-0",
            round=12,
            strategy="fedavg",
            grid="in-process",
            seed=0,
            parent="digits@1",
            metrics={"accuracy": found},
        ),
    )
    return folder
