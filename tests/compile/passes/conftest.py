"""A small trained model of everyday parts: BatchNorm, a depthwise convolution, a residual addition, linear layers."""

import dataclasses
from pathlib import Path

import pytest

from hedgerow.compile.passes.coreml.export import ExportCoreml
from hedgerow.compile.passes.onnx.export import ExportOnnx
from hedgerow.compile.passes.runner import run_file_pass
from hedgerow.compile.passes.tflite.export import ExportTflite

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


@pytest.fixture(scope="session")
def source():
    """A source whose task names a student; trained for two seconds on 600 digits, 97 % on those held out."""
    torch = pytest.importorskip("torch")
    from torch import nn

    from hedgerow.compile.pass_models import FloatModel
    from hedgerow.task import load_task
    from hedgerow.task_module import LogitsModule
    from tests.compile.passes.networks import Student, Teacher

    torch.set_num_threads(1)
    digits = load_task(f"{DIGITS / 'task.py'}:task")
    data = digits.load_data()
    task = dataclasses.replace(digits, model=Teacher, student=Student)
    train = data.train.take(range(600))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Teacher()
        module, optimizer = LogitsModule(task, model).train(), torch.optim.Adam(model.parameters(), lr=0.005)
        images, labels = torch.from_numpy(train.inputs["image"]), torch.from_numpy(train.target_values)
        for _epoch in range(6):
            for chosen in torch.randperm(600).split(32):
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(images[chosen]), labels[chosen]).backward()
                optimizer.step()
    return FloatModel(task=task, model=model.eval(), calibration=train.take(range(64)), train=train, seed=3)


@pytest.fixture(scope="session")
def held_out(source):
    return source.task.load_data().held_out


@pytest.fixture(scope="session")
def onnx_stage(source):
    return run_file_pass(ExportOnnx(), source, None)


@pytest.fixture(scope="session")
def tflite_stage(source):
    return run_file_pass(ExportTflite(), source, None)


@pytest.fixture(scope="session")
def coreml_stage(source):
    return run_file_pass(ExportCoreml(minimum_version="iOS18"), source, None)
