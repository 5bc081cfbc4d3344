import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.errors import PassSettingsError  # noqa: E402 - needs torch
from hedgerow.compile.passes.model.fine_tune import FineTune  # noqa: E402
from hedgerow.compile.passes.model.prune_two_four import PruneTwoFour  # noqa: E402
from hedgerow.compile.passes.runner import run_model_pass  # noqa: E402

pytestmark = pytest.mark.heavy


def fours(weight):
    """Groups of four neighbours along the input channels, as rows."""
    return weight.detach().movedim(1, -1).reshape(-1, 4)


def test_every_four_input_channels_keep_their_two_largest(source):
    pruned = run_model_pass(PruneTwoFour(), source).model
    for name in ("point.0", "down.0", "dense", "head"):
        before = fours(source.model.get_submodule(name).weight)
        after = fours(pruned.get_submodule(name).weight)
        assert ((after != 0).sum(dim=1) == 2).all()
        assert torch.equal(after.abs().amax(dim=1), before.abs().amax(dim=1))
        assert torch.allclose(after.abs().sum(dim=1), before.abs().sort(dim=1).values[:, 2:].sum(dim=1))


def test_layers_without_four_input_channels_stay_as_they_are(source):
    pruned = run_model_pass(PruneTwoFour(), source).model
    for name in ("stem.0", "depth.0"):
        assert torch.equal(pruned.get_submodule(name).weight, source.model.get_submodule(name).weight)


def test_the_pattern_survives_fine_tuning(source):
    settings = {"epochs": 1, "learning_rate": 0.002, "keep_zeros": True}
    tuned = run_model_pass(FineTune(**settings), run_model_pass(PruneTwoFour(), source)).model
    assert ((fours(tuned.dense.weight) != 0).sum(dim=1) <= 2).all()


def test_it_takes_no_settings(source):
    with pytest.raises(PassSettingsError):
        run_model_pass(PruneTwoFour(share=0.5), source)
