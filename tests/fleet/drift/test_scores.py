"""The watch over scores: alerts come, name, grow and close, and old good samples do not hide new bad ones."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.fleet.drift import scores
from hedgerow.fleet.drift.alert import AlertKind
from hedgerow.fleet.drift.scores import (
    LONGEST_SERIES,
    ScoreSlice,
    ScoreState,
    ScoreVerdict,
    forget_device,
)
from hedgerow.fleet.rollout.floors import Floor
from hedgerow.outputs import Classes, Labels, Outputs, Reconstruction, Tokens, Values
from hedgerow.score_counts import ScoreCounts
from hedgerow.window import Window
from tests.fleet import exact_evidence
from tests.scores import scored

FLOOR = Floor(0.9, "which was asked for")
ALPHA = 0.01
CLASSES = Outputs.of(Classes(("no", "yes")))


def observe_score(state, device, window, floors, alpha, outputs=CLASSES):
    return scores.observe_score(state, device, window, floors, alpha, outputs)


def window(right: int, labelled: int = 100, *, begin: float = 0.0, release: str = "digits@1") -> Window:
    return Window(
        release=release,
        index=0,
        started_at=begin,
        ended_at=begin + 1,
        samples=labelled,
        features={},
        scores=scored(right, labelled),
    )


def see(state: ScoreState, device: str, right: int, labelled: int = 100, begin: float = 0.0):
    floors = {"fleet": FLOOR, f"device:{device}": FLOOR}
    return observe_score(state, device, window(right, labelled, begin=begin), floors, ALPHA)


def restored(state: ScoreState) -> ScoreState:
    return ScoreState.from_fields(Fields(json.loads(json.dumps(state.to_record())), "state"))


def test_a_score_below_the_floor_raises_one_alert_with_the_reason():
    state, alert, proof = see(ScoreState("digits@1"), "d0", 20)

    assert (alert.id, alert.kind, alert.devices, alert.raised_at) == ("score-digits-1-1", AlertKind.SCORE, ("d0",), 1.0)
    assert alert.reason.startswith("device:d0: accuracy 20.0% (")
    assert "on 100 labelled samples lies below the floor of 90.0%, which was asked for" in alert.reason
    assert (proof, state.open, restored(state)) == (None, alert, state)
    assert see(state, "d0", 20)[1] is None, "an open alert is not raised again"


def test_a_score_above_the_floor_is_a_proof_and_no_alert():
    state, alert, proof = see(ScoreState("digits@1"), "d0", 250, 250)

    assert alert is None
    assert proof.startswith("fleet: accuracy 100.0% (")
    assert "lies above the floor of 90.0%" in proof
    assert state.slices["fleet"].verdict == "above"


def test_few_samples_say_nothing():
    state, alert, proof = see(ScoreState("digits@1"), "d0", 8, 10)

    assert (alert, proof) == (None, None)
    assert state.slices["device:d0"] == ScoreSlice(place=1, scores=scored(8, 10))


def test_a_window_without_labels_changes_nothing():
    state = ScoreState("digits@1")

    assert see(state, "d0", 0, 0) == (state, None, None)


def test_without_a_floor_nothing_is_watched():
    assert observe_score(ScoreState("digits@1"), "d0", window(0), {}, ALPHA) == (ScoreState("digits@1"), None, None)


def test_a_hundred_thousand_good_samples_do_not_hide_a_bad_hundred():
    state = ScoreState("digits@1")
    for index in range(1000):
        state, alert, _ = see(state, "d0", 97, begin=float(index))
        assert alert is None
    state, alert, _ = see(state, "d0", 20, begin=1000.0)
    assert alert is not None
    assert 900 < alert.began["device:d0"] < 1000, "a window that was still good, not the beginning of time"


def test_a_release_that_was_never_good_has_no_moment_of_change():
    _state, alert, _ = see(ScoreState("digits@1"), "d0", 0)

    assert alert.began == {}
    assert alert.changed_at("d0", "pi") is None


def test_an_alert_grows_by_devices_and_closes_when_all_are_above_the_floor_again():
    state, first, _ = see(ScoreState("digits@1"), "d0", 20)
    state, grown, _ = see(state, "d1", 20)
    assert (grown.id, grown.devices, grown.raised_at) == (first.id, ("d0", "d1"), first.raised_at)
    while state.slices["device:d0"].verdict == "below":
        state, alert, _ = see(state, "d0", 100)
        assert alert is None
    assert state.open is not None, "d1 is still below"
    while state.slices["device:d1"].verdict == "below":
        state, alert, _ = see(state, "d1", 100)
    assert state.open is None
    for _ in range(2):
        state, again, _ = see(state, "d1", 5)
        if again:
            break
    assert again.id == "score-digits-1-2"


def test_a_fall_too_thin_for_one_device_is_found_in_the_fleet():
    state, alert = ScoreState("digits@1"), None
    for device in range(40):
        state, alert, _ = see(state, f"d{device}", 12, 20)
        if alert:
            break
    assert alert.devices == ()
    assert alert.reason.startswith("fleet: accuracy 60.0%")


def test_an_undecided_series_ends():
    state = ScoreState("digits@1")
    for _ in range(LONGEST_SERIES // 100):
        state, _, _ = see(state, "d0", 90)
    assert state.slices["device:d0"] == ScoreSlice(place=1, series=2)


def test_a_window_of_another_release_is_refused():
    with pytest.raises(ValueError, match="digits@2"):
        observe_score(ScoreState("digits@1"), "d0", window(1, release="digits@2"), {}, ALPHA)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 50)), max_size=40))
def test_any_state_survives_storage_and_names_its_slices_once(seen):
    state = ScoreState("digits@1")
    for device, right in seen:
        state, _, _ = see(state, f"d{device}", right, 50)
        assert restored(state) == state
    places = [found.place for name, found in state.slices.items() if name != "fleet"]
    assert sorted(places) == list(range(1, len(places) + 1))


@pytest.mark.heavy
def test_a_fleet_exactly_at_its_floor_raises_a_false_alert_at_most_as_often_as_alpha():
    """300 fleets of three devices, 60 windows each, at the very floor: the worst case; alpha 0.05."""
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(300):
        state = ScoreState("digits@1")
        for right in rng.binomial(50, 0.9, size=(60, 3)).tolist():
            for device, count in enumerate(right):
                floors = {"fleet": FLOOR, f"device:d{device}": FLOOR}
                state, _, _ = observe_score(state, f"d{device}", window(count, 50), floors, 0.05)
        alarms += state.raised > 0
    assert alarms / 300 <= 0.05


# Golden figures: with 50 digits (tests/fleet/exact_evidence.py)

SHARE_OF_FIRST = 6 / math.pi**2
"""What the first of endlessly many may spend when number k spends 6 / (pi^2 k^2)."""


def samples_that_prove(level):
    """How many right samples in a row it takes to be above 90 % at a level."""
    return next(n for n in range(1, 500) if exact_evidence.log_evidence((0, n), 0.9) >= math.log(1 / level))


def feed_until(state, device, name, verdict=ScoreVerdict.ABOVE):
    """Send right samples one by one until a slice is decided; return how many that took."""
    series = state.slices[name].series if name in state.slices else 1
    for count in range(1, 1000):
        state, _, proof = see(state, device, 1, 1)
        if state.slices[name].series > series:
            assert state.slices[name].verdict is verdict
            return state, count, proof
    raise AssertionError("it was never decided")


def test_the_fleet_spends_half_of_alpha_over_its_series():
    first = samples_that_prove(ALPHA / 2 * SHARE_OF_FIRST)
    second = samples_that_prove(ALPHA / 2 * SHARE_OF_FIRST / 4)
    assert samples_that_prove(ALPHA * SHARE_OF_FIRST) < first < second, "the count tells the levels apart"
    state, count, proof = feed_until(ScoreState("digits@1"), "d0", "fleet")
    low, high = exact_evidence.bounds((0, first), ALPHA / 2 * SHARE_OF_FIRST)
    assert count == first
    assert proof == (
        f"fleet: accuracy 100.0% ({low:.1%} to {high:.1%}) on {first} labelled samples lies above the floor of 90.0%, "
        "which was asked for"
    )
    assert feed_until(state, "d0", "fleet")[1] == second


def test_each_device_spends_a_share_of_the_other_half_by_its_place_and_series():
    half = ALPHA / 2 * SHARE_OF_FIRST
    state, first, _ = feed_until(ScoreState("digits@1"), "d0", "device:d0")
    assert first == samples_that_prove(half * SHARE_OF_FIRST)
    state, again, _ = feed_until(state, "d0", "device:d0")
    assert again == samples_that_prove(half * SHARE_OF_FIRST / 4)
    state, other, _ = feed_until(state, "d1", "device:d1")
    assert other == samples_that_prove(half / 4 * SHARE_OF_FIRST)
    assert (state.slices["device:d0"].place, state.slices["device:d1"].place) == (1, 2)


def test_a_device_that_comes_after_a_forgotten_one_does_not_spend_its_share_again():
    state = ScoreState("digits@1")
    for device in ("d0", "d1"):
        state, _, _ = see(state, device, 9, 10)
    state = forget_device(state, "d0")
    assert (set(state.slices), state.forgotten) == ({"fleet", "device:d1"}, 1)
    assert state.slices["fleet"].scores.samples == 20
    assert forget_device(state, "d0") is state
    assert restored(state) == state
    state, count, _ = feed_until(state, "d0", "device:d0")
    assert state.slices["device:d0"].place == 3
    assert count == samples_that_prove(ALPHA / 2 * SHARE_OF_FIRST / 9 * SHARE_OF_FIRST)


def test_an_alert_lets_go_of_a_forgotten_device_and_closes_when_it_was_about_no_other():
    state, _, _ = see(ScoreState("digits@1"), "d0", 9, 100)
    for _ in range(40):
        state, _, _ = see(state, "d2", 100, 100)
    state, alert, _ = see(state, "d1", 20)
    assert alert.devices == ("d0", "d1")
    left = forget_device(state, "d0")
    assert (left.open.id, left.open.devices) == (alert.id, ("d1",))
    assert "device:d0" not in left.open.began
    left = replace(left, slices={**left.slices, "fleet": replace(left.slices["fleet"], verdict=ScoreVerdict.ABOVE)})
    gone = forget_device(left, "d1")
    assert gone.open is None
    _, again, _ = see(gone, "d1", 0)
    assert (again.id, again.devices) == ("score-digits-1-2", ("d1",))


def test_a_series_without_a_decision_ends_with_its_last_sample_and_not_before():
    right = round(0.9 * LONGEST_SERIES) - 2
    before = ScoreSlice(place=1, scores=scored(right, LONGEST_SERIES - 2))
    state = ScoreState("digits@1", slices={"device:d0": before})
    state, _, _ = see(state, "d0", 1, 1)
    assert state.slices["device:d0"] == replace(before, scores=scored(right + 1, LONGEST_SERIES - 1))
    state, _, _ = see(state, "d0", 1, 1)
    assert state.slices["device:d0"] == ScoreSlice(place=1, series=2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("place", 0), ("series", 0), ("scores", [1] + [0] * 16), ("verdict", "fine"), ("good_since", "x"), ("more", 1)],
)
def test_a_slice_out_of_bounds_is_refused_and_one_at_its_bounds_is_not(name, value):
    edge = ScoreSlice(place=1, series=1, scores=scored(5, 5), verdict=ScoreVerdict.BELOW, good_since=0.5)
    assert ScoreSlice.from_fields(Fields(edge.to_record(), "slice")) == edge
    with pytest.raises(DecodeError, match=name):
        ScoreSlice.from_fields(Fields({**edge.to_record(), name: value}, "slice"))


def test_an_alert_that_two_slices_raise_tells_the_figures_of_both():
    state, alert, _ = see(ScoreState("digits@1"), "d0", 20)
    device, fleet = alert.reason.split("; ")
    assert (device.partition(":")[0], fleet.partition(" ")[0]) == ("device", "fleet:")
    assert fleet.removeprefix("fleet: ").partition(" (")[0] == "accuracy 20.0%"
    assert state.slices["fleet"].place == 1


def test_a_state_of_many_thousand_devices_can_be_stored_and_one_with_an_unknown_field_cannot_be_read():
    state = ScoreState("digits@1", slices={f"device:d{place}": ScoreSlice(place=place) for place in range(1, 5001)})
    assert restored(state) == state
    with pytest.raises(DecodeError, match="more"):
        ScoreState.from_fields(Fields({**state.to_record(), "more": 1}, "state"))


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (Outputs.of(Labels(("hot", "wet"))), "F1 of the samples 55.0% (%) on 200 labelled samples"),
        (Outputs.of(Values("level", 1.0)), "worth of the values 55.0% (%) on 200 scored samples"),
        (Outputs.of(Reconstruction(threshold=1.0)), "share of right flags 55.0% (%) on 200 judged samples"),
        (Outputs.of(Tokens(("lo", "hi"), 3)), "share of right positions 55.0% (%) on 200 scored samples"),
        (Outputs({"a": Classes(("no", "yes")), "b": Values("level", 1.0)}), "score 55.0% (%) on 200 scored samples"),
    ],
)
def test_an_alert_calls_the_score_of_each_kind_by_its_name(outputs, said):
    spread = replace(window(0), samples=200, scores=ScoreCounts.at({0.4: 100, 0.7: 100}))
    floors = {"fleet": FLOOR, "device:d0": FLOOR}
    state, alert, proof = observe_score(ScoreState("digits@1"), "d0", spread, floors, ALPHA, outputs)

    begin, end = said.split("%)")
    assert alert.reason.startswith(f"device:d0: {begin}")
    assert f"{end} lies below the floor of 90.0%, which was asked for" in alert.reason
    assert "accuracy" not in alert.reason
    assert (alert.kind, alert.devices, proof, restored(state)) == (AlertKind.SCORE, ("d0",), None, state)
