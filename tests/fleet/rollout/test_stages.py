"""Stages are deterministic, stratified, and never larger than their share rounded up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.fleet.rollout.stages import (
    DeviceFacts,
    StagePlan,
    StageState,
    assign_stages,
    joining_stage,
    stage_mistakes,
)

CANARY = (StagePlan("canary", 0.2), StagePlan("fleet", 1.0))


def fleet(*targets: str) -> list[DeviceFacts]:
    return [DeviceFacts(f"device-{index}", target, None) for index, target in enumerate(targets)]


DEMO = fleet(*["raspberry-pi-4"] * 4, *["android-arm64"] * 3, "x86-gateway")


def test_the_demo_fleet_has_two_canaries_of_different_targets():
    stages = assign_stages("rollout-1", DEMO, CANARY)
    canaries = [device for device in DEMO if stages[device.name] == 0]
    assert sorted(device.target for device in canaries) == ["android-arm64", "raspberry-pi-4"]


def test_the_same_salt_gives_the_same_stages_in_any_order_of_devices():
    assert assign_stages("a", DEMO, CANARY) == assign_stages("a", DEMO[::-1], CANARY)


def test_another_salt_gives_other_canaries():
    chosen = {
        frozenset(name for name, stage in assign_stages(f"rollout-{salt}", DEMO, CANARY).items() if stage == 0)
        for salt in range(40)
    }
    assert len(chosen) >= 10  # of 12 pairs


def test_a_single_device_is_the_canary():
    assert assign_stages("a", fleet("x"), CANARY) == {"device-0": 0}


def test_a_canary_with_room_holds_every_target():
    devices = fleet(*["common"] * 95, *["rare"] * 3, *["rarest"] * 2)
    stages = assign_stages("a", devices, (StagePlan("canary", 0.1), StagePlan("fleet", 1.0)))
    canaries = [device.target for device in devices if stages[device.name] == 0]
    assert len(canaries) == 10
    assert set(canaries) == {"common", "rare", "rarest"}


def test_rounding_of_shares_costs_no_device():
    assert (
        sum(s == 0 for s in assign_stages("a", fleet(*"x" * 100), (StagePlan("a", 0.07), StagePlan("b", 1))).values())
        == 7
    )


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 99), max_size=4, unique=True),
    salt=st.text(max_size=8),
)
def test_every_prefix_has_its_share_and_is_stratified(sizes, cuts, salt):
    devices = fleet(*(f"t{target}" for target, size in enumerate(sizes) for _ in range(size)))
    shares = [cut / 100 for cut in sorted(cuts)] + [1.0]
    plans = tuple(StagePlan(f"s{index}", share) for index, share in enumerate(shares))
    stages = assign_stages(salt, devices, plans)
    assert set(stages) == {device.name for device in devices}
    for index, share in enumerate(shares):
        prefix = [device for device in devices if stages[device.name] <= index]
        assert len(prefix) == max(1, math.ceil(round(share * len(devices), 9)))
        for target, size in enumerate(sizes):
            held = sum(device.target == f"t{target}" for device in prefix)
            # One of each target goes first, so a target may be off by those places and by rounding.
            assert abs(held - size * len(prefix) / len(devices)) <= len(sizes) + 1


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ((), "at least one stage"),
        ((StagePlan("a", 0.5),), "must have the share 1"),
        ((StagePlan("a", 0.0), StagePlan("b", 1.0)), "expected (0, 1]"),
        ((StagePlan("a", 0.6), StagePlan("b", 0.5), StagePlan("c", 1.0)), "must rise"),
        ((StagePlan("a", 0.5), StagePlan("a", 1.0)), "same name"),
    ],
)
def test_a_wrong_list_of_stages_is_named(stages, words):
    assert any(words in mistake for mistake in stage_mistakes(stages))


def test_the_default_stages_are_right():
    assert stage_mistakes(CANARY) == []


def test_new_devices_join_the_last_stage_that_has_not_started_else_the_last():
    scheduled, running, finished = StageState.SCHEDULED, StageState.RUNNING, StageState.FINISHED
    assert joining_stage((running, scheduled, scheduled)) == 2
    assert joining_stage((finished, running)) == 1
    assert joining_stage((finished, finished)) == 1
