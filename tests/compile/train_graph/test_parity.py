"""Train graphs of every kind of layer, loss and optimizer step as torch does. The whole table is a command."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402 - needs torch

from hedgerow.compile.train_graph.cases import CASES, make_source  # noqa: E402
from hedgerow.compile.train_graph.export import as_loss_takes, export_train_graph  # noqa: E402
from hedgerow.compile.train_graph.options import StepOptions  # noqa: E402
from hedgerow.compile.train_graph.parity import command, compare, measure, rounding_growth  # noqa: E402
from hedgerow.compile.train_graph.step import trace_step  # noqa: E402
from hedgerow.compile.train_graph.torch_training import TorchTraining  # noqa: E402
from hedgerow.errors import UnknownNameError  # noqa: E402
from hedgerow.task_module import model_weights  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # torch, litert-torch and their dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.mark.parametrize("for_tflite", [False, True])
@pytest.mark.parametrize("name", sorted(set(CASES) - {"dropout", "squared error of values", "two outputs of values"}))
def test_every_case_traces_to_torchs_own_step(name, for_tflite):
    case = CASES[name]
    source = make_source(case)
    traced = trace_step(source, case.options, for_tflite=for_tflite)
    batch = source.calibration.take(range(4))
    inputs, wanted = torch.from_numpy(batch.inputs["x"]), source.task.wanted(batch)
    rate = 1 + len(traced.targets)
    targets = [
        torch.from_numpy(wanted[name]).to(example.dtype)
        for name, example in zip(traced.targets, traced.arguments[1:rate], strict=True)
    ]
    _loss, *after = traced.graph(inputs, *targets, *traced.arguments[rate:])
    training = TorchTraining(source.task, source.model, case.options, case.rate)
    training.step([inputs], as_loss_takes(wanted))
    wanted = training.weights()
    for tensor_name, value in zip(traced.updated, after, strict=False):
        assert torch.allclose(value, torch.from_numpy(wanted[tensor_name]), atol=1e-5), tensor_name


@pytest.mark.parametrize("name", ["linear", "batch norm 2d, train", "residual network"])
def test_rounding_grows_to_some_units_in_the_last_place_of_a_net_that_does_not_blow_it_up(name):
    source, options = make_source(CASES[name]), CASES[name].options
    file = export_train_graph(source, "onnx", options)
    before = model_weights(source.model)

    # One unit in the last place of a float32 is between 6e-8 and 1.2e-7 of it.
    assert 5e-8 < rounding_growth(source, file, options, 1) < 5e-7
    assert 5e-8 < rounding_growth(source, file, options, 20) < 5e-6
    assert all(np.array_equal(before[tensor], value) for tensor, value in model_weights(source.model).items())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dropout", "onnx"),
        ("gru", "onnx"),
        ("lstm", "tflite"),
        ("lstm, projection", "tflite"),
        ("rnn, relu, no biases", "onnx"),
        ("adapters only", "onnx"),
        ("head only", "tflite"),
        ("silu", "tflite"),
        ("binary cross-entropy", "tflite"),
        ("embedding", "tflite"),
        ("adam, proximal and control", "tflite"),
        ("squared error of values", "tflite"),
        ("batch norm 2d, train", "tflite"),
        ("transposed conv2d groups", "tflite"),
        ("transposed conv2d stride", "onnx"),
        ("up-sampling, bilinear, corners", "tflite"),
        ("up-sampling, nearest, uneven", "onnx"),
        ("circular padding", "tflite"),
        ("residual network", "tflite"),
        ("conv2d dilation", "tflite"),
        ("conv1d stride", "tflite"),
        ("prelu", "tflite"),
        ("focal, by gather", "tflite"),
        ("focal, by index", "onnx"),
        ("focal", "tflite"),
        ("values, huber", "onnx"),
        ("values, absolute error", "tflite"),
        ("labels, focal", "tflite"),
        ("tokens with padding", "tflite"),
        ("reconstruction", "onnx"),
        ("an output of one's own", "tflite"),
        ("two outputs", "tflite"),
        ("two outputs, one without target values", "tflite"),
        ("two outputs of values", "onnx"),
    ],
)
def test_an_exported_case_trains_as_torch_does(name, kind):
    found = measure(name, kind)
    assert found.passed, found


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_shared_weight_is_one_tensor_of_the_file_under_each_of_its_names(kind):
    case = CASES["shared weights"]
    source = make_source(case)
    file = export_train_graph(source, kind, case.options)
    taken = {tensor.name: tensor.tensor for tensor in file.parameters}
    given = {tensor.name: tensor.tensor for tensor in file.updated}
    assert set(taken) == set(given) == set(source.model.state_dict())
    assert taken["back.weight"] == taken["words.weight"]
    assert given["back.weight"] == given["words.weight"]
    assert len(set(taken.values())) == len(set(given.values())) == len(list(source.model.parameters()))
    assert [extra.parameter for extra in file.extras].count(None) == len(file.extras) == 5
    one, many, _ms = compare(source, file, case.options, 20)
    assert one <= 1e-5
    assert many <= 1e-3


def test_what_a_loss_does_not_look_at_is_no_input_of_the_graph():
    both, alone = (trace_step(make_source(CASES[name])).targets for name in ("two outputs", "reconstruction"))
    assert (both, alone) == (("kind", "numbers"), ())
    assert trace_step(make_source(CASES["two outputs, one without target values"])).targets == ("kind",)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_target_values_travel_under_the_names_of_their_outputs(kind):
    file = export_train_graph(make_source(CASES["two outputs"]), kind)
    found = {tensor.name: (tensor.dtype, tensor.shape) for tensor in file.targets}
    assert found == {
        "kind": ("int64" if kind == "onnx" else "int32", (4,)),
        "numbers": ("float32", (4, 2)),
    }
    if kind == "onnx":
        assert [tensor.tensor for tensor in file.targets] == ["target.kind", "target.numbers"]


def test_a_shared_weight_trains_under_whichever_name_is_chosen():
    case = CASES["shared weights"]
    source = make_source(case)
    traced = trace_step(source, StepOptions(trainable=("back.*",)))
    assert traced.updated == ("words.weight",)
    assert traced.aliases == {"back.weight": "words.weight"}


def test_a_device_trains_shared_weights_as_one(tmp_path):
    """The agent's own runtime and loop, on the graph's file, against torch."""
    from hedgerow.client.runtimes.ort import OrtRuntime
    from hedgerow.manifest.content import Blob
    from hedgerow.manifest.train_graph import TrainGraph

    case = CASES["shared weights"]
    source = make_source(case)
    file = export_train_graph(source, "onnx")
    path = tmp_path / "graph.onnx"
    path.write_bytes(file.content)
    blob = Blob(sha256="0" * 64, length_bytes=len(file.content))
    graph = TrainGraph(
        format=file.format,
        runtime=file.runtime,
        blob=blob,
        batch_size=file.batch_size,
        inputs=file.inputs,
        targets=file.targets,
        learning_rate=file.learning_rate,
        loss=file.loss,
        parameters=file.parameters,
        updated=file.updated,
    )
    step = OrtRuntime().load_train_graph(path, graph)
    inputs, labels = source.calibration.inputs["x"][:4], source.calibration.target_values[:4]
    weights = model_weights(source.model)
    _loss, found = step({"x": inputs}, {"probabilities": labels}, 0.05, weights)
    training = TorchTraining(source.task, source.model, StepOptions(), 0.05)
    training.step([torch.from_numpy(inputs)], torch.from_numpy(labels))
    wanted = training.weights()
    assert set(found) == set(wanted)
    for name, value in found.items():
        assert np.abs(value - wanted[name]).max() <= 1e-5, name


def test_the_command_prints_one_json_object():
    result = CliRunner().invoke(command, ["--case", "sgd", "--format", "onnx", "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout.splitlines()[-1])["rows"]
    assert row["passed"]
    assert {"case", "kind", "format", "one_step", "many_steps", "size_bytes", "step_ms", "refused"} < set(row)


def test_only_what_changes_comes_back_when_a_choice_is_made():
    traced = trace_step(make_source(CASES["head only"]), CASES["head only"].options)
    assert traced.updated
    assert all(name.startswith("3.") for name in traced.updated)
    assert not any(name.endswith("num_batches_tracked") for name in traced.names)


def test_a_choice_of_nothing_is_refused():
    source = make_source(CASES["sgd"])
    with pytest.raises(UnknownNameError):
        trace_step(source, StepOptions(trainable=("tail.*",)))
