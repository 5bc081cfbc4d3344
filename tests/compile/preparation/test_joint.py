"""Two files become one that gives what the second gives on what the first gives."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hedgerow.compile import foundation as foundations  # noqa: E402
from hedgerow.compile.making import Steps, make  # noqa: E402
from hedgerow.compile.recipes import RECIPES  # noqa: E402
from hedgerow.compile.runners.onnx import predict_onnx  # noqa: E402
from hedgerow.compile.runners.tflite import predict_tflite  # noqa: E402
from hedgerow.progress import silent  # noqa: E402
from hedgerow.schema import TensorSpec  # noqa: E402
from hedgerow.task import Dataset, Task, TaskData  # noqa: E402
from hedgerow.task_module import predict  # noqa: E402
from tests.compile.only import only  # noqa: E402
from tests.compile.preparation.conftest import make_foundation  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
RNG = np.random.default_rng(4)
INPUTS = {
    "level": RNG.normal(size=(80, 6)).astype(np.float32),
    "kind": RNG.integers(0, 5, 80),
    "rest": RNG.normal(size=(80, 3)).astype(np.float32),
}
SPECS = [TensorSpec("level", (6,)), TensorSpec("kind", (), "int64"), TensorSpec("rest", (3,))]


class Several(nn.Module):
    """Takes three prepared tensors, one of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first, self.head = nn.Embedding(6, 8), nn.Linear(9, 64), nn.Linear(72, 3)

    def forward(self, values: torch.Tensor, kind: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(torch.cat([values, rest], 1)))
        return self.head(torch.cat([hidden, self.table(kind)], 1))


def foundation_of(preprocess, model, monkeypatch):
    data = Dataset(INPUTS, RNG.integers(0, 3, 80))
    torch.manual_seed(0)
    task = Task(
        name="several",
        inputs=SPECS,
        labels=("a", "b", "c"),
        model=model,
        data=lambda: TaskData(data, data),
        preprocess=preprocess,
    )
    from hedgerow.examples.zoo import raw_sensors

    monkeypatch.setattr(raw_sensors, "TRAIN", data)
    monkeypatch.setattr(raw_sensors, "HELD_OUT", data)
    return make_foundation(task, model().eval())


@pytest.mark.parametrize(
    ("recipe", "run", "tolerance"),
    [
        ("onnx-float", predict_onnx, 1e-5),
        ("onnx-int8-s8s8", predict_onnx, 0.05),
        ("onnx-int8-dynamic", predict_onnx, 0.05),
        ("onnx-int4-weights", predict_onnx, 0.2),
        ("onnx-fp16", predict_onnx, 0.01),
        ("onnx-int8-inc", predict_onnx, 0.05),
        ("tflite-float", predict_tflite, 1e-5),
        ("tflite-int8", predict_tflite, 0.05),
        ("tflite-fp16", predict_tflite, 0.01),
    ],
)
@pytest.mark.parametrize(
    "preprocess",
    [
        lambda level, kind, rest: (level / 3, (kind + 1).clamp(0, 5), rest),
        lambda level, kind, rest: (level * 2, kind, level[:, :3] + rest.mean(1, keepdim=True)),
    ],
    ids=["one goes through", "one goes to two"],
)
def test_several_tensors_meet_in_the_joint_file(recipe, run, tolerance, preprocess, monkeypatch):
    foundation = foundation_of(preprocess, Several, monkeypatch)
    stage = make(foundation, RECIPES[recipe], Steps("test", 9, silent)).stage
    assert [tensor.name for tensor in stage.inputs] == ["level", "kind", "rest"]
    wanted = only(predict(foundation.source.task, foundation.source.model, INPUTS))
    assert np.abs(only(run(stage, INPUTS)) - wanted).max() <= tolerance


def test_the_joint_file_is_the_same_each_time(bench):
    for recipe in ("onnx-int8-s8s8", "tflite-int8"):
        one, other = (
            make(replace(bench, stages={}), RECIPES[recipe], Steps("test", 9, silent)).stage.content for _ in range(2)
        )
        assert one == other


def test_branches_before_a_model_are_refused_for_tflite():
    from hedgerow.compile.pass_models import CompiledModel
    from hedgerow.compile.preparation.joint_tflite import joined_tflite

    flatbuffer = pytest.importorskip("ai_edge_litert.schema_py_generated")
    import flatbuffers

    model = flatbuffer.ModelT()
    model.version, model.buffers, model.operatorCodes = 3, [flatbuffer.BufferT()], []
    model.subgraphs = []
    for _ in range(2):
        graph = flatbuffer.SubGraphT()
        graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [], [], []
        model.subgraphs.append(graph)
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), b"TFL3")
    stage = CompiledModel(format="tflite", content=bytes(builder.Output()), inputs=(), outputs=())
    with pytest.raises(ValueError, match="preprocess has branches or loops; write it without"):
        joined_tflite(stage, stage)


class OfX(nn.Module):
    """Calls its argument as the task calls its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 64), nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.first(x)).mean(1))


def test_an_argument_of_the_model_may_be_called_as_an_input_of_the_task():
    data = Dataset({"x": RNG.normal(size=(64, 5, 6)).astype(np.float32)}, RNG.integers(0, 3, 64))
    model, both = OfX().eval(), TaskData(data, data)
    task = Task(
        name="named",
        inputs=[TensorSpec("x", (5, 6))],
        labels=list("abc"),
        model=lambda: model,
        data=lambda: both,
        preprocess=lambda x: x / 2,
    )
    foundation = foundations.foundation_of(task, model, both)
    wanted = foundation.float_answers["probabilities"]
    stage = make(foundation, RECIPES["onnx-int8-s8s8"], Steps("named", 9, silent)).stage

    assert [tensor.tensor for tensor in stage.inputs] == ["x"]
    np.testing.assert_allclose(only(predict_onnx(stage, data.inputs)), wanted, atol=0.02)
