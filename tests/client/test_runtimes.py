"""Runtimes: the border, the table, and one contract that every runtime keeps."""

import sys
import threading
from importlib.metadata import version

import numpy as np
import pytest

from hedgerow.client.errors import InstallError
from hedgerow.client.runtimes import RUNTIMES, available_runtimes, load_runtime
from hedgerow.client.runtimes.linear import LinearRuntime, load_linear
from hedgerow.client.runtimes.static_batch import in_batches, static_batch
from hedgerow.errors import PluginError, UnknownNameError
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob, Tensor
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.weights import encode_arrays
from tests.client.conftest import softmax
from tests.distributions import install_distribution

X = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
WEIGHT = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
BIAS = np.asarray([0.5, -0.5, 0.0], dtype=np.float32)


EXPECTED = softmax(X @ WEIGHT + BIAS)


def artifact(runtime: str, x: Tensor, probabilities: Tensor) -> Artifact:
    return Artifact(
        target="bench",
        format="any",
        runtime=runtime,
        blob=Blob("0" * 64, 1),
        inputs=(x,),
        outputs=(probabilities,),
        recipe=(),
        golden=None,
        golden_tolerance=0,
        metrics={},
        checks={},
    )


def train_graph(
    runtime: str, *, names: tuple[str, ...], lr_shape: tuple[int, ...] = (), label_dtype: str = "int64"
) -> TrainGraph:
    x, labels, rate, weight, bias, loss, new_weight, new_bias = names
    return TrainGraph(
        format="any",
        runtime=runtime,
        blob=Blob("0" * 64, 1),
        batch_size=7,
        inputs=(Tensor("x", x, (7, 4), "float32"),),
        targets=(Tensor("probabilities", labels, (7,), label_dtype),),
        learning_rate=Tensor("learning_rate", rate, lr_shape, "float32"),
        loss=Tensor("loss", loss, (), "float32"),
        parameters=(Tensor("weight", weight, (4, 3), "float32"), Tensor("bias", bias, (3,), "float32")),
        updated=(Tensor("weight", new_weight, (4, 3), "float32"), Tensor("bias", new_bias, (3,), "float32")),
    )


SAME_NAMES = ("x", "labels", "learning_rate", "weight", "bias", "loss", "new_weight", "new_bias")


