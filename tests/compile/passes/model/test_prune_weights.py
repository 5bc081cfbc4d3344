import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.errors import PassError, PassSettingsError  # noqa: E402 - needs torch
from hedgerow.compile.passes.model.prunable import prunable_weights  # noqa: E402
from hedgerow.compile.passes.model.prune_weights import PruneWeights  # noqa: E402
from hedgerow.compile.passes.onnx.export import ExportOnnx  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass, run_model_pass  # noqa: E402
from tests.compile.passes.networks import same_weights  # noqa: E402

pytestmark = pytest.mark.heavy


def test_every_layer_loses_exactly_its_share_of_smallest_weights(source):
    before = dict(prunable_weights(source.model))
    for name, value in prunable_weights(run_model_pass(PruneWeights(share=0.6), source).model):
        gone = value == 0
        assert int(gone.sum()) == int(0.6 * value.numel())
        assert before[name][gone].abs().max() <= before[name][~gone].abs().min()
        assert torch.equal(value[~gone], before[name][~gone])


def test_over_the_whole_model_the_share_is_exact_and_layers_differ(source):
    weights = prunable_weights(run_model_pass(PruneWeights(share=0.6, scope="model"), source).model)
    total = sum(value.numel() for _name, value in weights)
    assert sum(int((value == 0).sum()) for _name, value in weights) == int(0.6 * total)
    shares = {name: float((value == 0).float().mean()) for name, value in weights}
    assert max(shares.values()) - min(shares.values()) > 0.2


def test_the_zeros_are_in_the_exported_file(source):
    import onnx

    model = onnx.load_model_from_string(
        run_file_pass(ExportOnnx(), run_model_pass(PruneWeights(share=0.75), source), None).content
    )
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if len(t.dims) > 1]
    assert np.mean(np.concatenate([value.ravel() for value in weights]) == 0) > 0.74


def test_it_is_deterministic(source):
    assert same_weights(
        run_model_pass(PruneWeights(share=0.5), source).model, run_model_pass(PruneWeights(share=0.5), source).model
    )


@pytest.mark.parametrize("wrong", [{"share": 1.0}, {"share": -0.1}, {"share": 0.5, "scope": "file"}, {}])
def test_settings_are_checked(wrong):
    with pytest.raises(PassSettingsError):
        PruneWeights(**wrong)


def test_a_model_without_weights_is_refused(source):
    import dataclasses

    with pytest.raises(PassError, match="no matrix or kernel"):
        run_model_pass(PruneWeights(share=0.5), dataclasses.replace(source, model=torch.nn.Flatten()))
