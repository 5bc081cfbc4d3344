"""Messages that any client of the broker may send: what is known after the next genuine one, and the way back.

The devices decide by the agent's own rules (client/agent_rules.py); only installing is left out.
"""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hedgerow.client.actions import Install, Prove, Send
from hedgerow.client.agent_rules import advance
from hedgerow.client.agent_state import AgentState, Identity
from hedgerow.client.events import DesiredArrived, Installed, LinkUp, Proved
from hedgerow.decode import decode_json, encode_json
from hedgerow.errors import DecodeError
from hedgerow.fleet.errors import UnknownDeviceError
from hedgerow.fleet.registry import REPORT_JUMP
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.service.event_log import EventLog
from hedgerow.fleet.service.events import ReportRefused
from hedgerow.link import Connected, LastWill, Message
from hedgerow.wire.device import VERSION_JUMP, Desired, Presence, Reported
from hedgerow.wire.execution import Execution, ExecutionState
from hedgerow.wire.telemetry import Telemetry
from hedgerow.wire.topics import Channel, device_topic
from tests.fleet.virtual_fleet import CANARY, ONE_STAGE, TARGETS, VirtualFleet, make_window

LARGEST = 2**53 - 1


class Device:
    """The agent's rules on a link, with installations that succeed at once and stay well."""

    def __init__(self, fleet, name, *, boot="boot-1", target=TARGETS[0], saved=None):
        self.name, self.target, self.boot = name, target, boot
        will = LastWill(device_topic("fleet", name, Channel.PRESENCE), Presence(online=False, boot=boot).encode())
        self.link = fleet.broker.connect(name, will=will)
        identity = Identity(boot=boot, target=target, agent_version="1", runtimes=("onnxruntime",))
        self.state = (
            AgentState(identity=identity)
            if saved is None
            else AgentState.from_fields(identity, decode_json(encode_json(saved), "saved", limit_bytes=10**6))
        )
        self.link.subscribe(device_topic("fleet", name, Channel.DESIRED))
        self.windows = 0
        fleet.devices[name] = self

    @property
    def release(self):
        return self.state.active

    @property
    def seen(self):
        return self.state.desired.version if self.state.desired else 0

    def turn(self):
        taken = 0
        while (event := self.link.receive(0.0)) is not None:
            taken += 1
            if isinstance(event, Connected):
                self.handle(LinkUp())
            elif isinstance(event, Message):
                try:
                    self.handle(DesiredArrived(Desired.decode(event.payload)))
                except DecodeError:
                    continue
        return taken

    def handle(self, event):
        self.state, actions = advance(self.state, event)
        for action in actions:
            if isinstance(action, Send):
                topic = device_topic("fleet", self.name, action.channel)
                self.link.publish(topic, action.message.encode(), retain=action.retain)
            elif isinstance(action, Install):
                self.handle(Installed(action.release, self.state.active))
            elif isinstance(action, Prove):
                self.handle(Proved())

    def send_window(self, window):
        message = Telemetry(boot=self.boot, sequence=self.windows, window=window)
        self.windows += 1
        self.link.publish(device_topic("fleet", self.name, Channel.TELEMETRY), message.encode())


@pytest.fixture
def fleet(tmp_path):
    made = VirtualFleet(tmp_path, devices=0)
    for index in range(4):
        Device(made, f"device-{index}")
    made.settle()
    yield made
    made.service.stop()


def forge(fleet, channel, payload, *, device="device-0", retain=False):
    """Publish as a stranger; let everything be said and heard."""
    if isinstance(payload, dict):
        payload = json.dumps(payload).encode()
    fleet.broker.route(device_topic("fleet", device, channel), payload, retain=retain)
    fleet.settle()


def restart(fleet, name="device-0", *, boot, keeps_state=True, target=TARGETS[0]):
    """Start a device again, with its disk or with an empty one."""
    before = fleet.devices[name]
    device = Device(fleet, name, boot=boot, target=target, saved=before.state.to_record() if keeps_state else None)
    if keeps_state:
        device.state = replace(device.state, active=before.release)
    fleet.settle()
    return device