def check_model(model) -> None:
    """A model of any static batch takes any batch, also none, from any thread."""
    for size in (7, 1, 3, 0):
        got = model.predict({"x": X[:size]})["probabilities"]
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, EXPECTED[:size], atol=1e-5)
    wrong = []

    def predict(row: int) -> None:
        for _ in range(50):
            got = model.predict({"x": X[row : row + 1]})["probabilities"]
            if not np.allclose(got, EXPECTED[row], atol=1e-5):
                wrong.append(row)

    threads = [threading.Thread(target=predict, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def check_step(step) -> None:
    """One step of gradient descent, against its formula."""
    labels = np.arange(7, dtype=np.int64) % 3
    before, wanted = {"weight": WEIGHT, "bias": BIAS}, {"probabilities": labels}
    loss, after = step({"x": X}, wanted, 0.1, before)
    gradient = (EXPECTED - np.eye(3)[labels]) / 7
    assert loss == pytest.approx(-np.log(EXPECTED[np.arange(7), labels]).mean(), abs=1e-5)
    np.testing.assert_allclose(after["weight"], WEIGHT - 0.1 * X.T @ gradient, atol=1e-5)
    np.testing.assert_allclose(after["bias"], BIAS - 0.1 * gradient.sum(axis=0), atol=1e-5)
    assert set(after) == set(before)
    # What was given stays as it was, and the next step starts from what came out.
    assert step({"x": X}, wanted, 0.1, before)[0] == loss
    assert step({"x": X}, wanted, 0.1, after)[0] < loss


def test_a_static_batch_is_filled_and_cut():
    seen = []

    def double(inputs):
        seen.append(inputs["x"].shape)
        return {"y": inputs["x"] * 2}

    assert in_batches(double, {"x": np.arange(5.0)}, 2)["y"].tolist() == [0, 2, 4, 6, 8]
    assert seen == [(2,)] * 3
    assert static_batch((Tensor("x", "x", (-1, 4), "float32"),)) is None
    assert static_batch((Tensor("x", "x", (1, 4), "float32"),)) == 1


def test_the_table_knows_what_is_installed_without_importing_it():
    assert set(available_runtimes()) <= set(RUNTIMES)
    assert "onnxruntime" in available_runtimes()
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        load_runtime("onnxruntim")
    with pytest.raises(UnknownNameError):
        load_linear("onnxruntime")


def test_the_fake_keeps_the_contract(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(encode_arrays({"weight": WEIGHT, "bias": BIAS}))
    x, probabilities = Tensor("x", "x", (-1, 4), "float32"), Tensor("probabilities", "p", (-1, 3), "float32")
    check_model(LinearRuntime().load(path, artifact("linear", x, probabilities)))
    check_step(LinearRuntime().load_train_graph(path, train_graph("linear", names=SAME_NAMES)))
    path.write_bytes(b"rust")
    with pytest.raises(InstallError):
        LinearRuntime().load(path, artifact("linear", x, probabilities))


def onnx_file(nodes, inputs, outputs, constants) -> bytes:
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return model.SerializeToString()


def onnx_model(batch) -> bytes:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Gemm", ["x", "weight", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])
    p = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, 3])
    return onnx_file(nodes, [x], [p], {"weight": WEIGHT, "bias": BIAS})


def onnx_train_graph() -> bytes:
    from onnx import TensorProto, helper

    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "weight", "bias"], ["logits"]),
        node("LogSoftmax", ["logits"], ["logs"], axis=1),
        node("Exp", ["logs"], ["shares"]),
        node("OneHot", ["labels", "classes", "off_on"], ["wanted"]),
        node("Mul", ["logs", "wanted"], ["picked"]),
        node("ReduceSum", ["picked"], ["total"], keepdims=0),
        node("Div", ["total", "minus_batch"], ["loss"]),
        node("Sub", ["shares", "wanted"], ["difference"]),
        node("Div", ["difference", "batch"], ["gradient"]),
        node("Gemm", ["x", "gradient"], ["weight_gradient"], transA=1),
        node("ReduceSum", ["gradient", "axis"], ["bias_gradient"], keepdims=0),
        node("Mul", ["weight_gradient", "learning_rate"], ["weight_step"]),
        node("Mul", ["bias_gradient", "learning_rate"], ["bias_step"]),
        node("Sub", ["weight", "weight_step"], ["new_weight"]),
        node("Sub", ["bias", "bias_step"], ["new_bias"]),
    ]
    info, real = helper.make_tensor_value_info, TensorProto.FLOAT
    inputs = [
        info("x", real, [7, 4]),
        info("labels", TensorProto.INT64, [7]),
        info("learning_rate", real, []),
        info("weight", real, [4, 3]),
        info("bias", real, [3]),
    ]
    outputs = [info("loss", real, []), info("new_weight", real, [4, 3]), info("new_bias", real, [3])]
    constants = {
        "classes": np.asarray(3, np.int64),
        "off_on": np.asarray([0, 1], np.float32),
        "axis": np.asarray([0], np.int64),
        "batch": np.asarray(7, np.float32),
        "minus_batch": np.asarray(-7, np.float32),
    }
    return onnx_file(nodes, inputs, outputs, constants)


@pytest.mark.heavy
@pytest.mark.parametrize("batch", ["n", 1, 7])
def test_onnx_runtime_keeps_the_contract(tmp_path, batch, caplog):
    caplog.set_level("INFO", "hedgerow")
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_model(batch))
    size = batch if isinstance(batch, int) else -1
    x, p = Tensor("x", "x", (size, 4), "float32"), Tensor("probabilities", "probabilities", (size, 3), "float32")
    check_model(load_runtime("onnxruntime").load(path, artifact("onnxruntime", x, p)))
    said = f"the artifact for bench is run by ONNX Runtime {version('onnxruntime')}, CPUExecutionProvider"
    assert [record.message for record in caplog.records] == [said]


