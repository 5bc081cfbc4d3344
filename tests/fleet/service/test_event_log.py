from dataclasses import replace

from hedgerow.fleet.drift.alert import Alert, AlertKind
from hedgerow.fleet.registry import Device
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.rules import create_rollout
from hedgerow.fleet.rollout.stages import DeviceFacts
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.service.event_log import EventLog
from hedgerow.fleet.service.events import AlertChanged, DeviceChanged, ReleaseProven, RolloutChanged

ALERT = Alert("alert-1", "digits@1", 0.0, ("pi-0",), ("image.mean",), (), 2)


def test_devices_are_told_when_they_come_go_or_change_their_release():
    log, device = EventLog(), Device(name="pi-0", online=True)

    assert log.describe(DeviceChanged(device, None)) == "pi-0 is online"
    assert log.describe(DeviceChanged(replace(device, sequence=4), device)) == ""
    assert log.describe(DeviceChanged(replace(device, release="digits@1"), device)) == "pi-0 runs digits@1"
    assert log.describe(DeviceChanged(replace(device, online=False), device)) == "pi-0 is offline"


def test_what_does_not_work_on_a_device_is_told_and_that_it_works_again():
    log, well = EventLog(), Device(name="pi-0", online=True)
    ill = replace(well, problems=("model: RuntimeError: x", "windows: OSError: full"))

    assert log.describe(DeviceChanged(ill, well)) == "pi-0 has trouble: model: RuntimeError: x; windows: OSError: full"
    assert log.describe(DeviceChanged(replace(ill, sequence=4), ill)) == ""
    assert log.describe(DeviceChanged(well, ill)) == "pi-0 is well again"


def test_a_rollout_is_told_when_its_state_or_stage_changes():
    log = EventLog()
    rollout = create_rollout("rollout-1", "digits@1", RolloutPlan(), [DeviceFacts("pi-0", "raspberry-pi-4", None)], 0.0)
    rollout = replace(rollout, state=RolloutState.RUNNING)

    assert log.describe(RolloutChanged(rollout)) == "rollout-1: digits@1 RUNNING, stage canary"
    assert log.describe(RolloutChanged(replace(rollout, reason="waits"))) == ""
    over = replace(rollout, state=RolloutState.ABORTED, reason="the gate stopped it")
    assert log.describe(RolloutChanged(over)) == "rollout-1: digits@1 ABORTED, stage canary; the gate stopped it"


def test_an_alert_is_told_once():
    log = EventLog()

    assert log.describe(AlertChanged(ALERT, is_new=True)) == "drift alert alert-1 under digits@1: pi-0; image.mean"
    assert log.describe(AlertChanged(ALERT, is_new=False)) == ""


def test_alerts_of_other_kinds_are_told_with_their_reason_and_a_proof_with_its_figures():
    log = EventLog()
    score = replace(
        ALERT, kind=AlertKind.SCORE, features=(), reason="fleet: accuracy 12.0% lies below the floor of 90.0%"
    )

    assert log.describe(AlertChanged(score, is_new=True)).startswith(
        "score alert alert-1 under digits@1: pi-0; fleet: acc"
    )
    hopeless = replace(score, kind=AlertKind.RETRAINING, devices=(), reason="5 retrainings brought no recovery")
    told = log.describe(AlertChanged(hopeless, is_new=True))
    assert told == "retraining alert alert-1 under digits@1: no single device; 5 retrainings brought no recovery"
    assert log.describe(ReleaseProven("digits@2", "accuracy 99.0%")) == "digits@2 has proven itself: accuracy 99.0%"
