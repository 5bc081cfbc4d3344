"""A device that is forgotten: nothing of it is left, and under its name a new one may come."""

import pytest

from hedgerow.fleet.errors import RolloutConflictError, UnknownDeviceError
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.service.event_log import EventLog
from hedgerow.fleet.service.events import DeviceChanged, DeviceForgotten
from hedgerow.link import Message
from hedgerow.wire.device import Presence
from hedgerow.wire.execution import ExecutionState
from hedgerow.wire.topics import Channel, device_topic, parse_topic
from tests.fleet.virtual_fleet import CANARY, ONE_STAGE, TARGETS, VirtualFleet


@pytest.fixture
def fleet(tmp_path):
    made = VirtualFleet(tmp_path, devices=4, drift_minimum_samples=10)
    made.settle()
    yield made
    made.service.stop()


def kept_by_the_broker(fleet, name):
    """The channels of a device on which the broker keeps a message."""
    probe = fleet.broker.connect("probe")
    probe.subscribe("#")
    found = set()
    while (event := probe.receive(0.0)) is not None:
        if isinstance(event, Message):
            _fleet, device, channel = parse_topic(event.topic)
            found |= {channel} if device == name else set()
    probe.close()
    return found


def lose(fleet, name):
    """Let a device disappear for good."""
    fleet.broker.break_link(name)
    fleet.settle()
    return fleet.devices.pop(name)


def test_nothing_of_a_forgotten_device_is_left(fleet):
    fleet.roll_out("toy@1")
    for _ in range(3):
        fleet.send_windows("toy@1")
    lose(fleet, "device-0")
    assert kept_by_the_broker(fleet, "device-0") == {Channel.DESIRED, Channel.PRESENCE}
    before = fleet.service.device("device-0")
    assert fleet.service.forget_device("device-0", actor="me") == before
    with pytest.raises(UnknownDeviceError):
        fleet.service.device("device-0")
    assert fleet.service.desired("device-0") is None
    assert fleet.service.windows("device-0") == ()
    assert len(fleet.service.windows("device-1")) == 3
    with fleet.reader() as stored:
        drift, score = stored.drift_state("toy@1"), stored.score_state("toy@1")
    assert set(drift.devices) == {"device-1", "device-2", "device-3"}
    assert "device:device-0" not in drift.slices
    assert set(score.slices) == {"fleet", "device:device-1", "device:device-2", "device:device-3"}
    assert (drift.forgotten, score.forgotten) == (1, 1)
    assert kept_by_the_broker(fleet, "device-0") == set()
    assert kept_by_the_broker(fleet, "device-1") == {Channel.DESIRED, Channel.PRESENCE}
    entry = fleet.service.audit()[-1]
    assert (entry.actor, entry.action, entry.subject) == ("me", "device.forget", "device-0")
    assert fleet.events[-1] == DeviceForgotten(before)
    assert EventLog().describe(fleet.events[-1]) == "device-0 is forgotten"


def test_a_forgotten_device_stays_forgotten_over_time_and_restarts(fleet):
    fleet.roll_out("toy@1")
    lose(fleet, "device-0")
    fleet.service.forget_device("device-0")
    said = []
    probe = fleet.broker.connect("probe")
    probe.subscribe(device_topic("fleet", "device-0", Channel.DESIRED))
    fleet.settle(seconds=300, step=5.0)
    while (event := probe.receive(0.0)) is not None:
        said += [event] if isinstance(event, Message) else []
    assert said == []
    fleet.crash_service()
    fleet.start_service()
    fleet.settle(seconds=300, step=5.0)
    assert [device.name for device in fleet.service.devices()] == ["device-1", "device-2", "device-3"]
    fleet.send_windows("toy@1")
    with fleet.reader() as stored:
        assert set(stored.drift_state("toy@1").devices) == {"device-1", "device-2", "device-3"}


def test_a_forgotten_device_that_reports_again_is_new(fleet):
    fleet.roll_out("toy@1")
    for _ in range(2):
        fleet.send_windows("toy@1")
    fleet.service.assign("device-0", "toy@2")
    fleet.settle()
    old = lose(fleet, "device-0")
    fleet.service.forget_device("device-0")
    fleet.events.clear()
    device = fleet.add_device("device-0", TARGETS[1], boot="boot-9")
    fleet.settle()
    found = fleet.service.device("device-0")
    assert (found.target, found.boot, found.past_boots) == (TARGETS[1], "boot-9", ())
    changes = [event for event in fleet.events if isinstance(event, DeviceChanged) and event.device.name == "device-0"]
    assert changes[0].before is None
    # It gets what everybody has, under a number of its own.
    assert (device.release, device.desired_version, old.desired_version) == ("toy@1", 1, 2)
    fleet.send_windows("toy@1")
    with fleet.reader() as stored:
        drift, score = stored.drift_state("toy@1"), stored.score_state("toy@1")
    assert drift.slices["device:device-0"].looks == 1
    assert score.slices["device:device-0"].place == 5


