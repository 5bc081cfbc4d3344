"""Commands of a service whose thread is held up: by a subscriber, and by a change that takes long."""

import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

from hedgerow.fleet.errors import CommandConflictError, CommandNotBegunError, CommandUnderWayError
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.service.events import RolloutChanged
from tests.fleet.virtual_fleet import ONE_STAGE, TARGETS, VirtualFleet

WAITING = replace(ONE_STAGE, needs_approval=True)


@pytest.fixture
def fleet(tmp_path):
    made = VirtualFleet(tmp_path, devices=2, tick_s=0.01, command_timeout_s=0.3)
    made.settle()
    yield made
    made.service.stop()


@contextmanager
def held_up(service):
    """Hold the service's thread in a change of somebody else."""
    begun, released = threading.Event(), threading.Event()

    def hold(_then, _now):
        begun.set()
        released.wait(30)

    holder = threading.Thread(target=lambda: service.writer.call(hold), daemon=True)
    service.writer.timeout_s, timeout_s = 30, service.writer.timeout_s
    holder.start()
    assert begun.wait(30)
    service.writer.timeout_s = timeout_s
    try:
        yield released
    finally:
        released.set()
        holder.join()


def test_a_command_that_timed_out_before_it_was_begun_is_never_carried_out(fleet):
    service = fleet.service.start()
    with held_up(service), pytest.raises(CommandNotBegunError, match="nothing was done and nothing will be"):
        service.start_rollout("toy@1", WAITING)
    later = service.start_rollout("toy@1", WAITING)
    assert [rollout.id for rollout in service.rollouts()] == [later.id] == ["rollout-1"]
    assert [entry.action for entry in service.audit()] == ["rollout.start"]


def test_a_command_that_timed_out_while_it_was_carried_out_has_its_answer_afterwards(fleet):
    service = fleet.service.start()
    saved, released = threading.Event(), threading.Event()

    def slow(event):
        if isinstance(event, RolloutChanged):
            saved.set()
            released.wait(30)

    service.subscribe(slow)
    with pytest.raises(CommandUnderWayError) as caught:
        service.start_rollout("toy@1", WAITING)
    assert saved.is_set()
    command = service.command(caught.value.command)
    assert command.state == "running"
    released.set()
    assert command.answer(30) == service.rollout("rollout-1")
    assert service.command(caught.value.command).state == "done"


def test_asking_again_under_the_same_key_starts_nothing_new(fleet):
    service = fleet.service.start()
    first = service.start_rollout("toy@1", WAITING, command_id="mine")
    assert service.start_rollout("toy@1", WAITING, command_id="mine") == first
    assert len(service.rollouts()) == 1
    with pytest.raises(CommandConflictError):
        service.abort(first.id, command_id="mine")
    assert service.rollout(first.id).state is RolloutState.AWAITING_APPROVAL


def test_a_key_whose_command_was_taken_back_may_ask_again(fleet):
    service = fleet.service.start()
    with held_up(service), pytest.raises(CommandNotBegunError):
        service.start_rollout("toy@1", WAITING, command_id="mine")
    assert service.start_rollout("toy@1", WAITING, command_id="mine").id == "rollout-1"


@contextmanager
def full_disk(service):
    """Let SQLite say that the disk is full, as soon as the store would grow."""
    database = service.store.connection
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    yield
    database.execute("PRAGMA max_page_count = 1000000")


def test_what_came_while_the_disk_was_full_is_taken_once_there_is_room(fleet):
    names = {f"late-{index}" for index in range(100)}
    with full_disk(fleet.service):
        for name in names:
            fleet.add_device(name, TARGETS[0])
        for device in fleet.devices.values():
            device.turn()
        with pytest.raises(sqlite3.OperationalError, match="full"):
            fleet.settle()
        with pytest.raises(sqlite3.OperationalError, match="full"):
            fleet.service.turn(0.0)
    fleet.settle()
    assert names <= {device.name for device in fleet.service.devices() if device.online}


def test_a_broker_that_goes_and_comes_back_is_told_once_each(fleet, caplog):
    caplog.set_level("INFO", "hedgerow.fleet.service.writer")

    for _break in range(2):
        fleet.broker.break_link("fleet-service")
        fleet.service.turn(0.0)
        fleet.service.turn(0.0)
        fleet.broker.mend_link(fleet.link)
        fleet.service.turn(0.0)

    lost = "the link to the broker at 127.0.0.1:1883 broke (the broker cut the link); trying again in the background"
    assert [record.getMessage() for record in caplog.records] == [lost, "the link to the broker is back"] * 2
