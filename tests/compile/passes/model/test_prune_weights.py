import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.errors import PassError, PassSettingsError  # noqa: E402 - needs torch
from hedgerow.compile.passes.model.prunable import prunable_weights  # noqa: E402
from hedgerow.compile.passes.model.prune_weights import prune_weights  # noqa: E402
from hedgerow.compile.passes.onnx.export import export_onnx  # noqa: E402
from tests.compile.passes.networks import same_weights  # noqa: E402

pytestmark = pytest.mark.heavy


def test_every_layer_loses_exactly_its_share_of_smallest_weights(source):
    before = dict(prunable_weights(source.model))
    for name, value in prunable_weights(prune_weights(source, {"share": 0.6}).model):
        gone = value == 0
        assert int(gone.sum()) == int(0.6 * value.numel())
        assert before[name][gone].abs().max() <= before[name][~gone].abs().min()
        assert torch.equal(value[~gone], before[name][~gone])


def test_over_the_whole_model_the_share_is_exact_and_layers_differ(source):
    weights = prunable_weights(prune_weights(source, {"share": 0.6, "scope": "model"}).model)
    total = sum(value.numel() for _name, value in weights)
    assert sum(int((value == 0).sum()) for _name, value in weights) == int(0.6 * total)
    shares = {name: float((value == 0).float().mean()) for name, value in weights}
    assert max(shares.values()) - min(shares.values()) > 0.2


def test_the_zeros_are_in_the_exported_file(source):
    import onnx

    model = onnx.load_model_from_string(export_onnx(prune_weights(source, {"share": 0.75}), None, {}).content)
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if len(t.dims) > 1]
    assert np.mean(np.concatenate([value.ravel() for value in weights]) == 0) > 0.74


def test_it_is_deterministic(source):
    assert same_weights(prune_weights(source, {"share": 0.5}).model, prune_weights(source, {"share": 0.5}).model)


@pytest.mark.parametrize("wrong", [{"share": 1.0}, {"share": -0.1}, {"share": 0.5, "scope": "file"}, {}])
def test_settings_are_checked(source, wrong):
    with pytest.raises(PassSettingsError):
        prune_weights(source, wrong)


def test_a_model_without_weights_is_refused(source):
    import dataclasses

    with pytest.raises(PassError, match="no matrix or kernel"):
        prune_weights(dataclasses.replace(source, model=torch.nn.Flatten()), {"share": 0.5})