def report(fleet, **changes):
    return {
        "v": 1,
        "boot": "other001",
        "sequence": 0,
        "desired_version": 0,
        "release": None,
        "previous": None,
        "target": "raspberry-pi-4",
        "agent_version": "0.1.0",
        "runtimes": ["onnxruntime"],
        **changes,
    }


def assert_together(fleet, name="device-0", release="toy@2"):
    """The service and the device mean the same, and the device does what it is asked next."""
    device, known = fleet.devices[name], fleet.service.device(name)
    assert (known.boot, known.target) == (device.boot, device.target)
    fleet.service.assign(name, release)
    fleet.settle()
    known, wanted = fleet.service.device(name), fleet.service.desired(name)
    assert device.release == known.release == wanted.release == release
    assert device.seen == known.desired_version == wanted.version
    Desired.decode(wanted.encode())


@pytest.mark.parametrize("version", [LARGEST, 2**39 + 1, 2**39, REPORT_JUMP + 2])
def test_a_report_of_a_version_that_nobody_asked_for_is_kept_nowhere(fleet, version):
    fleet.roll_out("toy@1")
    before = fleet.service.device("device-0"), fleet.service.desired("device-0")
    forge(fleet, Channel.REPORTED, report(fleet, desired_version=version))
    after = fleet.service.device("device-0"), fleet.service.desired("device-0")
    assert replace(after[0], sequence=before[0].sequence, last_seen=before[0].last_seen) == before[0]
    assert after[1] == before[1]
    assert_together(fleet)
    fleet.crash_service()
    fleet.start_service()
    fleet.settle()
    assert_together(fleet, release="toy@3")


def test_a_report_that_jumps_as_far_as_a_restored_backup_may_is_undone_by_the_next_genuine_one(fleet):
    fleet.roll_out("toy@1")
    forge(fleet, Channel.REPORTED, report(fleet, desired_version=1 + REPORT_JUMP, release="toy@1"))
    assert_together(fleet)
    assert fleet.service.desired("device-0").version < 10


@pytest.mark.parametrize("version", [LARGEST, 2**40, 1 + VERSION_JUMP + 1])
@pytest.mark.parametrize("release", [None, "toy@3"])
def test_a_retained_wish_that_jumps_is_kept_nowhere_and_the_next_genuine_one_is_obeyed(fleet, version, release):
    fleet.roll_out("toy@1")
    device = fleet.devices["device-0"]
    wish = {"v": 1, "version": version, "release": release, "rollout": None, "attempt": 1, "compare": False}
    forge(fleet, Channel.DESIRED, wish, retain=True)
    assert (device.release, device.seen) == ("toy@1", 1)
    assert_together(fleet)
    restart(fleet, boot="boot-2")
    assert_together(fleet, release="toy@3")


def test_a_wish_within_reach_is_undone_by_the_report_of_the_device_itself(fleet):
    """It cannot be told from a genuine one without identity; the fleet hears of it and asks again."""
    fleet.roll_out("toy@1")
    wish = {"v": 1, "version": 1 + VERSION_JUMP, "release": None, "rollout": None, "attempt": 1, "compare": False}
    forge(fleet, Channel.DESIRED, wish, retain=True)
    assert fleet.devices["device-0"].release == "toy@1"
    assert fleet.service.desired("device-0").version == VERSION_JUMP + 2
    assert_together(fleet)


@pytest.mark.parametrize("boot_of_the_liar", ["other002", "boot-1"])
def test_a_target_does_not_change_by_a_message(fleet, boot_of_the_liar):
    fleet.roll_out("toy@1")
    log = EventLog()
    forge(fleet, Channel.REPORTED, report(fleet, boot=boot_of_the_liar, sequence=50, target="x86-gateway"))
    known = fleet.service.device("device-0")
    assert (known.target, known.boot, known.release) == ("raspberry-pi-4", "boot-1", "toy@1")
    told = [event for event in fleet.events if isinstance(event, ReportRefused)]
    assert told == [ReportRefused("device-0", "it says that its target is x86-gateway, and it was raspberry-pi-4")]
    assert "hedgerow device reset device-0" in log.describe(told[0])
    assert fleet.service.refusal("device-0").reason == told[0].reason
    for _ in range(3):
        forge(fleet, Channel.REPORTED, report(fleet, boot=boot_of_the_liar, sequence=51, target="x86-gateway"))
    assert sum(isinstance(event, ReportRefused) for event in fleet.events) == 1
    assert_together(fleet)


