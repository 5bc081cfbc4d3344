"""Tests of hedgerow.server.first_steps: the loss after each step, and the model as it was."""

import pytest
import torch
from torch import nn

from hedgerow import LocalTraining
from hedgerow.server.first_steps import STEPS, losses_of_first_steps

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("rate", [0.1, 3.0])
def test_the_losses_are_those_of_gradient_descent_by_hand_and_the_model_stays_as_it_was(make_task, rate):
    torch.manual_seed(1)
    model, x, wanted = nn.Linear(2, 3), torch.randn(8, 2), torch.arange(8) % 3
    weight, bias = (parameter.detach().clone() for parameter in model.parameters())
    task = make_task(
        model=lambda: model,
        preprocess=None,
        loss="cross_entropy",
        local=LocalTraining(learning_rate=rate, batch_size=8),
    )

    found = losses_of_first_steps(task, model, [x], wanted)

    w, b, expected = weight.double(), bias.double(), []
    for _step in range(STEPS + 1):
        shares = (x.double() @ w.T + b).softmax(dim=1)
        expected.append(float(-shares[torch.arange(8), wanted].log().mean()))
        error = (shares - nn.functional.one_hot(wanted, 3)) / 8
        w, b = w - rate * error.T @ x.double(), b - rate * error.sum(dim=0)
    assert found == pytest.approx(expected[1:], rel=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), (weight, bias), strict=True))
