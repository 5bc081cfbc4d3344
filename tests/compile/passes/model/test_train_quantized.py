import copy
import dataclasses

import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.errors import PassError  # noqa: E402 - needs torch
from hedgerow.compile.passes.model.fine_tune import FineTune  # noqa: E402
from hedgerow.compile.passes.model.train_quantized import TrainQuantized  # noqa: E402
from hedgerow.compile.passes.onnx.export import ExportOnnx  # noqa: E402
from hedgerow.compile.passes.onnx.quantize_static import QuantizeOnnxStatic  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass, run_model_pass  # noqa: E402
from hedgerow.compile.runners.onnx import predict_onnx  # noqa: E402
from hedgerow.compile.scoring import signal_to_noise_db  # noqa: E402
from hedgerow.task_module import predict  # noqa: E402
from tests.compile.only import only  # noqa: E402
from tests.compile.passes.networks import Reader, accuracy_of, same_weights  # noqa: E402

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SETTINGS = {"epochs": 1, "learning_rate": 0.0005}


def uneven(source):
    """The source with a model that computes what it did, but with one activation that is a hundred times the others."""
    model = copy.deepcopy(source.model)
    channel = int(model.head.weight.abs().sum(dim=0).argmax())
    with torch.no_grad():
        model.dense.weight[channel] *= 100
        model.dense.bias[channel] *= 100
        model.head.weight[:, channel] /= 100
    return dataclasses.replace(source, model=model)


def int8_snr_db(source, data):
    stage = run_file_pass(QuantizeOnnxStatic(activations="int8"), source, run_file_pass(ExportOnnx(), source, None))
    return signal_to_noise_db(
        only(predict(source.task, source.model, data.inputs)), only(predict_onnx(stage, data.inputs))
    )


def test_int8_costs_less_than_after_the_same_training_without_rounding(source, held_out):
    settings = {"epochs": 2, "learning_rate": 0.002}
    plain, rounded = (
        run_model_pass(FineTune(**settings), uneven(source)),
        run_model_pass(TrainQuantized(**settings), uneven(source)),
    )
    assert int8_snr_db(rounded, held_out) > int8_snr_db(plain, held_out) + 1
    assert accuracy_of(rounded, held_out) > accuracy_of(source, held_out) - 0.03


def test_running_statistics_stay_as_they_are_and_weights_move(source):
    trained = run_model_pass(TrainQuantized(**SETTINGS), source).model
    assert torch.equal(trained.stem[1].running_mean, source.model.stem[1].running_mean)
    assert not torch.equal(trained.head.weight, source.model.head.weight)


def test_what_comes_out_is_the_same_float_model_without_rounding_inside(source):
    trained = run_model_pass(TrainQuantized(**SETTINGS), source).model
    assert [name for name, _part in trained.named_modules()] == [name for name, _part in source.model.named_modules()]
    assert trained.state_dict().keys() == source.model.state_dict().keys()


def test_it_is_deterministic_and_leaves_its_model_alone(source):
    before = {name: value.clone() for name, value in source.model.state_dict().items()}
    one = run_model_pass(TrainQuantized(**SETTINGS), source).model
    torch.manual_seed(9)
    assert same_weights(one, run_model_pass(TrainQuantized(**SETTINGS), source).model)
    assert all(torch.equal(value, before[name]) for name, value in source.model.state_dict().items())


def test_attention_and_layer_norm_train_too(source):
    torch.manual_seed(0)
    reader = dataclasses.replace(source, model=Reader().eval())
    trained = run_model_pass(TrainQuantized(**SETTINGS), reader).model
    assert not torch.equal(trained.mixed.weight, reader.model.mixed.weight)


def test_without_training_data_it_says_so(source):
    with pytest.raises(PassError, match=r"train-quantized: .* no training data"):
        run_model_pass(TrainQuantized(**SETTINGS), dataclasses.replace(source, train=None))