@pytest.mark.parametrize("message", ["report", "presence", "both"])
def test_a_start_that_never_was_does_not_hide_the_real_one(fleet, message):
    fleet.roll_out("toy@1")
    if message != "report":
        forge(fleet, Channel.PRESENCE, {"v": 1, "online": True, "boot": "other003"}, retain=True)
    if message != "presence":
        forge(fleet, Channel.REPORTED, report(fleet, boot="other003", desired_version=1, release="toy@1"))
    fleet.settle(seconds=10)
    assert_together(fleet)
    assert fleet.service.device("device-0").online


def test_a_number_of_a_report_that_was_made_up_does_not_make_the_real_ones_repeats(fleet):
    fleet.roll_out("toy@1")
    for sequence in (2**40, 10**6 + 1000, 10**5):
        forge(fleet, Channel.REPORTED, report(fleet, boot="boot-1", sequence=sequence, desired_version=1))
    assert_together(fleet)


def test_a_device_that_is_switched_off_has_not_succeeded(fleet):
    fleet.roll_out("toy@1")
    for index in range(4):
        fleet.broker.break_link(f"device-{index}")
    fleet.settle()
    rollout = fleet.roll_out("toy@2", CANARY)
    (canary,) = (name for name, part in fleet.service.rollout(rollout).executions.items() if part.stage == 0)
    for state in ("IN_PROGRESS", "SUCCEEDED"):
        execution = {"v": 1, "rollout": rollout, "attempt": 1, "state": state, "step": "commit", "reason": ""}
        forge(fleet, Channel.EXECUTION, execution, device=canary)
    for sequence in range(20):
        window = make_window("toy@2", correct=99, now=fleet.now)
        forge(
            fleet, Channel.TELEMETRY, Telemetry(boot="boot-1", sequence=sequence, window=window).encode(), device=canary
        )
    found = fleet.service.rollout(rollout)
    assert found.executions[canary].state is ExecutionState.QUEUED
    assert (found.state, found.stage) == (RolloutState.RUNNING, 0)
    assert fleet.service.store.gate_window(rollout, 0) is None
    fleet.broker.mend_link(fleet.devices[canary].link)
    fleet.settle()
    assert fleet.service.rollout(rollout).executions[canary].state is ExecutionState.SUCCEEDED
    assert fleet.devices[canary].release == "toy@2"


def test_a_device_that_did_not_acknowledge_has_not_succeeded(fleet):
    """Online, but its report does not say that it acted on what it was asked."""
    fleet.roll_out("toy@1")
    fleet.devices["device-0"].turn = lambda: 0
    rollout = fleet.roll_out("toy@2", ONE_STAGE)
    for state in ("SUCCEEDED", "FAILED", "REJECTED"):
        message = Execution(rollout=rollout, attempt=1, state=ExecutionState(state), step="commit", reason="x")
        forge(fleet, Channel.EXECUTION, message.encode())
    assert fleet.service.rollout(rollout).executions["device-0"].state is ExecutionState.QUEUED
    assert fleet.service.rollout(rollout).state is RolloutState.RUNNING
    del fleet.devices["device-0"].turn
    fleet.settle()
    assert fleet.service.rollout(rollout).state is RolloutState.FINISHED
    assert fleet.releases() == ["toy@2"] * 4


def test_counts_that_overflow_their_sums_are_refused_and_the_next_window_is_added(fleet):
    fleet.roll_out("toy@1")
    forged = make_window("toy@1", samples=LARGEST - 1, correct=5, now=fleet.now)
    forge(fleet, Channel.TELEMETRY, Telemetry(boot="boot-1", sequence=7, window=forged).encode())
    assert fleet.service.windows() == ()
    for _ in range(2):
        fleet.send_windows("toy@1")
    assert len(fleet.service.windows("device-0")) == 2
    ((_period, merged),) = fleet.service.store.merged_windows("fleet", "toy@1")
    assert merged.samples == 2 * 4 * 100


