"""Every layer of torch either has a train graph or is in the list of those that are refused by name."""

from collections.abc import Sequence
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
    case_of_all,
    untranslated_text,
)
from hedgerow.compile.train_graph.export import export_train_graph, largest_difference  # noqa: E402
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
HALVES = [
    (name, kind)
    for name, listed in sorted(REFUSED.items())
    for kind in ("onnx", "tflite")
    if kind not in listed.formats
]
AT_ONCE = 6
# The example of Transformer is made of these; exporting them once more, alone, would take half a minute.
INSIDE_TRANSFORMER = {"TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer"}


def names_of_torch() -> set[str]:
    module = torch.nn.Module
    found = {name for name, value in vars(torch.nn).items() if isinstance(value, type) and issubclass(value, module)}
    return {name for name in found if not name.endswith("Loss")} - NO_LAYERS


def groups() -> list[Sequence[str]]:
    """Return the layers' names, some of one input at a time: each export has its start to pay for."""
    alike: dict[object, list[str]] = {}
    for name, (_layer, given) in LAYERS.items():
        if name not in INSIDE_TRANSFORMER:
            alike.setdefault(given, []).append(name)
    return [names[first : first + AT_ONCE] for names in alike.values() for first in range(0, len(names), AT_ONCE)]


def test_every_layer_of_torch_is_in_one_of_the_tables():
    assert names_of_torch() == set(LAYERS) | {name for name in REFUSED if name.isalnum()}
    assert not set(LAYERS) & set(REFUSED)


@pytest.mark.parametrize("for_tflite", [False, True])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_layer_traces_to_torchs_own_step(name, for_tflite):
    case = case_of(*LAYERS[name])
    source = make_source(case)
    traced = trace_step(source, case.options, for_tflite=for_tflite)
    inputs = torch.from_numpy(source.calibration.inputs["x"][:4])
    labels = torch.from_numpy(source.calibration.target_values[:4])
    _loss, *after = traced.graph(inputs, labels.to(traced.arguments[1].dtype), *traced.arguments[2:])
    training = TorchTraining(source.task, source.model, case.options, case.rate)
    training.step([inputs], labels)
    wanted = training.weights()
    assert "head.weight" in traced.updated
    for tensor, value in zip(traced.updated, after, strict=True):
        np.testing.assert_allclose(value.detach().numpy(), wanted[tensor], atol=1e-6, err_msg=tensor)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("names", groups(), ids=lambda names: f"{names[0]} to {names[-1]}")
def test_exported_layers_step_as_torch_does(names, kind):
    case = case_of_all(names)
    source = make_source(case)
    if "Transformer" in names:
        assert {type(part).__name__ for part in source.model.modules()} >= INSIDE_TRANSFORMER
    file = export_train_graph(source, kind, case.options)
    heads = {f"parts.{place}.head.weight" for place in range(len(names))}
    assert heads <= {tensor.name for tensor in file.updated}
    assert largest_difference(source, file, source.calibration, case.options) <= 1e-5


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, listed in sorted(REFUSED.items()) for kind in listed.formats]
)
def test_what_is_listed_is_refused_by_its_name(name, kind):
    listed = REFUSED[name]
    source = make_source(case_of(listed.layer, listed.given, listed.options))
    with pytest.raises(UntranslatableError) as caught:
        export_train_graph(source, kind, listed.options)
    assert str(caught.value).startswith("the train graph cannot hold the operators ")
    assert any(listed.said in operator for operator in caught.value.operators)


@pytest.mark.parametrize(("name", "kind"), HALVES)
def test_what_one_format_refuses_steps_in_the_other_as_torch_does(name, kind):
    listed = REFUSED[name]
    source = make_source(case_of(listed.layer, listed.given, listed.options))
    file = export_train_graph(source, kind, listed.options)
    assert largest_difference(source, file, source.calibration, listed.options) <= 1e-5


def test_the_documentation_lists_just_these():
    text = (Path(__file__).parents[3] / "docs" / "train-graph.md").read_text()
    assert untranslated_text() in " ".join(text.split())