def test_a_device_that_was_forgotten_while_it_is_there_comes_back_by_its_next_report(fleet):
    fleet.roll_out("toy@1")
    fleet.service.forget_device("device-0")
    fleet.send_windows("toy@1", only={"device-0"})
    assert fleet.service.windows("device-0") == ()
    assert fleet.service.count_devices() == 3
    fleet.devices["device-0"].report()
    fleet.settle()
    assert (fleet.service.device("device-0").release, fleet.service.desired("device-0")) == ("toy@1", None)
    fleet.service.assign("device-0", "toy@2")
    fleet.settle()
    assert fleet.devices["device-0"].release == "toy@2"


def test_a_rollout_goes_on_without_a_device_that_is_forgotten_before_it_answered(fleet):
    fleet.roll_out("toy@1")
    lost = lose(fleet, "device-0")
    rollout = fleet.roll_out("toy@2", ONE_STAGE)
    assert fleet.service.rollout(rollout).state is RolloutState.RUNNING
    fleet.service.forget_device("device-0")
    fleet.settle()
    found = fleet.service.rollout(rollout)
    assert found.state is RolloutState.FINISHED
    assert found.executions["device-0"].state is ExecutionState.REMOVED
    assert {found.executions[f"device-{index}"].state for index in (1, 2, 3)} == {ExecutionState.SUCCEEDED}
    assert lost.release == "toy@1"
    fleet.add_device("device-0", TARGETS[0], boot="boot-9")
    fleet.settle()
    assert fleet.devices["device-0"].release == "toy@2"
    assert fleet.service.rollout(rollout).executions["device-0"].state is ExecutionState.REMOVED


def test_a_rollout_whose_only_canary_is_forgotten_is_aborted_and_nobody_else_was_asked(fleet):
    fleet.roll_out("toy@1")
    lost = {name: lose(fleet, name) for name in list(fleet.devices)}
    rollout = fleet.roll_out("toy@2", CANARY)
    (canary,) = [r.device for r in fleet.service.rollout(rollout).executions.values() if r.assigned]

    fleet.service.forget_device(canary)

    found = fleet.service.rollout(rollout)
    assert (found.state, found.executions[canary].state) == (RolloutState.ABORTED, ExecutionState.REMOVED)
    assert found.reason == "no device of the stage canary succeeded, so nothing speaks for going on"
    assert [r.device for r in found.executions.values() if r.assigned and r.device != canary] == []
    assert {device.release for device in lost.values()} == {"toy@1"}


def test_a_device_that_comes_back_while_the_rollout_runs_starts_anew_in_it(fleet):
    fleet.roll_out("toy@1")
    lose(fleet, "device-0")
    lose(fleet, "device-1")
    rollout = fleet.roll_out("toy@2", ONE_STAGE)
    fleet.service.forget_device("device-0")
    fleet.settle()
    assert fleet.service.rollout(rollout).state is RolloutState.RUNNING
    fleet.add_device("device-0", TARGETS[0], boot="boot-9")
    fleet.settle()
    record = fleet.service.rollout(rollout).executions["device-0"]
    assert (record.state, record.attempt) == (ExecutionState.SUCCEEDED, 2)
    assert fleet.devices["device-0"].release == "toy@2"


def test_a_device_whose_part_in_a_running_rollout_counts_cannot_be_forgotten_before_it_ends(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    (canary,) = [name for name, device in fleet.devices.items() if device.release == "toy@2"]
    with pytest.raises(RolloutConflictError, match=f"found {rollout} \\(RUNNING\\)"):
        fleet.service.forget_device(canary)
    assert fleet.service.device(canary).release == "toy@2"
    assert kept_by_the_broker(fleet, canary) == {Channel.DESIRED, Channel.PRESENCE}
    assert "device.forget" not in {entry.action for entry in fleet.service.audit()}
    fleet.service.abort(rollout)
    fleet.settle()
    assert fleet.devices[canary].release == "toy@1"
    fleet.service.forget_device(canary)
    assert fleet.service.count_devices() == 3


def test_nobody_cannot_be_forgotten(fleet):
    with pytest.raises(UnknownDeviceError, match="nobody"):
        fleet.service.forget_device("nobody")


def test_what_was_refused_and_doubted_of_a_device_is_forgotten_with_it(fleet):
    fleet.roll_out("toy@1")
    device = fleet.devices["device-0"]
    device.target = TARGETS[1]
    device.report()
    fleet.settle()
    assert fleet.service.refusal("device-0") is not None
    # The will of a start that nobody knows puts it in doubt, so that it is asked.
    lose(fleet, "device-0")
    stranger = fleet.broker.connect("stranger")
    topic = device_topic("fleet", "device-0", Channel.PRESENCE)
    stranger.publish(topic, Presence(online=False, boot="other").encode())
    fleet.turn()
    fleet.service.forget_device("device-0")
    assert fleet.service.refusal("device-0") is None
    probe = fleet.broker.connect("probe")
    probe.subscribe(device_topic("fleet", "device-0", Channel.DESIRED))
    fleet.settle(seconds=200, step=5.0)
    assert not [event for event in iter(lambda: probe.receive(0.0), None) if isinstance(event, Message)]


def test_the_same_command_asked_for_again_forgets_nobody_new(fleet):
    lose(fleet, "device-0")
    first = fleet.service.forget_device("device-0", command_id="once")
    fleet.add_device("device-0", TARGETS[0], boot="boot-9")
    fleet.settle()
    assert fleet.service.forget_device("device-0", command_id="once") == first
    assert fleet.service.device("device-0").boot == "boot-9"