def test_windows_of_nobody_are_kept_nowhere(fleet):
    window = Telemetry(boot="b", sequence=0, window=make_window("toy@1", now=fleet.now))
    forge(fleet, Channel.TELEMETRY, window.encode(), device="nobody")
    assert fleet.service.windows() == ()
    assert fleet.service.store.merged_windows("fleet", "toy@1") == ()
    assert "nobody" not in {device.name for device in fleet.service.devices()}


def test_names_beyond_the_limit_are_not_taken_in(tmp_path):
    fleet = VirtualFleet(tmp_path, devices=2, device_limit=2)
    fleet.settle()
    for number in range(5):
        forge(fleet, Channel.REPORTED, report(fleet), device=f"made-up-{number}")
        forge(fleet, Channel.PRESENCE, {"v": 1, "online": True, "boot": "x"}, device=f"made-up-{number}")
    assert fleet.service.count_devices() == 2
    assert fleet.roll_out("toy@1") == "rollout-1"
    assert fleet.releases() == ["toy@1"] * 2
    fleet.service.stop()


# The ways back.


def test_a_store_from_an_old_backup_goes_on_above_what_its_devices_have_seen(fleet):
    backup = fleet.folder / "backup.db"
    fleet.service.backup(backup)
    for number in range(30):
        fleet.service.assign("device-0", f"toy@{number % 2 + 1}")
        fleet.settle()
    assert fleet.devices["device-0"].seen == 30
    fleet.crash_service()
    backup.replace(fleet.folder / "fleet.db")
    for leftover in ("fleet.db-wal", "fleet.db-shm"):
        (fleet.folder / leftover).unlink(missing_ok=True)
    fleet.start_service()
    for device in fleet.devices.values():
        fleet.broker.mend_link(device.link)
    fleet.settle()
    assert_together(fleet, release="toy@3")
    assert fleet.devices["device-0"].seen == 31


def test_a_device_with_an_empty_disk_is_reached_however_far_the_fleet_is_ahead(fleet):
    fleet.roll_out("toy@1")
    desired = fleet.service.desired("device-0")
    fleet.service.store.save_desired("device-0", replace(desired, version=50_000))
    device = restart(fleet, boot="boot-2", keeps_state=False)
    assert (device.release, device.seen) == ("toy@1", 1)
    assert_together(fleet)


def test_a_store_that_an_earlier_version_let_be_poisoned_recovers_with_the_next_report(fleet):
    fleet.roll_out("toy@1")
    store = fleet.service.store
    store.save_desired("device-0", replace(store.desired("device-0"), version=2**53))
    store.save_device(replace(store.device("device-0"), desired_version=LARGEST))
    fleet.broker.mend_link(fleet.devices["device-0"].link)
    fleet.settle()
    assert_together(fleet)


def test_a_disk_that_an_earlier_version_let_be_poisoned_is_not_believed():
    poisoned = {
        "desired": {"version": LARGEST, "release": None, "rollout": None, "attempt": 1, "compare": False},
        "is_settled": True,
        "acted_version": LARGEST,
        "outcome": None,
    }
    identity = Identity(boot="b", target="t", agent_version="1", runtimes=())
    with pytest.raises(DecodeError):
        AgentState.from_fields(identity, decode_json(encode_json(poisoned), "saved", limit_bytes=10**6))


def test_other_hardware_under_the_same_name_is_taken_after_a_reset(fleet):
    fleet.roll_out("toy@1")
    restart(fleet, boot="boot-2", keeps_state=False, target=TARGETS[1])
    assert fleet.service.device("device-0").target == TARGETS[0]
    fleet.service.reset_device("device-0", actor="me")
    fleet.settle()
    assert_together(fleet)
    assert fleet.service.device("device-0").target == TARGETS[1]
    assert fleet.service.refusal("device-0") is None
    assert [(entry.actor, entry.subject) for entry in fleet.service.audit() if entry.action == "device.reset"] == [
        ("me", "device-0")
    ]


