"""Stages are deterministic, stratified, and never larger than their share rounded up."""

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
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


# Golden orders: by hashing the names here


def by_hash(salt, names):
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt}/{name}".encode()).hexdigest())


def test_devices_of_one_target_go_in_the_order_of_their_hashes():
    devices = fleet(*"x" * 10)
    order = by_hash("rollout-7", [device.name for device in devices])
    plans = (StagePlan("canary", 0.2), StagePlan("half", 0.55), StagePlan("fleet", 1.0))
    stages = assign_stages("rollout-7", devices, plans)
    assert stages == {**dict.fromkeys(order[:2], 0), **dict.fromkeys(order[2:6], 1), **dict.fromkeys(order[6:], 2)}


def test_one_of_each_target_goes_first_and_then_each_by_its_place_within_its_target():
    """Four, two and one: the first of the largest, of the next, of the last; then 1.5/4, 2.5/4, 1.5/2, 3.5/4."""
    devices = fleet(*"aaaabbc")
    plans = tuple(StagePlan(f"s{index}", (index + 1) / 7) for index in range(7))
    # A salt by which the hashes alone would put the last of the largest before the last of the next.
    for salt in map(str, range(100)):
        a, b, c = (by_hash(salt, [d.name for d in devices if d.target == target]) for target in "abc")
        if by_hash(salt, [a[3], b[1]]) == [a[3], b[1]]:
            break
    stages = assign_stages(salt, devices, plans)
    assert sorted(stages, key=stages.get) == [a[0], b[0], c[0], a[1], a[2], b[1], a[3]]


@pytest.mark.parametrize(("share", "is_right"), [(0.0, False), (1e-9, True), (1.0, True), (1.0001, False)])
def test_a_share_is_above_nothing_and_at_most_everything(share, is_right):
    stages = (StagePlan("a", share),) if share >= 1 else (StagePlan("a", share), StagePlan("b", 1.0))
    wrong = [mistake for mistake in stage_mistakes(stages) if "expected (0, 1]" in mistake]
    assert wrong == ([] if is_right else [f"the stage a has the share {share:g}, expected (0, 1]"])
    assert stage_mistakes((StagePlan("a", 0.5), StagePlan("b", 0.5), StagePlan("c", 1.0))) == [
        "the shares of the stages are cumulative and must rise"
    ]


@pytest.mark.parametrize(("name", "value"), [("name", "a b"), ("share", -0.1), ("share", 1.1), ("more", 1)])
def test_a_stage_out_of_bounds_is_refused_and_one_at_its_bounds_is_not(name, value):
    for edge in (StagePlan("a", 0.0), StagePlan("b" * 64, 1.0)):
        assert StagePlan.from_fields(Fields(edge.to_record(), "stage")) == edge
        with pytest.raises(DecodeError, match=name):
            StagePlan.from_fields(Fields({**edge.to_record(), name: value}, "stage"))


def test_what_is_wrong_with_a_list_of_stages_is_said_in_these_words():
    assert stage_mistakes(()) == ["expected at least one stage, found none"]
    assert stage_mistakes((StagePlan("a", 0.5), StagePlan("a", 1.0))) == ["two stages have the same name"]
    assert stage_mistakes((StagePlan("a", 0.5),)) == ["the last stage must have the share 1, not 0.5"]


def test_the_states_of_a_stage_are_told_by_their_names():
    assert [state.value for state in StageState] == ["SCHEDULED", "RUNNING", "FINISHED", "FAILED"]
