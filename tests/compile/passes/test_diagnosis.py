"""Models as users write them, with one thing in them that an export cannot translate."""

from pathlib import Path

import numpy as np
import pytest

from hedgerow import Dataset, Task, TaskData, TensorSpec
from hedgerow.compile.errors import PassError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.coreml.export import ExportCoreml
from hedgerow.compile.passes.diagnosis import _is_called, diagnose
from hedgerow.compile.passes.onnx.export import ExportOnnx
from hedgerow.compile.passes.runner import run_file_pass
from hedgerow.compile.passes.tflite.export import ExportTflite

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.heavy

ONNX, TFLITE, COREML = ExportOnnx(), ExportTflite(), ExportCoreml(minimum_version="iOS17")
BRANCHES = "compute both branches and choose with torch.where, without `if`, loops or .item() on tensors"
REPLACE = "replace it in the model, or leave out the targets of this format"


class ByValue(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x  # by value


class Bessel(torch.nn.Module):
    def forward(self, x):
        return torch.special.i1(x)  # bessel


class Sorted(torch.nn.Module):
    def forward(self, x):
        return torch.sort(x, dim=1).values  # sorted


class ThroughNumpy(torch.nn.Module):
    def forward(self, x):
        return torch.from_numpy(np.tanh(x.detach().numpy()))  # numpy


class TooNarrow(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.linear(x, torch.ones(3, 5))  # narrow


class ByLength(torch.nn.Module):
    def forward(self, x):
        return x + torch.softmax(torch.zeros(1, 8).expand(len(x), -1), -1)


def source_with(middle) -> FloatModel:
    def model():
        block = torch.nn.Sequential(torch.nn.Linear(16, 8), middle())
        return torch.nn.Sequential(block, torch.nn.Linear(8, 3))

    rng = np.random.default_rng(0)
    samples = Dataset({"x": rng.normal(size=(8, 16)).astype(np.float32)}, rng.integers(0, 3, 8))
    task = Task(
        name="odd",
        inputs=[TensorSpec("x", (16,), "float32")],
        labels=["a", "b", "c"],
        model=model,
        data=lambda: TaskData(samples, samples),
    )
    return FloatModel(task=task, model=task.model().eval(), calibration=samples, train=samples)


def line_of(mark: str) -> str:
    lines = Path(__file__).read_text("utf-8").splitlines()
    return f"test_diagnosis.py, line {1 + next(at for at, line in enumerate(lines) if line.endswith(f'# {mark}'))}"


BY_VALUE = "a decision by the values of a tensor"
BESSEL = "the operator special_i1, which it does not have"
SORT = "the operator sort, which it does not have"
NUMPY = "numpy in the model's forward, which no export can follow"
SHAPE = "an error (RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x8 and 5x3))"
TORCH = "compute it with torch, and leave numpy to the data"
RUN = "run the model in torch on one sample of the task's inputs, and correct it or the task"


@pytest.mark.parametrize(
    ("middle", "export", "met", "mark", "advice"),
    [
        (ByValue, ONNX, BY_VALUE, "by value", BRANCHES),
        (ByValue, TFLITE, BY_VALUE, "by value", BRANCHES),
        (ByValue, COREML, BY_VALUE, "by value", BRANCHES),
        (Bessel, TFLITE, BESSEL, "bessel", REPLACE),
        (Bessel, COREML, BESSEL, "bessel", REPLACE),
        (Sorted, TFLITE, SORT, "sorted", REPLACE),
        (ThroughNumpy, TFLITE, NUMPY, "numpy", TORCH),
        (ThroughNumpy, COREML, NUMPY, "numpy", TORCH),
        (TooNarrow, TFLITE, SHAPE, "narrow", RUN),
        (TooNarrow, COREML, SHAPE, "narrow", RUN),
    ],
)
def test_a_refusal_names_what_was_met_with_layer_and_line(middle, export, met, mark, advice):
    with pytest.raises(PassError) as caught:
        run_file_pass(export, source_with(middle), None)
    assert str(caught.value) == (
        f"{export.name}: expected a model that this step can convert, but it met {met} in the layer '0.1' "
        f"({line_of(mark)}); {advice}"
    )


def test_a_batch_that_is_fixed_by_len_is_named_with_what_to_write_instead():
    with pytest.raises(PassError, match=r"met a size of the batch that is fixed.*; take it from x\.shape\[0\]"):
        run_file_pass(ONNX, source_with(ByLength), None)


def test_an_operator_that_torch_onnx_made_of_another_is_named_as_it_calls_it():
    with pytest.raises(PassError, match=r"but it met the operator bessel_i1, which it does not have.*; replace it"):
        run_file_pass(ONNX, source_with(Bessel), None)


def test_what_nobody_knows_is_told_as_the_library_says_it():
    assert diagnose(RuntimeError("odd"), source_with(torch.nn.Identity), "RuntimeError: odd") is None


@pytest.mark.parametrize(
    ("operator", "target", "is_called"),
    [
        ("sort", "aten.sort.default", True),
        ("sort", "aten.argsort.default", False),
        ("linalg_inv", "aten.linalg_inv_ex.default", True),
        ("add", "aten.addmm.default", False),
        ("sort", "<built-in function getitem>", False),
    ],
)
def test_an_operator_is_found_under_its_own_name(operator, target, is_called):
    assert _is_called(operator, target) is is_called
