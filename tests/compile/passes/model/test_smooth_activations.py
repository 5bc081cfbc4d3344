import copy
import dataclasses

import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.errors import PassError  # noqa: E402 - needs torch
from hedgerow.compile.passes.model.smooth_activations import SmoothActivations  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass, run_model_pass  # noqa: E402
from hedgerow.compile.runners.onnx import predict_onnx  # noqa: E402
from hedgerow.compile.scoring import signal_to_noise_db  # noqa: E402
from hedgerow.task_module import predict  # noqa: E402
from tests.compile.only import only  # noqa: E402
from tests.compile.passes.networks import same_weights  # noqa: E402

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


def test_the_function_stays_the_same(source, held_out):
    wanted = only(predict(source.task, source.model, held_out.inputs))
    smooth = run_model_pass(SmoothActivations(alpha=0.5), source)
    assert abs(only(predict(source.task, smooth.model, held_out.inputs)) - wanted).max() < 1e-5
    assert not same_weights(smooth.model, source.model)


def test_outliers_of_activations_move_into_the_weights(source):
    model = copy.deepcopy(source.model)
    with torch.no_grad():
        model.dense.weight[3].abs_().mul_(100)
        model.head.weight[:, 3] /= 100
    outlying = dataclasses.replace(source, model=model)
    smooth = run_model_pass(SmoothActivations(alpha=0.5), outlying).model
    divide, head = smooth.head
    assert float(divide.factors[3]) < 0.02 * float(divide.factors.median())
    assert torch.allclose(head.weight * divide.factors, model.head.weight, rtol=1e-5)


def test_its_file_is_smaller_than_float_with_neural_compressor(source, onnx_stage, held_out):
    pytest.importorskip("neural_compressor")
    from hedgerow.compile.passes.inc.quantize_static import QuantizeIncStatic
    from hedgerow.compile.passes.onnx.fold import FoldOnnx

    smooth = run_model_pass(SmoothActivations(alpha=0.5), source)
    stage = run_file_pass(FoldOnnx(), smooth, run_file_pass(QuantizeIncStatic(), smooth, None))
    assert len(stage.content) < 0.45 * len(onnx_stage.content)
    assert (
        signal_to_noise_db(only(predict_onnx(onnx_stage, held_out.inputs)), only(predict_onnx(stage, held_out.inputs)))
        > 25
    )


def test_it_is_deterministic(source):
    assert same_weights(
        run_model_pass(SmoothActivations(), source).model, run_model_pass(SmoothActivations(), source).model
    )


def test_a_model_without_linear_layers_is_refused(source):
    with pytest.raises(PassError, match="no linear layer"):
        run_model_pass(SmoothActivations(), dataclasses.replace(source, model=torch.nn.Flatten()))
