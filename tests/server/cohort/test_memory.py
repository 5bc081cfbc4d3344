"""Tests of hedgerow.server.cohort.memory, with a scripted step that runs out of memory."""

import logging

import pytest

from hedgerow.server.cohort.errors import CohortMemoryError
from hedgerow.server.cohort.memory import fitting_clients, run_in_slices

pytestmark = pytest.mark.heavy


class ScriptedStep:
    """Runs out of memory above *capacity* clients, which may shrink after some slices."""

    def __init__(self, *capacities, error=None):
        self.capacities, self.calls, self.done = list(capacities), [], []
        self.error = error or RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    def __call__(self, rows):
        self.calls.append(len(rows))
        capacity = self.capacities[min(len(self.done), len(self.capacities) - 1)]
        if len(rows) > capacity:
            raise self.error
        self.done.append(list(rows))
        return len(rows)


def test_slices_keep_the_order_and_miss_nobody():
    step = ScriptedStep(100)
    assert list(run_in_slices(range(10), 4, step)) == [4, 4, 2]
    assert step.done == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_out_of_memory_halves_the_slice_and_the_run_goes_on(caplog):
    step = ScriptedStep(3)
    with caplog.at_level(logging.WARNING):
        assert list(run_in_slices(range(10), 10, step)) == [2, 2, 2, 2, 2]
    assert [row for rows in step.done for row in rows] == list(range(10))
    assert step.calls == [10, 5, 2, 2, 2, 2, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "memory of cpu did not hold 10 clients; going on with 5",
        "memory of cpu did not hold 5 clients; going on with 2",
    ]


def test_memory_that_shrinks_in_a_run_is_noticed():
    step = ScriptedStep(8, 2)
    assert list(run_in_slices(range(16), 8, step)) == [8, 2, 2, 2, 2]


def test_torchs_own_error_counts():
    import torch

    step = ScriptedStep(1, error=torch.OutOfMemoryError("CUDA out of memory."))
    assert list(run_in_slices(range(2), 2, step)) == [1, 1]


def test_one_client_that_does_not_fit_is_a_clear_error():
    with pytest.raises(CohortMemoryError, match="expected memory on cpu for the training of one client"):
        list(run_in_slices(range(3), 2, ScriptedStep(0)))


def test_other_errors_are_not_hidden():
    with pytest.raises(RuntimeError, match="shapes"):
        list(run_in_slices(range(3), 2, ScriptedStep(0, error=RuntimeError("shapes do not match"))))


def test_as_many_clients_fit_as_free_memory_holds_with_room_to_spare():
    assert fitting_clients(1000, 60) == 10
    assert fitting_clients(10, 60) == 1
    assert fitting_clients(10, 0) == 6
