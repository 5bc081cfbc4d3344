"""Tests of hedgerow.server.rounds; what a whole run does is in test_training."""

import random

import numpy as np
import pytest

from hedgerow.server.errors import RoundFailedError
from hedgerow.server.rounds import _like, _natural, _seeded_sampling

pytestmark = pytest.mark.heavy

LIKE = {"w": np.zeros(2, np.float32), "steps": np.zeros((), np.int64)}


def test_aggregates_get_the_types_of_the_weights_and_whole_numbers_are_rounded():
    found = _like({"steps": np.array(3.6), "w": np.array([0.5, 1.5])}, LIKE, 1, {})
    assert list(found) == ["w", "steps"]
    assert (found["w"].dtype, found["steps"].dtype, int(found["steps"])) == (np.float32, np.int64, 4)


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"w": np.array([np.nan, 0]), "steps": np.array(1)}, "NaN"),
        ({"w": np.zeros(3), "steps": np.array(1)}, "another model"),
        ({"w": np.zeros(2)}, "another model"),
    ],
)
def test_aggregates_that_are_no_weights_fail_the_round(arrays, found):
    with pytest.raises(RoundFailedError, match=found):
        _like(arrays, LIKE, 7, {})


def test_sampling_depends_on_the_seed_alone_and_leaves_the_generator_as_it_was():
    random.seed(1)
    before = random.getstate()
    with _seeded_sampling(5):
        first = random.sample(range(100), 5)
    assert random.getstate() == before
    random.seed(2)
    with _seeded_sampling(5):
        assert random.sample(range(100), 5) == first


def test_numbers_are_sorted_as_numbers():
    assert sorted(["10", "2", "1"], key=_natural) == ["1", "2", "10"]
    assert sorted(["b", "a-10", "a"], key=_natural) == ["a", "a-10", "b"]
