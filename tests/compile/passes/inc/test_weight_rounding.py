import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neural_compressor")

from hedgerow.compile.errors import PassError, PassSettingsError  # noqa: E402 - needs torch
from hedgerow.compile.passes.inc.weight_rounding import WeightRoundingInc  # noqa: E402
from hedgerow.compile.passes.onnx.export import ExportOnnx  # noqa: E402
from hedgerow.compile.passes.onnx.quantize_weights import QuantizeOnnxWeights  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass, run_model_pass  # noqa: E402
from hedgerow.compile.runners.onnx import predict_onnx  # noqa: E402
from tests.compile.only import only  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def test_linear_weights_lie_on_fifteen_steps_in_each_block(source):
    rounded = run_model_pass(WeightRoundingInc(bits=4, block=32), source).model
    blocks = rounded.dense.weight.detach().reshape(-1, 32)
    assert max(len(torch.unique(block)) for block in blocks) <= 16
    assert not torch.equal(rounded.dense.weight, source.model.dense.weight)
    assert torch.equal(rounded.down[0].weight, source.model.down[0].weight)


def test_storing_them_loses_nothing_more(source, held_out):
    settings = {"bits": 4, "block": 32}
    rounded = run_model_pass(WeightRoundingInc(**settings), source)
    stage = run_file_pass(ExportOnnx(), rounded, None)
    # The convolutions are below the limit, so that the linear layers alone are stored.
    stored = run_file_pass(QuantizeOnnxWeights(**settings, minimum_elements=10_000), rounded, stage)
    wanted, found = only(predict_onnx(stage, held_out.inputs)), only(predict_onnx(stored, held_out.inputs))
    assert np.abs(wanted - found).max() < 1e-5
    assert len(stored.content) < 0.5 * len(stage.content)


def test_settings_and_models_without_linear_layers_are_refused(source):
    with pytest.raises(PassSettingsError, match="one of 4, 8"):
        run_model_pass(WeightRoundingInc(bits=3), source)
    with pytest.raises(PassError, match="no linear layer"):
        run_model_pass(WeightRoundingInc(bits=4), dataclasses.replace(source, model=torch.nn.Flatten()))
