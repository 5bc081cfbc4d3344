import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neural_compressor")

from hedgerow.compile.errors import PassError, PassSettingsError  # noqa: E402 - needs torch
from hedgerow.compile.passes.inc.round_weights import round_weights_inc  # noqa: E402
from hedgerow.compile.passes.onnx.export import export_onnx  # noqa: E402
from hedgerow.compile.passes.onnx.quantize_weights import quantize_onnx_weights  # noqa: E402
from hedgerow.compile.runners.onnx import predict_onnx  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def test_linear_weights_lie_on_fifteen_steps_in_each_block(source):
    rounded = round_weights_inc(source, {"bits": 4, "block": 32}).model
    blocks = rounded.dense.weight.detach().reshape(-1, 32)
    assert max(len(torch.unique(block)) for block in blocks) <= 16
    assert not torch.equal(rounded.dense.weight, source.model.dense.weight)
    assert torch.equal(rounded.down[0].weight, source.model.down[0].weight)


def test_storing_them_loses_nothing_more(source, held_out):
    settings = {"bits": 4, "block": 32}
    rounded = round_weights_inc(source, settings)
    stage = export_onnx(rounded, None, {})
    # The convolutions are below the limit, so that the linear layers alone are stored.
    stored = quantize_onnx_weights(rounded, stage, {**settings, "minimum_elements": 10_000})
    wanted, found = predict_onnx(stage, held_out.inputs), predict_onnx(stored, held_out.inputs)
    assert np.abs(wanted - found).max() < 1e-5
    assert len(stored.content) < 0.5 * len(stage.content)


def test_settings_and_models_without_linear_layers_are_refused(source):
    with pytest.raises(PassSettingsError, match="one of 4, 8"):
        round_weights_inc(source, {"bits": 3})
    with pytest.raises(PassError, match="no linear layer"):
        round_weights_inc(dataclasses.replace(source, model=torch.nn.Flatten()), {"bits": 4})
