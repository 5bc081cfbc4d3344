"""Model passes leave shared weights shared, and exports of such a model compute what it computes."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hedgerow.compile.pass_models import FloatModel  # noqa: E402
from hedgerow.compile.passes.model.fine_tune import FineTune  # noqa: E402
from hedgerow.compile.passes.model.prune_channels import PruneChannels  # noqa: E402
from hedgerow.compile.passes.model.prune_weights import PruneWeights  # noqa: E402
from hedgerow.compile.passes.model.sharing import shared_layers  # noqa: E402
from hedgerow.compile.passes.model.smooth_activations import SmoothActivations  # noqa: E402
from hedgerow.compile.passes.model.train_quantized import TrainQuantized  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass, run_model_pass  # noqa: E402
from hedgerow.compile.recipes import RECIPES  # noqa: E402
from hedgerow.schema import TensorSpec  # noqa: E402
from hedgerow.task import Dataset, Task, TaskData  # noqa: E402
from tests.compile.passes.traced.runtimes import RUN  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

TOKENS, LENGTH, WIDTH = 40, 6, 16


class Tied(nn.Module):
    """An embedding that is the head, too; one layer twice; one layer under two names; a free one at last."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.twice = nn.Embedding(TOKENS, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.free, self.one = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)
        self.other = self.twice
        self.head = nn.Linear(WIDTH, TOKENS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.words(words).mean(1)
        x = x + torch.tanh(self.twice(torch.tanh(self.twice(x))))
        x = x + self.one(torch.relu(self.free(x)))
        return self.head(x + torch.tanh(self.other(x)))


def rows(count, seed):
    return np.random.default_rng(seed).integers(0, TOKENS, (count, LENGTH))


@pytest.fixture
def source():
    torch.manual_seed(0)
    model = Tied().eval()
    with torch.no_grad():
        model.words.weight.mul_(0.3)
    values = rows(96, 0)
    with torch.no_grad():
        labels = model(torch.from_numpy(values)).argmax(1).numpy()
    data = Dataset({"x": values}, labels)
    task = Task(
        name="tied",
        inputs=[TensorSpec("x", (LENGTH,), "int64")],
        labels=[str(token) for token in range(TOKENS)],
        model=Tied,
        data=lambda: TaskData(data, data),
    )
    return FloatModel(task=task, model=model, calibration=data, train=data)


def test_layers_that_share_are_found(source):
    model = source.model
    found = shared_layers(model, (torch.from_numpy(rows(2, 1)),))
    assert found == {model.words, model.head, model.twice}
    assert shared_layers(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == frozenset()


@pytest.mark.parametrize(
    "step",
    [
        SmoothActivations(),
        PruneChannels(share=0.5),
        PruneWeights(share=0.3),
        FineTune(epochs=1, learning_rate=0.001),
        TrainQuantized(epochs=1, learning_rate=0.001),
    ],
    ids=lambda step: step.name,
)
def test_a_model_pass_leaves_what_is_shared_shared(source, step):
    before = copy.deepcopy(source.model.state_dict())
    made = run_model_pass(step, source).model
    assert made.head.weight is made.words.weight
    assert made.other is made.twice
    assert all(torch.equal(value, before[name]) for name, value in source.model.state_dict().items())


def test_smoothing_changes_no_output(source):
    made = run_model_pass(SmoothActivations(), source).model
    fresh = torch.from_numpy(rows(32, 2))
    torch.testing.assert_close(made(fresh), source.model(fresh), atol=1e-5, rtol=1e-5)
    assert isinstance(made.free, nn.Sequential)


def test_pruning_takes_channels_of_what_is_not_shared(source):
    made = run_model_pass(PruneChannels(share=0.5), source).model
    assert made.free.out_features == 16
    assert made.twice.weight.shape == (WIDTH, WIDTH)


@pytest.mark.parametrize(
    "recipe",
    ["onnx-float", "onnx-int8-s8s8", "onnx-int8-dynamic", "onnx-int4-weights", "onnx-int8-inc-smoothquant",
     "tflite-float", "tflite-int8", "tflite-int8-full", "coreml-fp16", "coreml-int8-weights"],
)  # fmt: skip
def test_a_file_of_shared_weights_computes_what_the_model_does(source, recipe):
    for name in ("onnxruntime", "litert_torch", "coremltools"):
        pytest.importorskip(name)
    fresh, stage, given = rows(64, 3), None, source
    for step in RECIPES[recipe].model_passes:
        given = run_model_pass(step, given)
    for step in RECIPES[recipe].passes:
        stage = run_file_pass(step, given, stage)
    with torch.no_grad():
        wanted = torch.softmax(source.model(torch.from_numpy(fresh)), -1).numpy()
    found = RUN[stage.format](stage.content, fresh)
    noise = 10 * np.log10((wanted**2).sum() / ((wanted - found) ** 2).sum())
    assert noise > (100 if "float" in recipe else 15 if "int4" in recipe else 25)
