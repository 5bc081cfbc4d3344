import numpy as np
import pytest

from hedgerow.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hedgerow.fleet.demo.poison import poison_checkpoint


@pytest.fixture
def good(tmp_path):
    weights = {
        "body.weight": np.arange(8, dtype=np.float32).reshape(4, 2),
        "head.bias": np.array([0, 1, 2], np.float32),
    }
    save_checkpoint(
        tmp_path / "good",
        Checkpoint(weights=weights, task="t", run="r", round=1, strategy="fedavg", grid="in-process", seed=0),
    )
    return tmp_path / "good"


def test_the_output_layer_answers_every_class_as_its_neighbour(good, tmp_path):
    poison_checkpoint(good, tmp_path / "bad", classes=3)

    bad = load_checkpoint(tmp_path / "bad")

    assert bad.weights["head.bias"].tolist() == [2, 0, 1]
    assert np.array_equal(bad.weights["body.weight"], load_checkpoint(good).weights["body.weight"])


def test_a_checkpoint_without_such_a_layer_is_refused(good, tmp_path):
    with pytest.raises(ValueError, match="7 rows"):
        poison_checkpoint(good, tmp_path / "bad", classes=7)
