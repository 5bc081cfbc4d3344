"""Tests of hedgerow.server.grids.round_grid: a grid says what it is, also one that knows Flower's interface alone."""

import json

import numpy as np
import pytest
from flwr.serverapp import Grid

from hedgerow.decode import decode_json
from hedgerow.server.client_app import make_client_app
from hedgerow.server.cohort.clients import DrawnClients
from hedgerow.server.cohort.null import NullEngine
from hedgerow.server.grids.cohort import CohortGrid
from hedgerow.server.grids.in_process import InProcessGrid
from hedgerow.server.grids.round_grid import ForeignGrid, as_round_grid
from hedgerow.server.simulation.deadlines import DeviceWork
from hedgerow.server.simulation.population import Population
from hedgerow.server.simulation.timed_grid import TimedGrid
from hedgerow.server.training import train_task

pytestmark = pytest.mark.heavy


class Plain(Grid):
    """Flower's interface and nothing more, before clients in this process."""

    def __init__(self, inner):
        self.inner = inner

    def set_run(self, run):
        self.inner.set_run(run)

    @property
    def run(self):
        return self.inner.run

    def create_message(self, *args, **kwargs):
        return self.inner.create_message(*args, **kwargs)

    def get_node_ids(self):
        return self.inner.get_node_ids()

    def push_messages(self, messages):
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids):
        return self.inner.pull_messages(message_ids)

    def send_and_receive(self, messages, *, timeout=None):
        return self.inner.send_and_receive(messages, timeout=timeout)


def in_process(task):
    return InProcessGrid(make_client_app(task, task.load_data()), 3)


def test_a_run_on_a_foreign_grid_is_one_on_ours_under_its_own_names(tiny_task, tmp_path):
    ours = train_task(tiny_task, tmp_path / "ours", rounds=2, clients=3)
    theirs = train_task(tiny_task, tmp_path / "theirs", rounds=2, grid=Plain(in_process(tiny_task)), minimum_devices=3)
    for name, array in ours.checkpoint.weights.items():
        np.testing.assert_array_equal(theirs.checkpoint.weights[name], array)
    assert json.loads((tmp_path / "theirs" / "run.json").read_text())["grid"] == "Plain"
    # Nodes are numbered from one, and ours are called after their partition, from zero.
    assert theirs.history[0].participants == ("1", "2", "3")
    assert ours.history[0].participants == ("0", "1", "2")
    assert [record.virtual_s for record in theirs.history] == [None, None]
    assert not (tmp_path / "theirs" / "rounds" / "000002" / "grid.json").exists()


def test_our_own_grids_are_taken_as_they_are(tiny_task):
    grid = in_process(tiny_task)
    assert as_round_grid(grid) is grid
    foreign = as_round_grid(Plain(grid))
    assert isinstance(foreign, ForeignGrid)
    assert (foreign.kind, foreign.node_name(7), foreign.trouble) == ("Plain", "7", "")
    assert (list(foreign.get_node_ids()), foreign.run) == ([1, 2, 3], grid.run)
    foreign.fit_to({"loss": (0, 1)}, clips=True)


@pytest.mark.parametrize("made", [in_process, lambda task: as_round_grid(Plain(in_process(task)))])
def test_a_grid_without_a_clock_carries_nothing_on_and_takes_nothing_over(tiny_task, made):
    grid = made(tiny_task)
    assert (grid.virtual_s, grid.state()) == (None, None)
    with pytest.raises(ValueError, match="carries nothing on"):
        grid.restore(decode_json(b'{"now_s": 1}', "grid.json", limit_bytes=100))


def test_a_plain_run_over_a_timed_grid_goes_on_at_the_time_where_it_stood(tiny_task, tmp_path):
    data = tiny_task.load_data()
    clients = DrawnClients(4, len(data.train), 10)
    work = DeviceWork(down_bytes=0, up_bytes=0, flops_per_sample=1e9)

    def timed():
        inner = CohortGrid(tiny_task, data, clients, NullEngine(clients))
        return TimedGrid(inner, Population(4), work=work, samples=10)

    settings = {"minimum_devices": 4, "data": data}
    grid = timed()
    whole = train_task(tiny_task, tmp_path / "whole", rounds=3, grid=grid, **settings)
    times = [record.virtual_s for record in whole.history]
    assert times == [timed_round.ended_s for timed_round in grid.rounds]
    assert 0 < times[0] < times[1] < times[2] == grid.virtual_s

    train_task(tiny_task, tmp_path / "parts", rounds=2, grid=timed(), **settings)
    again = timed()
    parts = train_task(tiny_task, tmp_path / "parts", rounds=3, grid=again, **settings)
    assert [record.virtual_s for record in parts.history] == times
    assert again.virtual_s == times[2]
