"""The service over a broker in memory, with virtual devices; no thread unless the test is about it."""

import random
import threading
import time
from dataclasses import replace

import pytest

from hedgerow.fleet.errors import (
    NoDevicesError,
    RolloutConflictError,
    ServiceStoppedError,
    UnknownDeviceError,
    UnknownReleaseError,
    UnknownRolloutError,
)
from hedgerow.fleet.rollout.gates import GatePlan
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.service.events import AlertChanged, DeviceChanged, ReleaseProven, RolloutChanged, WindowArrived
from hedgerow.fleet.virtual_device import Installation
from hedgerow.link import Connected
from hedgerow.reference import Reference
from hedgerow.wire.device import Desired, Presence, Reported
from hedgerow.wire.execution import Execution, ExecutionState
from hedgerow.wire.topics import Channel, device_topic
from tests.fleet.virtual_fleet import CANARY, ONE_STAGE, TARGETS, VirtualFleet, make_manifest, make_window
from tests.scores import pairs


@pytest.fixture
def fleet(tmp_path):
    made = VirtualFleet(tmp_path)
    made.settle()
    yield made
    made.service.stop()


def states(fleet, rollout_id):
    return {name: record.state for name, record in fleet.service.rollout(rollout_id).executions.items()}


def test_devices_become_known_by_their_reports(fleet):
    devices = fleet.service.devices()
    assert [device.name for device in devices] == [f"device-{index}" for index in range(8)]
    assert {device.target for device in devices} == set(TARGETS)
    assert all(device.online and device.release is None for device in devices)
    assert any(isinstance(event, DeviceChanged) and event.before is None for event in fleet.events)


def test_a_rollout_without_a_gate_finishes_on_install_results(fleet):
    rollout = fleet.roll_out("toy@1")
    assert fleet.service.rollout(rollout).state is RolloutState.FINISHED
    assert set(states(fleet, rollout).values()) == {ExecutionState.SUCCEEDED}
    assert fleet.releases() == ["toy@1"] * 8
    assert fleet.service.device("device-0").release == "toy@1"
    assert [event.rollout.state for event in fleet.events if isinstance(event, RolloutChanged)][-1] == "FINISHED"


