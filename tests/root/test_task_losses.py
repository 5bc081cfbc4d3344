"""The named losses, against sums by hand and scikit-learn; and what a task is trained with."""

from dataclasses import replace

import numpy as np
import pytest

from hedgerow.outputs.losses import LOSSES
from tests.output_tasks import STREAMING, TASKS, direction_loss

pytestmark = pytest.mark.heavy

RNG = np.random.default_rng(4)
LOGITS = RNG.normal(size=(6, 3)).astype(np.float32)
CLASSES = np.array([0, 2, 1, 1, 0, 2])
ONES = np.eye(3)[CLASSES]
LABELS = RNG.integers(0, 2, (6, 3))
VALUES = RNG.normal(size=(6, 2)).astype(np.float32)
WANTED = RNG.normal(size=(6, 2)).astype(np.float32)
APART = (VALUES - WANTED) / np.array([1.0, 2.0])
"""The errors in the tolerances of the task of values."""


def loss_of(name: str, loss, given, wanted) -> float:
    import torch

    from hedgerow.task_losses import loss_function

    tensors = [tuple(map(torch.from_numpy, part)) if isinstance(part, tuple) else torch.from_numpy(part)
               for part in (given, wanted)]  # fmt: skip
    return loss_function(replace(TASKS[name], loss=loss))(*tensors).item()


def entropy(logits, ones):
    """Return the binary cross-entropy of each number."""
    chance = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return -(ones * np.log(chance) + (1 - ones) * np.log(1 - chance))


def log_shares(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


PICKED = np.take_along_axis(log_shares(LOGITS.astype(np.float64)), CLASSES[:, None], axis=1)[:, 0]
HUBER = np.where(np.abs(APART) <= 1, APART**2 / 2, np.abs(APART) - 0.5)


@pytest.mark.parametrize(
    ("name", "loss", "given", "wanted", "expected"),
    [
        ("classes", "cross_entropy", LOGITS, CLASSES, -PICKED.mean()),
        ("classes", "bce", LOGITS, CLASSES, entropy(LOGITS, ONES).mean()),
        ("classes", "mse", LOGITS, CLASSES, ((LOGITS - ONES) ** 2).mean()),
        ("classes", "focal", LOGITS, CLASSES, -((1 - np.exp(PICKED)) ** 2 * PICKED).mean()),
        ("labels", "bce", LOGITS, LABELS, entropy(LOGITS, LABELS).mean()),
        ("labels", "mse", LOGITS, LABELS, ((LOGITS - LABELS) ** 2).mean()),
        (
            "labels",
            "focal",
            LOGITS,
            LABELS,
            ((1 - np.exp(-entropy(LOGITS, LABELS))) ** 2 * entropy(LOGITS, LABELS)).mean(),
        ),
        ("values", "huber", VALUES, WANTED, HUBER.mean()),
        ("values", "mse", VALUES, WANTED, (APART**2).mean()),
        ("values", "mae", VALUES, WANTED, np.abs(APART).mean()),
        ("reconstruction", "mse", VALUES, CLASSES, (VALUES.astype(np.float64) ** 2).mean()),
    ],
)
def test_a_named_loss_is_its_formula(name, loss, given, wanted, expected):
    assert loss in LOSSES
    assert loss_of(name, loss, given, wanted) == pytest.approx(expected, rel=1e-5)


def test_positions_of_padding_are_left_out_of_the_loss_of_tokens():
    logits = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    wanted = np.array([[0, 1, -1, -1], [2, -1, 1, 0]])
    known = wanted >= 0
    logs = log_shares(logits.astype(np.float64))[known]

    expected = -logs[np.arange(known.sum()), wanted[known]].mean()
    assert loss_of("tokens", "cross_entropy", logits, wanted) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_several_outputs_is_their_sum_by_weight():
    given, wanted = (LOGITS, VALUES), (CLASSES, WANTED)

    assert loss_of("several", None, given, wanted) == pytest.approx(-PICKED.mean() + 2 * HUBER.mean(), rel=1e-5)
    mixed = {"state": "mse", "level": "mae"}
    expected = ((LOGITS - ONES) ** 2).mean() + 2 * np.abs(APART).mean()
    assert loss_of("several", mixed, given, wanted) == pytest.approx(expected, rel=1e-5)
    one = {"level": lambda given, wanted: (given - wanted).sum()}
    expected = -PICKED.mean() + 2 * (VALUES - WANTED).sum()
    assert loss_of("several", one, given, wanted) == pytest.approx(expected, rel=1e-5)


def test_a_function_of_the_users_own_is_the_loss_as_it_is():
    from hedgerow.task_losses import loss_function

    def own(given, wanted):
        return given.sum() + wanted.sum()

    assert loss_function(replace(TASKS["classes"], loss=own)) is own
    assert loss_function(TASKS["custom"]) is direction_loss


def test_with_state_each_step_counts_as_a_sample():
    import torch

    from hedgerow.task_losses import loss_function

    given, wanted = torch.from_numpy(VALUES.reshape(2, 3, 2)), torch.from_numpy(WANTED.reshape(2, 3, 2))
    assert loss_function(STREAMING["values"])(given, wanted).item() == pytest.approx(HUBER.mean(), rel=1e-5)
