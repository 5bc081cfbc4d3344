import dataclasses

import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.errors import PassError, PassSettingsError  # noqa: E402 - needs torch
from hedgerow.compile.passes.model.fine_tune import FineTune  # noqa: E402
from hedgerow.compile.passes.model.prune_weights import PruneWeights  # noqa: E402
from hedgerow.compile.passes.runner import run_model_pass  # noqa: E402
from tests.compile.passes.networks import accuracy_of, same_weights  # noqa: E402

pytestmark = pytest.mark.heavy

SETTINGS = {"epochs": 1, "learning_rate": 0.002, "batch_size": 32}


def zeros_of(model):
    return {name: value == 0 for name, value in model.named_parameters() if value.dim() > 1}


def test_pruned_weights_stay_zero_and_the_accuracy_comes_back(source, held_out):
    pruned = run_model_pass(PruneWeights(share=0.8), source)
    tuned = run_model_pass(FineTune(**SETTINGS, keep_zeros=True), pruned)
    before, after = zeros_of(pruned.model), zeros_of(tuned.model)
    assert all((after[name] | ~mask).all() for name, mask in before.items())
    assert accuracy_of(tuned, held_out) > accuracy_of(pruned, held_out) + 0.1


def test_without_a_mask_the_zeros_fill_again(source):
    pruned = run_model_pass(PruneWeights(share=0.8), source)
    assert zeros_of(run_model_pass(FineTune(**SETTINGS), pruned).model)["dense.weight"].float().mean() < 0.5


def test_the_same_source_and_settings_give_the_same_weights(source):
    torch.manual_seed(1)
    one = run_model_pass(FineTune(**SETTINGS), source).model
    torch.manual_seed(2)
    assert same_weights(one, run_model_pass(FineTune(**SETTINGS), source).model)
    assert not same_weights(one, run_model_pass(FineTune(**SETTINGS), dataclasses.replace(source, seed=4)).model)


def test_the_model_that_is_given_stays_as_it_is_and_no_random_state_is_touched(source):
    before = {name: value.clone() for name, value in source.model.state_dict().items()}
    state = torch.get_rng_state()
    tuned = run_model_pass(FineTune(**SETTINGS), source)
    assert all(torch.equal(value, before[name]) for name, value in source.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not tuned.model.training


def test_without_training_data_it_says_so(source):
    with pytest.raises(PassError, match=r"fine-tune: .* it trains, and there is no training data"):
        run_model_pass(FineTune(**SETTINGS), dataclasses.replace(source, train=None))


def test_training_that_diverges_is_refused(source):
    with pytest.raises(PassError, match="training diverged, the loss is"):
        run_model_pass(
            FineTune(**SETTINGS),
            dataclasses.replace(
                source, task=dataclasses.replace(source.task, loss=lambda logits, _labels: logits.mean() / 0)
            ),
        )


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rate": 0.0}, {"batch_size": 1}, {"momentum": 0.9}])
def test_settings_are_checked(wrong):
    with pytest.raises(PassSettingsError, match=next(iter(wrong))):
        FineTune(**{**SETTINGS, **wrong})
