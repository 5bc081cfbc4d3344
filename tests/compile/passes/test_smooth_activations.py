import dataclasses

import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.errors import PassError  # noqa: E402 - needs torch
from hedgerow.compile.passes.export_onnx import export_onnx  # noqa: E402
from hedgerow.compile.passes.quantize_onnx import quantize_onnx_static  # noqa: E402
from hedgerow.compile.passes.smooth_activations import smooth_activations  # noqa: E402
from hedgerow.compile.runners.onnx import predict_onnx  # noqa: E402
from hedgerow.compile.verify import signal_to_noise_db  # noqa: E402
from hedgerow.task_module import predict  # noqa: E402
from tests.compile.passes.networks import same_weights  # noqa: E402

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def with_outliers(source):
    """The source with one activation a hundred times the others, and a model that computes what it did."""
    import copy

    model = copy.deepcopy(source.model)
    with torch.no_grad():
        model.dense.weight[3] *= 100
        model.dense.bias[3] *= 100
        model.head.weight[:, 3] /= 100
    return dataclasses.replace(source, model=model)


def test_the_function_stays_the_same(source, held_out):
    wanted = predict(source.task, source.model, held_out.inputs)
    smooth = smooth_activations(source, {"alpha": 0.5})
    assert abs(predict(source.task, smooth.model, held_out.inputs) - wanted).max() < 1e-5
    assert not same_weights(smooth.model, source.model)


def test_outliers_of_activations_cost_int8_less(source, held_out):
    outlying = with_outliers(source)
    wanted = predict(source.task, outlying.model, held_out.inputs)

    def snr_db(one):
        stage = quantize_onnx_static(
            one, export_onnx(one, None, {}), {"activations": "int8", "per_channel": True}
        )
        return signal_to_noise_db(wanted, predict_onnx(stage, held_out.inputs))

    assert snr_db(smooth_activations(outlying, {"alpha": 0.5})) > snr_db(outlying) + 6


def test_it_is_deterministic(source):
    assert same_weights(smooth_activations(source, {}).model, smooth_activations(source, {}).model)


def test_a_model_without_linear_layers_is_refused(source):
    with pytest.raises(PassError, match="no linear layer"):
        smooth_activations(dataclasses.replace(source, model=torch.nn.Flatten()), {})
