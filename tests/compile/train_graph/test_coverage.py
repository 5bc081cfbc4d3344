"""Every layer of torch either traces to torch's own step or is in the list of those that are refused by name."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.errors import UntranslatableError  # noqa: E402 - needs torch
from hedgerow.compile.train_graph.cases import make_source  # noqa: E402
from hedgerow.compile.train_graph.coverage import (  # noqa: E402
    LAYERS,
    UNTRANSLATED,
    case_of,
    untranslated_text,
)
from hedgerow.compile.train_graph.export import export_train_graph  # noqa: E402
from hedgerow.compile.train_graph.step import trace_step  # noqa: E402
from hedgerow.compile.train_graph.torch_training import TorchTraining  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # torch, litert-torch and their dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
NO_LAYERS = {
    *("Module", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "Container"),
    *("DataParallel", "RNNBase", "RNNCellBase", "NLLLoss2d"),
}
REFUSED = {name: listed for group in UNTRANSLATED.values() for name, listed in group.items()}


def names_of_torch() -> set[str]:
    module = torch.nn.Module
    found = {name for name, value in vars(torch.nn).items() if isinstance(value, type) and issubclass(value, module)}
    return {name for name in found if not name.endswith("Loss")} - NO_LAYERS


def test_every_layer_of_torch_is_in_one_of_the_tables():
    assert names_of_torch() == set(LAYERS) | {name for name in REFUSED if "," not in name}
    assert not set(LAYERS) & set(REFUSED)


@pytest.mark.parametrize("for_tflite", [False, True])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_layer_traces_to_torchs_own_step(name, for_tflite):
    case = case_of(*LAYERS[name])
    source = make_source(case)
    traced = trace_step(source, case.options, for_tflite=for_tflite)
    inputs = torch.from_numpy(source.calibration.inputs["x"][:4])
    labels = torch.from_numpy(source.calibration.labels[:4])
    _loss, *after = traced.graph(inputs, labels.to(traced.arguments[1].dtype), *traced.arguments[2:])
    training = TorchTraining(source.task, source.model, case.options, case.rate)
    training.step([inputs], labels)
    wanted = training.weights()
    assert "head.weight" in traced.updated
    for tensor, value in zip(traced.updated, after, strict=True):
        np.testing.assert_allclose(value.detach().numpy(), wanted[tensor], atol=1e-6, err_msg=tensor)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_listed_is_refused_by_its_name(name, kind):
    listed = REFUSED[name]
    source = make_source(case_of(listed.layer, listed.given, listed.options))
    with pytest.raises(UntranslatableError) as caught:
        export_train_graph(source, kind, listed.options)
    assert str(caught.value).startswith("the train graph cannot hold the operators ")
    assert any(listed.said in operator for operator in caught.value.operators)


def test_the_documentation_lists_just_these():
    text = (Path(__file__).parents[3] / "docs" / "train-graph.md").read_text()
    assert untranslated_text() in " ".join(text.split())