def test_the_canary_must_pass_the_gate_before_the_others_get_the_release(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    assert fleet.releases().count("toy@2") == 2
    assert fleet.service.rollout(rollout).state is RolloutState.RUNNING
    for _ in range(4):
        fleet.send_windows("toy@2")
    assert fleet.releases() == ["toy@2"] * 8
    for _ in range(4):
        fleet.send_windows("toy@2")
    assert fleet.service.rollout(rollout).state is RolloutState.FINISHED


def test_a_bad_canary_is_stopped_and_rolled_back(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@3", CANARY)
    for _ in range(10):
        fleet.send_windows("toy@3", correct=40)
    found = fleet.service.rollout(rollout)
    assert found.state is RolloutState.ROLLED_BACK
    assert "gate" in found.reason
    assert fleet.releases() == ["toy@1"] * 8
    assert sum(desired.release == "toy@3" for d in fleet.devices.values() for desired in d.installations) == 2


def test_a_canary_without_labels_waits_and_goes_back_when_its_patience_ends(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", replace(CANARY, gate_timeout_s=60))
    for _ in range(5):
        fleet.send_windows("toy@2", correct=None, paired=pairs(agreed=100))
    waiting = fleet.service.rollout(rollout)
    assert waiting.state is RolloutState.RUNNING
    assert "none of 1000 samples is labelled, so nothing is known of quality" in waiting.reason
    fleet.settle(seconds=61)
    found = fleet.service.rollout(rollout)
    assert found.state is RolloutState.ROLLED_BACK
    assert found.reason.startswith("the gate of the stage canary could not decide within 60 s: none of 1000 samples")
    assert fleet.releases() == ["toy@1"] * 8


@pytest.mark.parametrize("samples", [0, 100])
def test_a_first_release_without_evidence_goes_back_to_nothing(fleet, samples):
    rollout = fleet.roll_out("toy@1", replace(CANARY, gate_timeout_s=60))
    if samples:
        fleet.send_windows("toy@1", correct=None)
    fleet.settle(seconds=61)
    assert fleet.service.rollout(rollout).state is RolloutState.ROLLED_BACK
    assert fleet.releases() == [None] * 8


def test_a_release_of_which_no_accuracy_is_known_does_not_go_on_without_a_floor(fleet):
    manifest = make_manifest("toy@4")
    unmeasured = replace(manifest, artifacts=tuple(replace(a, metrics={}) for a in manifest.artifacts))
    fleet.catalogue.add(unmeasured, fleet.catalogue.reference("toy@1"))
    fleet.roll_out("toy@1")
    paired = pairs(agreed=100, both_right=100)
    rollout = fleet.roll_out("toy@4", CANARY)
    for _ in range(20):
        fleet.send_windows("toy@4", correct=100, paired=paired)
    assert fleet.service.rollout(rollout).state is RolloutState.RUNNING
    assert "there is no floor" in fleet.service.rollout(rollout).reason
    fleet.service.abort(rollout)
    fleet.settle()
    rollout = fleet.roll_out("toy@4", replace(CANARY, gate=replace(CANARY.gate, floor=0.9)))
    for _ in range(20):
        fleet.send_windows("toy@4", correct=100, paired=paired)
    assert fleet.service.rollout(rollout).state is RolloutState.FINISHED


def test_a_release_that_equals_the_one_before_at_nothing_is_stopped_by_the_floor(fleet):
    """The world is another one: both models are wrong on all of it, and equal."""
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    for _ in range(3):
        fleet.send_windows("toy@2", correct=0, paired=pairs(agreed=100, both_wrong=100))
    found = fleet.service.rollout(rollout)
    assert found.state is RolloutState.ROLLED_BACK
    assert found.reason.startswith("the gate stopped it: below the floor: accuracy 0.0%")
    assert "the floor is 85.0%, the 95.0% measured before release less 10 points" in found.reason
    assert fleet.releases() == ["toy@1"] * 8


def test_a_rollout_without_a_gate_says_so_for_ever(fleet):
    rollout = fleet.roll_out("toy@1")
    fleet.crash_service()
    fleet.start_service()
    assert fleet.service.rollout(rollout).plan.gate is None


@pytest.mark.parametrize(("age_s", "counted"), [(3600, 0), (30, 100), (10**9 - 10, 100)])
def test_what_a_device_counted_before_the_rollout_is_no_evidence_for_its_gate(fleet, age_s, counted):
    """It came out of the spool, from an earlier life of the same release. A clock at 1970 says nothing of its age."""
    fleet.now = 10.0**9
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    canary = next(device for device in fleet.devices.values() if device.release == "toy@2")
    canary.send_window(make_window("toy@2", now=fleet.now - age_s))
    fleet.settle()
    with fleet.reader() as stored:
        found = stored.gate_window(rollout, 0)
    assert (found.samples if found else 0) == counted
    assert len(fleet.service.windows(canary.name)) == 1


def test_failing_installations_stop_a_rollout(tmp_path):
    fleet = VirtualFleet(tmp_path, devices=0)
    for index in range(8):
        fleet.add_device(
            f"device-{index}",
            TARGETS[0],
            install=lambda wanted: (
                Installation(ExecutionState.FAILED, "no space") if wanted.release == "toy@2" else Installation()
            ),
        )
    fleet.settle()
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    found = fleet.service.rollout(rollout)
    assert found.state in {RolloutState.ABORTED, RolloutState.ROLLED_BACK}
    assert fleet.releases() == ["toy@1"] * 8
    attempts = [
        wanted.attempt for d in fleet.devices.values() for wanted in d.installations if wanted.release == "toy@2"
    ]
    assert set(attempts) == {1, 2}
    fleet.service.stop()


def test_devices_whose_hardware_the_release_lacks_are_left_alone(fleet):
    fleet.catalogue.add(make_manifest("toy@4", targets=("raspberry-pi-4",)), fleet.catalogue.reference("toy@1"))
    rollout = fleet.roll_out("toy@4")
    assert {fleet.devices[name].target for name in states(fleet, rollout)} == {"raspberry-pi-4"}
    assert sorted(set(fleet.releases()), key=str) == [None, "toy@4"]


def test_a_rollout_needs_a_signed_release_and_devices_and_no_other_rollout(fleet):
    with pytest.raises(UnknownReleaseError, match="toy@9"):
        fleet.service.start_rollout("toy@9", ONE_STAGE)
    fleet.catalogue.add(make_manifest("toy@5", targets=("iphone-15",)), fleet.catalogue.reference("toy@1"))
    with pytest.raises(NoDevicesError, match="iphone-15"):
        fleet.service.start_rollout("toy@5", ONE_STAGE)
    first = fleet.service.start_rollout("toy@1", replace(ONE_STAGE, needs_approval=True))
    with pytest.raises(
        RolloutConflictError, match=r"\(AWAITING_APPROVAL\); .* abort it with POST /v1/rollouts/\S+/abort$"
    ):
        fleet.service.start_rollout("toy@1", ONE_STAGE)
    assert fleet.releases() == [None] * 8
    fleet.service.approve(first.id)
    fleet.settle()
    assert fleet.service.rollout(first.id).state is RolloutState.FINISHED
    with pytest.raises(UnknownRolloutError):
        fleet.service.pause("rollout-99")
    assert [entry.action for entry in fleet.service.audit()] == ["rollout.start", "rollout.approve"]


def test_an_aborted_rollout_takes_its_release_back(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    fleet.service.abort(rollout)
    fleet.settle()
    assert fleet.service.rollout(rollout).state is RolloutState.ROLLED_BACK
    assert fleet.releases() == ["toy@1"] * 8


def test_a_paused_rollout_assigns_nothing_until_it_goes_on(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    fleet.service.pause(rollout)
    for _ in range(4):
        fleet.send_windows("toy@2")
    assert fleet.releases().count("toy@2") == 2
    fleet.service.resume(rollout)
    for _ in range(8):
        fleet.send_windows("toy@2")
    assert fleet.service.rollout(rollout).state is RolloutState.FINISHED


def test_a_rollout_goes_on_after_the_service_was_killed_in_the_middle(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    fleet.crash_service()
    for device in fleet.devices.values():
        device.turn()
    fleet.start_service()
    fleet.settle()
    for _ in range(8):
        fleet.send_windows("toy@2")
    assert fleet.service.rollout(rollout).state is RolloutState.FINISHED
    assert fleet.releases() == ["toy@2"] * 8


def test_what_was_saved_and_not_published_before_a_crash_is_published_after_it(tmp_path):
    lost = []
    fleet = VirtualFleet(tmp_path, deliver=lambda to, topic, _payload: 0 if lost and topic.endswith("desired") else 1)
    fleet.settle()
    lost.append(True)
    rollout = fleet.roll_out("toy@1")
    assert fleet.releases() == [None] * 8
    fleet.crash_service()
    lost.clear()
    fleet.start_service()
    fleet.settle()
    assert fleet.service.rollout(rollout).state is RolloutState.FINISHED
    fleet.service.stop()


@pytest.mark.parametrize("seed", range(5))
def test_lost_and_repeated_messages_still_converge(tmp_path, seed):
    draw = random.Random(seed)
    fleet = VirtualFleet(
        tmp_path, nudge_s=1.0, nudge_longest_s=4.0, deliver=lambda *_: draw.choices((0, 1, 2), (0.3, 0.5, 0.2))[0]
    )
    for _ in range(20):
        for device in fleet.devices.values():
            device.report()
        fleet.settle(seconds=1)
    assert len([device for device in fleet.service.devices() if device.target]) == 8
    rollout = fleet.roll_out("toy@1")
    fleet.settle(seconds=120)
    assert fleet.service.rollout(rollout).state is RolloutState.FINISHED
    assert fleet.releases() == ["toy@1"] * 8
    assert set(states(fleet, rollout).values()) == {ExecutionState.SUCCEEDED}
    fleet.service.stop()


def test_a_window_counts_once_however_often_it_arrives(fleet):
    fleet.roll_out("toy@1")
    device = fleet.devices["device-0"]
    message = device.send_window(make_window("toy@1"))
    device.send_again(message)
    fleet.settle()
    device.send_again(message)
    fleet.settle()
    assert len(fleet.service.windows("device-0")) == 1
    assert [event for event in fleet.events if isinstance(event, WindowArrived)] == [
        WindowArrived("device-0", message.window)
    ]


def test_a_window_with_other_bins_or_of_an_unknown_release_is_dropped(fleet):
    fleet.roll_out("toy@1")
    device = fleet.devices["device-0"]
    fitting = make_window("toy@1")
    device.send_window(replace(fitting, features={"x": fitting.features["x"]}))
    device.send_window(make_window("toy@77"))
    fleet.settle()
    assert fleet.service.windows() == ()


def test_reports_that_come_late_or_from_an_earlier_start_change_nothing(fleet):
    topic = device_topic("fleet", "device-0", Channel.REPORTED)
    before = fleet.service.device("device-0")
    said = Reported(
        boot="boot-2",
        sequence=5,
        desired_version=0,
        release="toy@1",
        previous=None,
        target="raspberry-pi-4",
        agent_version="1",
    )
    for message in (said, replace(said, sequence=5, release="toy@2"), replace(said, boot=before.boot, sequence=99)):
        fleet.broker.route(topic, message.encode(), retain=False)
    fleet.service.turn(0.0)
    after = fleet.service.device("device-0")
    assert (after.boot, after.sequence, after.release) == ("boot-2", 5, "toy@1")


def test_the_will_of_an_earlier_start_does_not_take_the_present_one_offline(fleet):
    fleet.broker.break_link("device-0")
    fleet.settle()
    assert not fleet.service.device("device-0").online
    fleet.add_device("device-0", TARGETS[0], boot="boot-2")
    fleet.settle()
    topic = device_topic("fleet", "device-0", Channel.PRESENCE)
    fleet.broker.route(topic, b'{"boot":"boot-1","online":false,"v":1}', retain=True)
    fleet.settle()
    assert fleet.service.device("device-0").online


def test_foreign_topics_and_senseless_payloads_are_ignored(fleet):
    before = fleet.service.devices()
    for topic in (
        "hedgerow/v1/other/device-0/reported",
        "hedgerow/v1/fleet/device-0/desired",
        "x",
        "hedgerow/v1/fleet/a/b/c",
    ):
        fleet.broker.route(topic, b"{}", retain=False)
    for channel in ("reported", "presence", "execution", "telemetry", "update"):
        for payload in (b"", b"\xff", b"[]", b'{"v":1}', b'{"v":2}', b'{"v":1,"boot":"b"}' * 2):
            fleet.broker.route(f"hedgerow/v1/fleet/device-0/{channel}", payload, retain=False)
    fleet.settle()
    assert fleet.service.devices() == before


def test_a_device_that_joins_a_running_rollout_waits_for_its_stage(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    late = fleet.add_device("late", TARGETS[0])
    fleet.settle()
    assert late.release is None
    for _ in range(8):
        fleet.send_windows("toy@2")
    assert late.release == "toy@2"
    assert fleet.service.rollout(rollout).state is RolloutState.FINISHED


def test_a_device_that_joins_after_a_rollout_gets_what_the_others_have(fleet):
    fleet.roll_out("toy@1")
    late = fleet.add_device("late", TARGETS[0])
    fleet.settle()
    assert late.release == "toy@1"


def test_one_device_can_be_given_a_release(fleet):
    fleet.service.assign("device-3", "toy@2")
    fleet.settle()
    assert fleet.releases().count("toy@2") == 1
    assert fleet.service.desired("device-3") == Desired(version=1, release="toy@2")
    with pytest.raises(UnknownDeviceError):
        fleet.service.assign("nobody", "toy@2")
    with pytest.raises(UnknownReleaseError):
        fleet.service.assign("device-3", "toy@9")


def test_desired_versions_rise_above_what_a_device_has_seen(fleet):
    """A service whose store was lost is not ignored by devices that remember higher versions."""
    device = fleet.devices["device-0"]
    device.desired_version = 41
    device.report()
    fleet.settle()
    fleet.service.assign("device-0", "toy@1")
    fleet.settle()
    assert device.release == "toy@1"
    assert fleet.service.desired("device-0").version == 42


def test_a_candidate_is_the_gates_and_not_watched_for_drift(fleet):
    fleet.roll_out("toy@1")
    plan = replace(CANARY, gate=replace(CANARY.gate, minimum_samples=10**6))
    rollout = fleet.roll_out("toy@2", plan)
    for _ in range(4):
        fleet.send_windows("toy@2", x=(100, 0))
    assert fleet.service.rollout(rollout).state is RolloutState.RUNNING
    assert fleet.service.alerts() == ()


def test_drift_on_some_devices_raises_one_alert_that_names_them(fleet):
    fleet.roll_out("toy@1")
    drifted = {"device-0", "device-1"}
    for _ in range(3):
        fleet.send_windows("toy@1")
    assert fleet.service.alerts() == ()
    for _ in range(3):
        fleet.send_windows("toy@1", only=drifted, x=(98, 2))
        fleet.send_windows("toy@1", only=set(fleet.devices) - drifted)
    (alert,) = fleet.service.alerts()
    assert set(alert.devices) == drifted
    assert "x" in alert.features
    assert next(event.is_new for event in fleet.events if isinstance(event, AlertChanged))
    assert sum(event.is_new for event in fleet.events if isinstance(event, AlertChanged)) == 1


def test_a_devices_own_baseline_takes_the_place_of_the_reference(fleet):
    """What a retrained release was trained on differs from device to device; its first labels prove it."""
    fleet.roll_out("toy@1")
    fleet.service.save_baselines("toy@1", {name: {"x": (98, 2)} for name in fleet.devices})
    for _ in range(3):
        fleet.send_windows("toy@1", x=(97, 3), correct=100)
    assert fleet.service.alerts() == ()
    (proven,) = (event for event in fleet.events if isinstance(event, ReleaseProven))
    assert (proven.release, "above the floor of 93.0%" in proven.reason) == ("toy@1", True)
    for _ in range(3):
        fleet.send_windows("toy@1")
    assert fleet.service.alerts()[0].features == ("x",)


def retrained_in_a_moved_world(fleet) -> None:
    """Sign toy@4, trained on devices that saw a moved world, and say what each of them saw."""
    moved = Reference(
        tuple(replace(f, counts=(980, 20)) if f.name == "x" else f for f in fleet.catalogue.reference("toy@1").features)
    )
    fleet.catalogue.add(make_manifest("toy@4", parent="toy@1"), moved)
    fleet.service.save_baselines("toy@4", {name: {"x": (980, 20)} for name in fleet.devices})


def test_the_world_in_which_a_retrained_release_fails_does_not_become_normal(fleet):
    """It is equal to what it saw in training, and wrong about half of it: green would be a lie."""
    fleet.roll_out("toy@1")
    retrained_in_a_moved_world(fleet)
    fleet.roll_out("toy@4")
    for _ in range(3):
        fleet.send_windows("toy@4", x=(98, 2), correct=50)
    kinds = {alert.kind: alert for alert in fleet.service.alerts()}
    assert set(kinds) == {"drift", "score"}
    assert kinds["drift"].features == ("x",)
    assert set(kinds["score"].devices) == set(fleet.devices)
    assert kinds["score"].reason.startswith("device:device-0: accuracy 50.0%")
    assert "lies below the floor of 93.0%, the 95.0% measured before release less 2 points" in kinds["score"].reason
    with fleet.reader() as stored:
        assert not stored.is_proven("toy@4")


def test_the_world_in_which_a_retrained_release_has_proven_itself_is_normal(fleet):
    fleet.roll_out("toy@1")
    retrained_in_a_moved_world(fleet)
    fleet.roll_out("toy@4", replace(ONE_STAGE, gate=GatePlan(floor=0.8)))
    fleet.send_windows("toy@4", x=(98, 2))
    assert fleet.service.rollouts()[-1].state is RolloutState.FINISHED
    with fleet.reader() as stored:
        assert stored.is_proven("toy@4")
    for _ in range(4):
        fleet.send_windows("toy@4", x=(98, 2))
    assert fleet.service.alerts() == ()


def test_what_a_model_answers_before_it_has_proven_itself_is_no_baseline(fleet):
    fleet.roll_out("toy@1")
    retrained_in_a_moved_world(fleet)
    fleet.roll_out("toy@4")
    fleet.send_windows("toy@4", x=(98, 2), correct=50, confident=10)
    with fleet.reader() as stored:
        assert set(stored.baselines("toy@4")["device-0"]) == {"x"}
    fleet.service.store.save_proof("toy@4", fleet.now, "a person looked at it")
    fleet.send_windows("toy@4", x=(98, 2), confident=80)
    with fleet.reader() as stored:
        assert stored.baselines("toy@4")["device-0"]["output.confidence"] == (20, 80)


def test_a_score_below_the_floor_raises_an_alert_that_names_the_devices_and_grows(fleet):
    fleet.roll_out("toy@1", replace(ONE_STAGE, gate=GatePlan(floor=0.8)))
    for _ in range(5):
        fleet.send_windows("toy@1")
    assert fleet.service.alerts() == ()
    fleet.now += 100
    fleet.send_windows("toy@1", only={"device-3"}, correct=10)
    (alert,) = fleet.service.alerts()
    assert (alert.kind, alert.devices, alert.id) == ("score", ("device-3",), "score-toy-1-1")
    assert "below the floor of 80.0%, which was asked for" in alert.reason
    assert alert.changed_at("device-3", TARGETS[1]) == 999.0, "the beginning of its last good window"
    fleet.send_windows("toy@1", only={"device-4"}, correct=10)
    (alert,) = fleet.service.alerts()
    assert alert.devices == ("device-3", "device-4")
    told = [event.is_new for event in fleet.events if isinstance(event, AlertChanged) and event.alert.kind == "score"]
    assert told == [True, False]
    fleet.crash_service()
    fleet.start_service()
    fleet.settle()
    fleet.send_windows("toy@1", only={"device-3"}, correct=10)
    assert fleet.service.alerts() == (alert,), "and not again after a restart"


def test_windows_without_labels_say_nothing_of_the_score(fleet):
    fleet.roll_out("toy@1")
    for _ in range(5):
        fleet.send_windows("toy@1", correct=None)
    with fleet.reader() as stored:
        assert stored.score_state("toy@1") is None
    with fleet.reader() as stored:
        assert not stored.is_proven("toy@1")


def test_the_thread_answers_commands_of_other_threads_and_stops_in_order(tmp_path):
    fleet = VirtualFleet(tmp_path, devices=2, tick_s=0.01)

    def turn_until(is_true):
        deadline = time.monotonic() + 30
        while not is_true() and time.monotonic() < deadline:
            for device in fleet.devices.values():
                device.turn()
            time.sleep(0.002)

    with fleet.service as service:
        turn_until(lambda: len([d for d in service.devices() if d.target]) == 2)
        rollout = service.start_rollout("toy@1", ONE_STAGE)
        turn_until(lambda: service.rollout(rollout.id).state is RolloutState.FINISHED)
        assert service.rollout(rollout.id).state is RolloutState.FINISHED
        with pytest.raises(UnknownReleaseError):
            service.start_rollout("toy@9")


def test_a_subscriber_that_fails_or_asks_for_changes_does_not_stop_the_service(fleet, caplog):
    def fail(_event):
        raise OSError("the disk of a stranger")

    unsubscribe = fleet.service.subscribe(fail)
    fleet.roll_out("toy@1")
    unsubscribe()
    assert fleet.releases() == ["toy@1"] * 8
    assert "a subscriber failed" in caplog.text


def test_a_retrained_model_that_is_less_sure_of_itself_on_some_devices_raises_no_alert(fleet):
    """What it answers there was not known when it was trained; what it answers from then on is."""
    fleet.roll_out("toy@1")
    fleet.service.save_baselines("toy@2", {name: {"x": (50, 50)} for name in fleet.devices})
    fleet.roll_out("toy@2", replace(ONE_STAGE, gate=GatePlan(floor=0.8, maximum_accuracy_drop=0.1)))
    unsure = {"device-0", "device-1"}
    for _ in range(4):
        fleet.send_windows("toy@2", only=unsure, confident=30)
        fleet.send_windows("toy@2", only=set(fleet.devices) - unsure)
    assert fleet.service.alerts() == ()
    for _ in range(3):
        fleet.send_windows("toy@2", only={"device-0"}, confident=90)
    assert fleet.service.alerts()[0].features == ("output.confidence",)


def test_a_stopped_service_refuses_at_once(tmp_path):
    fleet = VirtualFleet(tmp_path, devices=1)
    fleet.service.start()
    fleet.service.stop()
    with pytest.raises(ServiceStoppedError):
        fleet.service.assign("device-0", None)


def test_a_subscriber_must_not_change_the_fleet_from_its_callback(tmp_path, caplog):
    fleet = VirtualFleet(tmp_path, devices=1, tick_s=0.01)
    tried = threading.Event()

    def assign(_event):
        tried.set()
        fleet.service.assign("device-0", None)

    fleet.service.subscribe(assign)
    with fleet.service:
        fleet.devices["device-0"].turn()
        assert tried.wait(5)
    assert "a thread of its own" in caplog.text


def test_a_message_that_cannot_be_taken_is_dropped_and_the_others_are_not(fleet, caplog):
    """A release whose manifest was destroyed under the service."""

    def broken(_release):
        raise KeyError("broken")

    fleet.roll_out("toy@1")
    fleet.catalogue.reference = broken
    fleet.devices["device-0"].send_window(make_window("toy@1"))
    fleet.broker.break_link("device-1")
    before = len(fleet.link.acknowledged)
    fleet.settle()
    assert "a message was dropped" in caplog.text
    assert not fleet.service.device("device-1").online
    assert len(fleet.link.acknowledged) >= before + 2


def test_devices_that_were_there_before_the_service_are_asked_to_report(tmp_path):
    """Their presence is kept by the broker, their report is not."""
    fleet = VirtualFleet(tmp_path, devices=0)
    fleet.crash_service()
    for index in range(3):
        fleet.add_device(f"device-{index}", TARGETS[0]).turn()
    fleet.start_service()
    fleet.settle()
    assert [device.target for device in fleet.service.devices()] == [TARGETS[0]] * 3
    assert all(device.installations == [] for device in fleet.devices.values())
    fleet.service.stop()


def test_turns_that_fail_again_and_again_are_said_once_and_their_end_is_said(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    fleet = VirtualFleet(tmp_path, devices=0, tick_s=0.001)
    real, failed = fleet.service.writer.turn, []

    def full(timeout_s):
        if len(failed) < 50:
            failed.append(timeout_s)
            raise OSError(28, "No space left on device")
        return real(timeout_s)

    monkeypatch.setattr(fleet.service.writer, "turn", full)
    fleet.service.start()
    deadline = time.monotonic() + 10
    while "works again" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)
    fleet.service.stop()
    assert [record.getMessage() for record in caplog.records if "turn" in record.getMessage()] == [
        "a turn of the fleet service failed (1 since the last that did not)",
        "a turn of the fleet service works again; 50 failed",
    ]


def online(fleet) -> set[str]:
    return {device.name for device in fleet.service.devices() if device.online}


def switch_off(fleet, name: str) -> None:
    """As when device and broker lose power together: no will is published."""
    device = fleet.devices.pop(name)
    fleet.broker.forget(device.link)


def test_devices_that_went_while_the_service_was_down_are_found_out_after_its_restart(fleet):
    everybody = set(fleet.devices)
    fleet.crash_service()
    switch_off(fleet, "device-3")
    fleet.start_service()
    fleet.events.clear()
    fleet.settle(seconds=60)
    assert online(fleet) == everybody, "it may yet connect again"
    fleet.settle(seconds=60)
    assert online(fleet) == everybody - {"device-3"}
    assert [
        event.device.name for event in fleet.events if isinstance(event, DeviceChanged) and not event.device.online
    ] == ["device-3"]


def test_devices_that_went_with_the_broker_are_found_out_when_it_is_back(fleet):
    everybody = set(fleet.devices)
    link = fleet.link
    fleet.broker.break_link("fleet-service")
    switch_off(fleet, "device-3")
    fleet.broker.mend_link(link)
    fleet.settle(seconds=120)
    assert online(fleet) == everybody - {"device-3"}
    fleet.add_device("device-3", TARGETS[1], boot="boot-2")
    fleet.settle()
    assert online(fleet) == everybody


def test_what_a_broker_kept_of_a_device_that_is_gone_does_not_bring_it_back(fleet):
    """Service and broker with its store restart; in the broker's store the device is online."""
    everybody = set(fleet.devices)
    switch_off(fleet, "device-3")
    for _ in range(3):
        fleet.crash_service()
        fleet.start_service()
        fleet.settle(seconds=120)
        assert online(fleet) == everybody - {"device-3"}


def test_a_will_of_a_start_that_the_service_missed_ends_that_device(fleet):
    """The device started again and died while the service was away; the broker kept that it is offline."""
    fleet.crash_service()
    switch_off(fleet, "device-3")
    topic = device_topic("fleet", "device-3", Channel.PRESENCE)
    fleet.broker.route(topic, b'{"boot":"boot-2","online":false,"v":1}', retain=True)
    fleet.start_service()
    fleet.settle(seconds=120)
    assert "device-3" not in online(fleet)


def test_the_will_of_a_start_that_nobody_heard_of_does_not_end_a_device_that_answers(fleet):
    topic = device_topic("fleet", "device-3", Channel.PRESENCE)
    fleet.broker.route(topic, b'{"boot":"boot-0","online":false,"v":1}', retain=True)
    fleet.settle(seconds=120)
    assert "device-3" in online(fleet)


def test_a_device_that_falls_silent_without_a_will_is_asked_and_then_gone(tmp_path):
    fleet = VirtualFleet(tmp_path, devices=2, presence_silence_s=30.0, presence_answer_s=20.0)
    fleet.settle(seconds=2)
    switch_off(fleet, "device-1")
    reports = fleet.devices["device-0"].sequence
    fleet.settle(seconds=28)
    assert (online(fleet), fleet.devices["device-0"].sequence) == ({"device-0", "device-1"}, reports)
    fleet.settle(seconds=23)
    assert online(fleet) == {"device-0"}
    assert fleet.devices["device-0"].sequence == reports + 1, "and who is there is asked once for each silence"
    fleet.service.stop()


def test_a_device_that_sends_windows_is_not_asked(tmp_path):
    fleet = VirtualFleet(tmp_path, devices=1, presence_silence_s=30.0, presence_answer_s=20.0)
    fleet.settle(seconds=2)
    fleet.roll_out("toy@1")
    reports = fleet.devices["device-0"].sequence
    for _ in range(20):
        fleet.settle(seconds=10)
        fleet.send_windows("toy@1")
    assert fleet.devices["device-0"].sequence == reports
    assert online(fleet) == {"device-0"}
    fleet.service.stop()


def test_a_device_whose_report_was_lost_is_asked_for_it_again(tmp_path):
    lost = []

    def deliver(_to, topic, _payload):
        if topic.endswith("reported") and len(lost) < 2:
            lost.append(topic)
            return 0
        return 1

    fleet = VirtualFleet(tmp_path, devices=1, deliver=deliver, nudge_s=1.0)
    fleet.settle()
    assert fleet.service.device("device-0").target is None
    fleet.settle(seconds=10)
    assert fleet.service.device("device-0").target == TARGETS[0]
    assert len(lost) == 2
    fleet.service.stop()


def test_after_a_finished_rollout_no_device_runs_two_models_any_more(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    canaries = [device for device in fleet.devices if fleet.service.desired(device).compare]
    assert len(canaries) == 2

    for _ in range(8):
        fleet.send_windows("toy@2")

    assert fleet.service.rollout(rollout).state is RolloutState.FINISHED
    wanted = [fleet.service.desired(device) for device in fleet.devices]
    assert {(desired.release, desired.compare, desired.rollout) for desired in wanted} == {("toy@2", False, None)}
    assert fleet.releases() == ["toy@2"] * 8


def fall_back(device, rollout: str | None, *, reason: str = "it crashed 3 times") -> None:
    """Do what an agent does that gave a release up: run the one before, and say so, with the reason where it can."""
    device.release, device.previous = device.previous, None
    if rollout is not None:
        device.last_execution = Execution(
            rollout=rollout, attempt=1, state=ExecutionState.FAILED, step="", reason=reason
        )
        device.publish(Channel.EXECUTION, device.last_execution)
    device.report()


def test_a_fall_back_while_the_rollout_runs_counts_for_its_abort_rules(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    canary = next(device for device in fleet.devices.values() if device.release == "toy@2")
    fall_back(canary, rollout)
    fleet.settle()
    found = fleet.service.rollout(rollout)
    assert found.executions[canary.name].state is ExecutionState.FAILED
    assert found.executions[canary.name].reason == "it crashed 3 times"
    assert found.state is RolloutState.ROLLED_BACK
    assert "1 of 2 devices in the stage canary failed" in found.reason
    assert fleet.releases() == ["toy@1"] * 8


def test_a_report_of_another_release_alone_takes_a_success_back(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    canary = next(device for device in fleet.devices.values() if device.release == "toy@2")
    canary.last_execution = None
    fall_back(canary, None)
    fleet.settle()
    record = fleet.service.rollout(rollout).executions[canary.name]
    assert (record.state, record.step) == (ExecutionState.FAILED, "reported")
    assert record.reason == "it says that it runs toy@1, not toy@2"


def test_a_fall_back_after_the_end_changes_the_record_of_the_finished_rollout_and_nothing_else(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2")
    before = fleet.service.rollout(rollout)
    fall_back(fleet.devices["device-5"], rollout)
    fleet.settle()
    found = fleet.service.rollout(rollout)
    assert found.state is RolloutState.FINISHED
    assert found.executions["device-5"].state is ExecutionState.FAILED
    assert found.executions["device-5"].reason == "it crashed 3 times"
    assert {n: r for n, r in found.executions.items() if n != "device-5"} == {
        n: r for n, r in before.executions.items() if n != "device-5"
    }
    assert fleet.service.device("device-5").release == "toy@1"
    assert fleet.releases().count("toy@2") == 7


def test_a_report_alone_takes_a_success_back_after_the_end_too(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2")
    assert fleet.service.desired("device-5").rollout is None
    fleet.devices["device-5"].last_execution = None
    fall_back(fleet.devices["device-5"], None)
    fleet.settle()
    record = fleet.service.rollout(rollout).executions["device-5"]
    assert (record.state, record.step) == (ExecutionState.FAILED, "reported")
    assert record.reason == "it says that it runs toy@1, not toy@2"


def test_an_earlier_release_that_cannot_be_given_back_takes_no_success_back(fleet):
    rollout = fleet.roll_out("toy@1")
    fleet.roll_out("toy@2")
    fleet.devices["device-5"].install = lambda _: Installation(ExecutionState.REJECTED, "damaged")
    fleet.service.assign("device-5", "toy@1")
    fleet.settle()
    assert fleet.service.device("device-5").release == "toy@2"
    assert fleet.service.rollout(rollout).executions["device-5"].state is ExecutionState.SUCCEEDED


def test_a_fall_back_is_heard_although_something_else_is_wanted_by_now(fleet):
    """The device was away meanwhile, and says on its return first how its last part ended."""
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2")
    fleet.broker.break_link("device-5")
    fleet.settle()
    later = fleet.service.start_rollout("toy@3", ONE_STAGE).id
    fleet.settle()
    device = fleet.devices["device-5"]
    fleet.broker.mend_link(device.link)
    assert isinstance(device.link.receive(0.0), Connected)
    device.publish(Channel.PRESENCE, Presence(online=True, boot=device.boot))
    fall_back(device, rollout)
    fleet.settle()
    record = fleet.service.rollout(rollout).executions["device-5"]
    assert (record.state, record.reason) == (ExecutionState.FAILED, "it crashed 3 times")
    assert fleet.service.rollout(later).executions["device-5"].state is ExecutionState.SUCCEEDED
    assert fleet.releases() == ["toy@3"] * 8


def test_an_old_failure_of_a_stopped_or_unknown_rollout_changes_nothing(fleet):
    fleet.roll_out("toy@1")
    rollout = fleet.roll_out("toy@2", CANARY)
    canary = next(device for device in fleet.devices.values() if device.release == "toy@2")
    fleet.service.abort(rollout)
    fleet.settle()
    before = fleet.service.rollout(rollout)
    for name in (rollout, "rollout-99"):
        message = Execution(rollout=name, attempt=1, state=ExecutionState.FAILED, reason="late")
        canary.publish(Channel.EXECUTION, message)
        fleet.settle()
    assert fleet.service.rollout(rollout) == before


def test_a_device_that_dies_after_the_clock_was_set_back_does_not_stay_online_until_it_has_caught_up(fleet):
    fleet.now += 2 * 86400
    fleet.broker.break_link("fleet-service")
    fleet.broker.mend_link(fleet.link)
    fleet.settle()
    fleet.now -= 2 * 86400
    fleet.settle(seconds=1)
    del fleet.devices["device-5"]
    asked = []
    publish = fleet.link.publish
    fleet.link.publish = lambda topic, payload, **more: (asked.append(topic), publish(topic, payload, **more))
    fleet.settle(seconds=600, step=10)
    assert asked == [], "everybody was asked once, and has answered"
    fleet.settle(seconds=600, step=10)
    assert [name for name in fleet.devices if not fleet.service.device(name).online] == []
    assert not fleet.service.device("device-5").online