@pytest.mark.heavy
def test_onnx_runtime_trains(tmp_path):
    path = tmp_path / "t.onnx"
    path.write_bytes(onnx_train_graph())
    check_step(load_runtime("onnxruntime").load_train_graph(path, train_graph("onnxruntime", names=SAME_NAMES)))


@pytest.mark.heavy
def test_onnx_runtime_refuses_other_files_and_other_tensors(tmp_path):
    path = tmp_path / "m.onnx"
    x, p = Tensor("x", "x", (-1, 4), "float32"), Tensor("probabilities", "probabilities", (-1, 3), "float32")
    path.write_bytes(b"rust")
    with pytest.raises(InstallError, match="ONNX Runtime"):
        load_runtime("onnxruntime").load(path, artifact("onnxruntime", x, p))
    path.write_bytes(onnx_model("n"))
    with pytest.raises(InstallError, match="tensors"):
        load_runtime("onnxruntime").load(path, artifact("onnxruntime", Tensor("x", "y", (-1, 4), "float32"), p))


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")  # The converter's own imports warn in dozens of ways.
def test_litert_keeps_the_contract_and_trains(tmp_path, caplog):
    caplog.set_level("INFO", "hedgerow")
    import litert_torch
    import torch

    class Served(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = torch.nn.Parameter(torch.tensor(WEIGHT)), torch.nn.Parameter(torch.tensor(BIAS))

        def forward(self, x):
            return torch.softmax(x @ self.weight + self.bias, dim=1)

    class Stepped(torch.nn.Module):
        def forward(self, x, labels, rate, weight, bias):
            logs = torch.log_softmax(x @ weight + bias, dim=1)
            wanted = (labels[:, None] == torch.arange(3)).float()
            gradient = (torch.exp(logs) - wanted) / 7
            return -(logs * wanted).sum() / 7, weight - rate * (x.T @ gradient), bias - rate * gradient.sum(dim=0)

    litert_torch.convert(Served().eval(), (torch.tensor(X[:1]),)).export(str(tmp_path / "m.tflite"))
    x, p = Tensor("x", "args_0", (1, 4), "float32"), Tensor("probabilities", "output_0", (1, 3), "float32")
    check_model(load_runtime("litert").load(tmp_path / "m.tflite", artifact("litert", x, p)))
    said = "the artifact for bench is run by ai_edge_litert, XNNPACK delegate"
    assert [record.message for record in caplog.records if record.name.startswith("hedgerow")] == [said]
    sample = (
        torch.tensor(X),
        torch.zeros(7, dtype=torch.int64),
        torch.zeros(1),
        torch.tensor(WEIGHT),
        torch.tensor(BIAS),
    )
    litert_torch.convert(Stepped().eval(), sample).export(str(tmp_path / "t.tflite"))
    names = (*(f"args_{i}" for i in range(5)), "output_0", "output_1", "output_2")
    # The converter turns 64-bit inputs into 32-bit ones.
    graph = train_graph("litert", names=names, lr_shape=(1,), label_dtype="int32")
    check_step(load_runtime("litert").load_train_graph(tmp_path / "t.tflite", graph))
    (tmp_path / "m.tflite").write_bytes(b"rust")
    with pytest.raises(InstallError, match="LiteRT"):
        load_runtime("litert").load(tmp_path / "m.tflite", artifact("litert", x, p))


@pytest.mark.heavy
@pytest.mark.parametrize("scale", [0.1, 0.037, 1 / 255])
def test_a_device_gives_the_bits_of_the_golden_samples_on_every_half_step(tmp_path, scale):
    """One int8 file, run by the compiler's runner, which writes golden samples, and by the agent's runtime."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    from hedgerow.compile.pass_models import CompiledModel
    from hedgerow.compile.runners.tflite import predict_tflite

    x, y, graph, model = schema.TensorT(), schema.TensorT(), schema.SubGraphT(), schema.ModelT()
    for each, name in ((x, "x"), (y, "y")):
        each.name, each.shape, each.type, each.buffer = name, [1, 1], schema.TensorType.INT8, 0
        each.quantization = schema.QuantizationParametersT()
        each.quantization.scale, each.quantization.zeroPoint = [scale], [-3]
    operator, code = schema.OperatorT(), schema.OperatorCodeT()
    operator.inputs, operator.outputs = [0], [1]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [x, y], [0], [1], [operator]
    model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, [schema.BufferT()], [graph], [code]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    content = bytes(builder.Output())
    (tmp_path / "m.tflite").write_bytes(content)
    taken, given = Tensor("x", "x", (1, 1), "int8", scale, -3), Tensor("y", "y", (1, 1), "int8", scale, -3)
    values = ((np.arange(-132, 133) + 0.5) * scale).astype(np.float32)[:, None]

    stage = CompiledModel(format="tflite", content=content, inputs=(taken,), outputs=(given,))
    golden = predict_tflite(stage, {"x": values})["y"]
    on_device = load_runtime("litert").load(tmp_path / "m.tflite", artifact("litert", taken, given))

    assert np.array_equal(on_device.predict({"x": values})["y"], golden)
    assert len(np.unique(golden)) > 50


def test_an_installed_package_brings_a_runtime_and_a_release_names_no_file(tmp_path, monkeypatch):
    module = "class Slow:\n    def load(self, path, artifact):\n        return path\nEMPTY = dict\n"
    points = {"hedgerow.runtimes": {"slow": "slow_runtime:Slow", "empty": "slow_runtime:EMPTY"}}
    install_distribution(tmp_path / "site", "slow_runtime", module, points)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "slow_runtime", raising=False)

    assert load_runtime("slow").load("model", None) == "model"
    assert {"slow", "empty"} <= set(available_runtimes())
    with pytest.raises(PluginError, match="expected a class with a method load, found dict"):
        load_runtime("empty")
    (tmp_path / "mine.py").write_text("class Mine:\n    def load(self, path, artifact): ...\n")
    for name in (f"{tmp_path}/mine.py:Mine", "slow_runtime:Slow"):
        with pytest.raises(UnknownNameError):
            load_runtime(name)


RUNTIMES_OF_OTHERS = """
class Good:
    def load(self, path, artifact):
        return path

class Needs(Good):
    def __init__(self, folder):
        self.folder = folder

class Leaves(Good):
    def __init__(self):
        raise SystemExit(0)

class Outer:
    Inner = Good

table = {"a": 1}
"""


def test_whatever_is_no_runtime_is_said_of_its_package(tmp_path, monkeypatch):
    named = ("Good [foo]", "Needs", "Leaves", "table", "Outer.Inner", "")
    points = {name.lower() or "module": f"odd_runtimes:{name}".rstrip(":") for name in named}
    points = {name.partition(" ")[0]: reference for name, reference in points.items()}
    install_distribution(tmp_path / "site", "odd_runtimes", RUNTIMES_OF_OTHERS, {"hedgerow.runtimes": points})
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "odd_runtimes", raising=False)

    assert load_runtime("good").load("model", None) == "model"
    assert load_runtime("outer.inner").load("model", None) == "model"
    for name, said in {
        "needs": "making it raised TypeError: .*folder.*; let it take no arguments, or correct it",
        "leaves": "making it raised SystemExit: 0; let it",
        "table": "expected a class with a method load, found dict",
        "module": "expected module:attribute",
    }.items():
        with pytest.raises(PluginError, match=f"^the runtime '{name}' cannot be used: {said}"):
            load_runtime(name)
