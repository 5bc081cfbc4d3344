import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.errors import PassError  # noqa: E402 - needs torch
from hedgerow.compile.passes.quantize_onnx import quantize_onnx_static  # noqa: E402
from hedgerow.compile.passes.export_onnx import export_onnx  # noqa: E402
from hedgerow.compile.passes.train_quantized import train_quantized  # noqa: E402
from hedgerow.compile.runners.onnx import predict_onnx  # noqa: E402
from hedgerow.compile.verify import signal_to_noise_db  # noqa: E402
from hedgerow.task_module import predict  # noqa: E402
from tests.compile.passes.networks import Reader, accuracy_of, same_weights  # noqa: E402

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SETTINGS = {"epochs": 1, "learning_rate": 0.0005}


def coarse(source):
    """The source with a model that int8 hurts: one output channel of a layer is sixty times the others.

    The layer before it makes up for that, so that the float model computes what it did.
    """
    import copy

    model = copy.deepcopy(source.model)
    with torch.no_grad():
        model.dense.weight[0] *= 60
        model.dense.bias[0] *= 60
        model.head.weight[:, 0] /= 60
    return dataclasses.replace(source, model=model)


def int8_snr_db(source, data):
    stage = quantize_onnx_static(source, export_onnx(source, None, {}), {"activations": "int8"})
    return signal_to_noise_db(predict(source.task, source.model, data.inputs), predict_onnx(stage, data.inputs))


def test_a_model_that_int8_hurts_learns_to_live_with_it(source, held_out):
    hurt = coarse(source)
    assert np.allclose(
        predict(source.task, hurt.model, held_out.inputs), predict(source.task, source.model, held_out.inputs), atol=1e-4
    )
    trained = train_quantized(hurt, {"epochs": 2, "learning_rate": 0.002})
    int8 = {
        name: np.mean(
            predict_onnx(
                quantize_onnx_static(one, export_onnx(one, None, {}), {"activations": "int8"}), held_out.inputs
            ).argmax(1)
            == held_out.labels
        )
        for name, one in (("hurt", hurt), ("trained", trained))
    }
    assert int8["trained"] > int8["hurt"] + 0.02
    assert int8["trained"] > accuracy_of(source, held_out) - 0.02


def test_running_statistics_stay_as_they_are_and_weights_move(source):
    trained = train_quantized(source, SETTINGS).model
    assert torch.equal(trained.stem[1].running_mean, source.model.stem[1].running_mean)
    assert not torch.equal(trained.head.weight, source.model.head.weight)


def test_what_comes_out_is_the_same_float_model_without_rounding_inside(source):
    trained = train_quantized(source, SETTINGS).model
    assert [name for name, _part in trained.named_modules()] == [name for name, _part in source.model.named_modules()]
    assert trained.state_dict().keys() == source.model.state_dict().keys()


def test_it_is_deterministic_and_leaves_its_model_alone(source):
    before = {name: value.clone() for name, value in source.model.state_dict().items()}
    one = train_quantized(source, SETTINGS).model
    torch.manual_seed(9)
    assert same_weights(one, train_quantized(source, SETTINGS).model)
    assert all(torch.equal(value, before[name]) for name, value in source.model.state_dict().items())


def test_attention_and_layer_norm_train_too(source):
    torch.manual_seed(0)
    reader = dataclasses.replace(source, model=Reader().eval())
    trained = train_quantized(reader, SETTINGS).model
    assert not torch.equal(trained.mixed.weight, reader.model.mixed.weight)


def test_without_training_data_it_says_so(source):
    with pytest.raises(PassError, match="train-quantized: .* no training data"):
        train_quantized(dataclasses.replace(source, train=None), SETTINGS)
