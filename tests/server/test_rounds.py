"""Tests of hedgerow.server.rounds; what a whole run does is in test_training."""

import random

import numpy as np
import pytest

from hedgerow.server.cohort.clients import RepeatedClients
from hedgerow.server.cohort.null import NullEngine
from hedgerow.server.errors import RoundFailedError
from hedgerow.server.grids.cohort import CohortGrid
from hedgerow.server.rounds import Run, _like, _natural, _seeded_sampling, few_failures
from hedgerow.server.run_folder import RunFolder
from hedgerow.server.run_records import RunSettings
from hedgerow.server.strategies import build_strategy
from hedgerow.server.training import initial_weights

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


def test_a_view_of_a_cohorts_updates_is_copied_and_an_array_of_its_own_is_not():
    stack, own = np.zeros((5, 2), np.float32), np.ones(2, np.float32)
    assert _like({"w": stack[1], "steps": np.array(1)}, LIKE, 1, {})["w"].base is None
    assert _like({"w": own, "steps": np.array(1)}, LIKE, 1, {})["w"] is own


def test_of_very_many_failures_the_first_and_the_number_of_the_others_are_kept():
    assert few_failures({"b": "late", "a": "dropped"}) == {"a": "dropped", "b": "late"}
    kept = few_failures({f"{number:04d}": "late" for number in range(1000)})
    assert len(kept) == 101
    assert kept["and"] == "900 others"


@pytest.mark.parametrize(("cohort", "named"), [(100, True), (101, False)])
@pytest.mark.parametrize("partial_sums", [True, False])
def test_participants_are_named_unless_they_are_too_many(partial_sums, cohort, named, tiny_task, tmp_path):
    data = tiny_task.load_data()
    clients = RepeatedClients(RepeatedOne(), 1000)
    grid = CohortGrid(tiny_task, data, clients, NullEngine(clients, slices=30), partial_sums=partial_sums)
    strategy = build_strategy("fedavg", clients=cohort, learning_rate=0.1, fraction=1e-6)
    strategy.min_train_nodes = cohort
    settings = RunSettings(
        run="points-1", task="points", strategy="fedavg", seed=0, grid="cohort", clients=1000, fraction=1.0, epochs=1,
        learning_rate=0.1, batch_size=8, data_fingerprint="", initial_sha256="",
    )  # fmt: skip
    with RunFolder.opened(tmp_path, settings) as folder:
        run = Run(tiny_task, grid, strategy, folder, None)
        run.resume(initial_weights(tiny_task, 0))
        record = run.take_round({"seed": 0}, 60.0)
        assert folder.history(1) == [record]
    assert (record.clients, len(record.participants)) == ((None, cohort) if named else (cohort, 0))
    assert record.examples == cohort


class RepeatedOne:
    """One client of one sample."""

    def __len__(self):
        return 1

    def size(self, _client):
        return 1

    def indices(self, _client):
        return np.zeros(1, np.int64)
