"""Train graphs of every kind of layer, loss and optimizer step as torch does. The whole table is a command."""

import json

import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402 - needs torch

from hedgerow.compile.train_graph.cases import CASES, make_source  # noqa: E402
from hedgerow.compile.train_graph.options import StepOptions  # noqa: E402
from hedgerow.compile.train_graph.parity import command, measure  # noqa: E402
from hedgerow.compile.train_graph.step import trace_step  # noqa: E402
from hedgerow.compile.train_graph.torch_training import TorchTraining  # noqa: E402
from hedgerow.errors import UnknownNameError  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # torch, litert-torch and their dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.mark.parametrize("name", sorted(set(CASES) - {"dropout", "squared error of values"}))
def test_every_case_traces_to_torchs_own_step(name):
    case = CASES[name]
    source = make_source(case)
    traced = trace_step(source, case.options)
    inputs, labels = (
        torch.from_numpy(source.calibration.inputs["x"][:4]),
        torch.from_numpy(source.calibration.labels[:4]),
    )
    _loss, *after = traced.graph(inputs, labels, *traced.arguments[2:])
    training = TorchTraining(source.task, source.model, case.options, case.rate)
    training.step([inputs], labels)
    wanted = training.weights()
    for tensor_name, value in zip(traced.updated, after, strict=False):
        assert torch.allclose(value, torch.from_numpy(wanted[tensor_name]), atol=1e-5), tensor_name


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
    ],
)
def test_an_exported_case_trains_as_torch_does(name, kind):
    found = measure(name, kind)
    assert found.passed, found


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
