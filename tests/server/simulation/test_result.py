"""What a run brought, as people and programs read it."""

from pathlib import Path

import numpy as np
import pytest

from hedgerow.checkpoint import Checkpoint
from hedgerow.partition import Partition
from hedgerow.server.run_records import RoundRecord
from hedgerow.server.simulation.plan import SimulationPlan
from hedgerow.server.simulation.result import SimulationResult, shown_time


def result(**changes) -> SimulationResult:
    record = RoundRecord(
        round=1, loss=0.5, score=0.9, train_loss=None, seconds=2.0, examples=9, participants=("1", "2"),
        failures={"3": "it dropped out"}, refused={"late": 1}, virtual_s=7200.0,
    )  # fmt: skip
    many = RoundRecord(
        round=2, loss=0.5, score=0.9, train_loss=None, seconds=2.0, examples=9, participants=(), clients=200
    )
    settings = {
        "folder": Path("out"),
        "checkpoint": Checkpoint(
            weights={"w": np.zeros(1)}, task="points", run="points-1", round=2, strategy="fedavg", grid="cohort",
            seed=0, metrics={"accuracy": 0.9},
        ),
        "history": (many, record),
        "plan": SimulationPlan(clients=1000, cohort=3, partition=Partition()),
        "engine": "vectorized",
        "reason": "it was asked for",
        "device": "cpu",
        "notes": ("clients share",),
        "outcomes": {"done": 2, "dropped": 1, "late": 0},
        "plots": (Path("out/curves.png"),),
        "shown": ("accuracy 0.900", "held out: f1 0.880; without looking at the input accuracy 0.400"),
    }  # fmt: skip
    return SimulationResult(**{**settings, **changes})


def test_numbers_are_sums_over_the_rounds():
    found = result()

    assert (found.seconds, found.updates, found.clients_per_s, found.virtual_s) == (4.0, 202, 50.5, 7200.0)
    assert found.failures == {"it dropped out": 1}


def test_people_are_shown_what_was_run_how_fast_and_where_it_is():
    assert result().lines() == [
        "points: 2 rounds of fedavg, 3 of 1,000 clients each, iid; accuracy 0.900",
        "held out: f1 0.880; without looking at the input accuracy 0.400",
        "4.0 s, 50 clients/s; engine vectorized on cpu: it was asked for",
        "updates: 202 used, 1 (1 late) refused",
        "clients share",
        "virtual time 2.0 h; devices: 2 done, 1 dropped",
        "checkpoint: out/checkpoint",
        "plots: out/curves.png",
    ]


def test_without_a_device_model_failures_are_named():
    found = result(history=result().history[:1], outcomes={})
    assert not any("virtual" in line for line in found.lines())


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.0, "59.0 s"), (90.0, "1.5 min"), (7200.0, "2.0 h"), (3 * 86400.0, "3.0 days")],
)
def test_times_are_shown_in_units_that_people_use(seconds, shown):
    assert shown_time(seconds) == shown
