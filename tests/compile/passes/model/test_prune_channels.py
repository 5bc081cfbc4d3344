import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from hedgerow.compile.errors import PassSettingsError, UnsuitableError  # noqa: E402 - needs torch
from hedgerow.compile.passes.model.fine_tune import FineTune  # noqa: E402
from hedgerow.compile.passes.model.macs import count_macs  # noqa: E402
from hedgerow.compile.passes.model.prune_channels import PruneChannels  # noqa: E402
from hedgerow.compile.passes.onnx.export import ExportOnnx  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass, run_model_pass  # noqa: E402
from tests.compile.passes.networks import Reader, accuracy_of, parameters, same_weights  # noqa: E402

pytestmark = pytest.mark.heavy

HALF = {"share": 0.5, "round_to": 4}


def test_channels_are_gone_with_everything_that_depends_on_them(source):
    model = run_model_pass(PruneChannels(**HALF), source).model
    # The stem, the depthwise and the pointwise convolution meet in the residual addition: they narrow together.
    assert [layer.out_channels for layer in (model.stem[0], model.depth[0], model.point[0])] == [8, 8, 8]
    assert model.depth[0].groups == 8
    assert model.stem[1].running_mean.shape == (8,)
    assert (model.down[0].in_channels, model.down[0].out_channels) == (8, 16)
    assert (model.dense.in_features, model.dense.out_features) == (16 * 16, 16)
    assert model.head.out_features == 10


def test_multiplications_parameters_and_bytes_shrink(source, onnx_stage):
    pruned = run_model_pass(PruneChannels(**HALF), source)
    assert count_macs(source, pruned.model) < 0.35 * count_macs(source, source.model)
    assert parameters(pruned.model) < 0.35 * parameters(source.model)
    assert len(run_file_pass(ExportOnnx(), pruned, None).content) < 0.5 * len(onnx_stage.content)


def test_fine_tuning_brings_the_accuracy_back(source, held_out):
    tuned = run_model_pass(FineTune(epochs=4, learning_rate=0.004), run_model_pass(PruneChannels(**HALF), source))
    assert accuracy_of(tuned, held_out) > accuracy_of(source, held_out) - 0.04


def test_it_is_deterministic_and_leaves_its_model_alone(source):
    before = {name: value.clone() for name, value in source.model.state_dict().items()}
    assert same_weights(
        run_model_pass(PruneChannels(**HALF), source).model, run_model_pass(PruneChannels(**HALF), source).model
    )
    assert all(torch.equal(value, before[name]) for name, value in source.model.state_dict().items())


def test_layers_whose_width_is_written_into_the_code_keep_it(source):
    """torch-pruning cannot see that attention's width is fixed: the dense part alone gets narrower."""
    torch.manual_seed(0)
    reader = dataclasses.replace(source, model=Reader().eval())
    model = run_model_pass(PruneChannels(**HALF), reader).model
    assert model.wide.out_features == model.narrow.in_features == 32
    assert (model.embed.out_features, model.mixed.out_features) == (16, 48)
    assert count_macs(source, model) < count_macs(source, reader.model)


def test_a_model_in_which_no_channel_can_go_is_refused(source):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    with pytest.raises(UnsuitableError, match="found 640 multiplications before and 640 after"):
        run_model_pass(PruneChannels(**HALF), dataclasses.replace(source, model=model))


@pytest.mark.parametrize("wrong", [{"share": 0.99}, {"share": 0.5, "round_to": 0}, {"share": 0.5, "scope": "all"}])
def test_settings_are_checked(wrong):
    with pytest.raises(PassSettingsError):
        PruneChannels(**wrong)