def test_a_device_whose_number_was_driven_out_of_reach_comes_back_by_a_reset(fleet):
    fleet.roll_out("toy@1")
    device = fleet.devices["device-0"]
    far = Desired(version=device.seen + 5 * REPORT_JUMP, release="toy@1")
    device.state = replace(device.state, desired=far, acted_version=far.version)
    restart(fleet, boot="boot-2")
    fleet.service.assign("device-0", "toy@3")
    fleet.settle()
    assert fleet.devices["device-0"].release == "toy@1"
    assert "acted on version" in fleet.service.refusal("device-0").reason
    fleet.service.reset_device("device-0")
    fleet.settle()
    assert fleet.devices["device-0"].release == "toy@3"
    assert_together(fleet)


def test_a_reset_of_a_device_that_is_away_waits_for_it(fleet):
    fleet.roll_out("toy@1")
    fleet.broker.break_link("device-0")
    fleet.settle()
    fleet.service.reset_device("device-0")
    fleet.settle(seconds=20)
    fleet.broker.mend_link(fleet.devices["device-0"].link)
    fleet.settle()
    assert_together(fleet)


def test_a_reset_in_the_middle_of_a_rollout_does_not_end_it(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    for index in range(4):
        fleet.service.reset_device(f"device-{index}")
    fleet.settle()
    for _ in range(8):
        fleet.send_windows("toy@2")
    assert fleet.service.rollout(rollout).state is RolloutState.FINISHED
    assert fleet.releases() == ["toy@2"] * 4


def test_nobody_cannot_be_reset(fleet):
    with pytest.raises(UnknownDeviceError, match="nobody"):
        fleet.service.reset_device("nobody")


forged_reports = st.builds(
    lambda **changes: (Channel.REPORTED, {**report(None), **changes}, False),
    boot=st.sampled_from(["boot-1", "x", "y"]),
    sequence=st.sampled_from([0, 1, 5, 1000, 10**6, LARGEST]),
    desired_version=st.sampled_from([0, 1, 2, 1000, REPORT_JUMP, 2**39, LARGEST]),
    release=st.sampled_from([None, "toy@1", "toy@3"]),
    target=st.sampled_from(["raspberry-pi-4", "x86-gateway"]),
)
forged_wishes = st.builds(
    lambda version, release: (
        Channel.DESIRED,
        {"v": 1, "version": version, "release": release, "rollout": None, "attempt": 1, "compare": False},
        True,
    ),
    version=st.sampled_from([0, 1, 2, 500, 1001, 2**40, LARGEST]),
    release=st.sampled_from([None, "toy@1"]),
)
forged_presences = st.builds(
    lambda online, boot: (Channel.PRESENCE, {"v": 1, "online": online, "boot": boot}, True),
    online=st.booleans(),
    boot=st.sampled_from(["boot-1", "x"]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(forged_reports | forged_wishes | forged_presences, max_size=6))
def test_after_any_few_forgeries_the_device_and_the_fleet_come_together(tmp_path_factory, messages):
    """By itself when the numbers stayed within reach, else by a reset; never for good."""
    fleet = VirtualFleet(tmp_path_factory.mktemp("fleet"), devices=0)
    try:
        Device(fleet, "device-0")
        fleet.settle()
        fleet.service.assign("device-0", "toy@1")
        fleet.settle()
        for channel, payload, retain in messages:
            forge(fleet, channel, payload, retain=retain)
        fleet.settle(seconds=30)
        if fleet.service.refusal("device-0") is not None:
            fleet.service.reset_device("device-0")
            fleet.settle(seconds=30)
        # What the device says of itself next.
        fleet.broker.mend_link(fleet.devices["device-0"].link)
        fleet.settle(seconds=30)
        assert_together(fleet)
        assert Reported.decode(json.dumps(report(None)).encode()).boot == "other001"
    finally:
        fleet.service.stop()
