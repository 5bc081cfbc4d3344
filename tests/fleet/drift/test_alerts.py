"""Alerts come after consecutive looks, name the right devices, grow while open, and stay silent on clean data."""

import json
from dataclasses import replace

import numpy as np
import pytest

from hedgerow.decode import Fields
from hedgerow.fleet.drift.alert import Alert
from hedgerow.fleet.drift.alerts import DeviceDrift, DriftState, SliceDrift, close_alert, forget_device, observe
from hedgerow.fleet.drift.findings import DriftPlan, counts_of, spent_alpha
from hedgerow.reference import FeatureReference, Reference, build_reference
from hedgerow.window import FeatureCounts, Window

PLAN = DriftPlan()
REFERENCE = Reference((FeatureReference("x", (1.0, 2.0, 3.0), (250, 250, 250, 250)),))
CLEAN, MOVED = (50, 50, 50, 50), (0, 0, 20, 180)


def window(counts, index: int = 0, release: str = "digits@1") -> Window:
    return Window(
        release=release,
        index=index,
        started_at=float(index),
        ended_at=index + 1.0,
        samples=sum(counts),
        features={"x": FeatureCounts(tuple(counts))},
    )


def see(state: DriftState, device: str, counts, *, target: str = "pi", index: int = 0, baselines=None):
    return observe(
        state, REFERENCE, device, target, window(counts, index), PLAN, np.random.default_rng(0), baselines or {}
    )


def restored(state: DriftState) -> DriftState:
    return DriftState.from_fields(Fields(json.loads(json.dumps(state.to_record())), "state"))


def test_the_second_drifted_window_in_a_row_raises_an_alert():
    state, alerts = see(DriftState("digits@1"), "d0", MOVED)
    assert alerts == ()
    state, alerts = see(restored(state), "d0", MOVED, index=1)
    (alert,) = alerts
    assert (alert.id, alert.devices, alert.features, alert.windows) == ("drift-digits-1-1", ("d0",), ("x",), 2)
    assert alert.raised_at == 2.0
    assert alert.findings[0].js_bits > 0.1
    assert state.open == alert
    assert restored(state) == state
    assert Alert.from_fields(Fields(json.loads(json.dumps(alert.to_record())), "alert")) == alert


def test_a_clean_window_between_starts_the_count_again():
    state = DriftState("digits@1")
    for counts in (MOVED, CLEAN, MOVED, CLEAN, MOVED):
        state, alerts = see(state, "d0", counts)
        assert alerts == ()


def test_an_open_alert_grows_and_is_not_raised_again():
    state = DriftState("digits@1")
    for _ in range(2):
        state, first = see(state, "d0", MOVED)
    for _ in range(3):
        state, alerts = see(state, "d0", MOVED)
        assert alerts == ()
    grown = []
    for _ in range(3):
        state, alerts = see(state, "d1", MOVED)
        grown += alerts
    assert {alert.id for alert in grown} == {first[0].id}
    assert grown[-1].devices == ("d0", "d1")
    assert grown[-1].raised_at == first[0].raised_at
    assert state.raised == 1


def test_a_closed_alert_is_raised_anew_when_drift_goes_on():
    state = DriftState("digits@1")
    for _ in range(2):
        state, _ = see(state, "d0", MOVED)
    state = close_alert(state)
    state, alerts = see(state, "d0", MOVED)
    assert alerts == ()
    state, alerts = see(state, "d0", MOVED)
    assert [alert.id for alert in alerts] == ["drift-digits-1-2"]


def test_only_drifted_devices_are_named_even_when_their_group_drifts_too():
    state, last = DriftState("digits@1"), None
    for index in range(5):
        for device in range(4):
            state, alerts = see(state, f"d{device}", MOVED if device < 3 else CLEAN, index=index)
            last = alerts[-1] if alerts else last
    assert last.devices == ("d0", "d1", "d2")
    assert {finding.slice for finding in last.findings} == {*(f"device:d{i}" for i in range(3)), "fleet", "target:pi"}


def test_a_drift_too_thin_for_a_single_device_is_found_in_the_fleet():
    """Twelve samples a window: a device alone reaches the minimum at every fifth, the fleet at once."""
    state, raised = DriftState("digits@1"), []
    for index in range(3):
        for device in range(10):
            state, alerts = see(state, f"d{device}", (0, 0, 2, 10), index=index)
            raised += alerts
    assert raised[0].devices == ()
    assert {finding.slice for finding in raised[0].findings} <= {"fleet", "target:pi"}


def test_small_windows_of_a_device_are_added_up_until_they_can_be_tested():
    state = DriftState("digits@1")
    for index in range(5):
        state, _ = see(state, "d0", (3, 3, 3, 3), index=index)
    assert state.slices["device:d0"].looks == 1
    assert state.slices["device:d0"].findings[0].samples == 60
    state, _ = see(state, "d0", (3, 3, 3, 3), index=5)
    assert state.devices["d0"].last.samples == 12


@pytest.mark.parametrize(("counts", "looks"), [((12, 12, 12, 13), 0), ((12, 12, 13, 13), 1)])
def test_a_window_of_the_smallest_size_is_looked_at_and_one_sample_less_is_not(counts, looks):
    state, _ = see(DriftState("digits@1"), "d0", counts)
    assert state.slices["device:d0"].looks == looks


def test_a_group_is_looked_at_once_for_a_window_of_each_device():
    state = DriftState("digits@1")
    for device in ("a", "b", "c"):
        state, _ = see(state, device, CLEAN)
    state = forget_device(state, "c")
    before = state.slices["fleet"].looks
    for device in ("a", "b", "a", "b"):
        state, _ = see(state, device, CLEAN)
    assert state.slices["fleet"].looks == before + 2
    assert state.slices["fleet"].findings[0].samples == 400


def test_a_device_that_went_silent_leaves_its_group():
    state = DriftState("digits@1")
    for device in ("a", "b", "c"):
        state, _ = see(state, device, CLEAN)
    for _ in range(6):
        for device in ("a", "b"):
            state, _ = see(state, device, CLEAN)
    assert state.slices["fleet"].findings[0].samples == 400  # of three: c's old window is not counted again


def test_a_single_device_has_no_group():
    state, _ = see(DriftState("digits@1"), "a", CLEAN)
    assert list(state.slices) == ["device:a"]


def test_a_baseline_makes_an_unusual_device_unremarkable_and_its_group_too():
    odd = counts_of(window(MOVED))
    baselines = {"d0": odd, "d1": odd}
    state = DriftState("digits@1")
    for index in range(4):
        for device in ("d0", "d1"):
            state, alerts = see(state, device, MOVED, index=index, baselines=baselines)
            assert alerts == ()
    for index in range(2):
        state, alerts = see(state, "d0", CLEAN, index=index, baselines=baselines)
    assert alerts[0].devices == ("d0",)


def test_a_window_of_another_release_is_refused():
    with pytest.raises(ValueError, match=r"expected a window of digits@1, found one of digits@2"):
        observe(
            DriftState("digits@1"),
            REFERENCE,
            "a",
            "pi",
            window(CLEAN, release="digits@2"),
            PLAN,
            np.random.default_rng(0),
        )


DEVICES = [*(f"pi-{i}" for i in range(4)), *(f"phone-{i}" for i in range(3)), "gateway-0"]
TARGET = {name: name.partition("-")[0] for name in DEVICES}


class Digits:
    """Real images: a reference of 1,000, and the 247 that every device meets again and again, clean and inverted."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits
        from sklearn.linear_model import LogisticRegression

        from hedgerow.features import input_features
        from hedgerow.model_schema import ModelSchema
        from hedgerow.outputs import Classes
        from hedgerow.schema import TensorSpec

        bunch = load_digits()
        order = np.random.default_rng(7).permutation(len(bunch.target))
        images = bunch.images[order].astype(np.float32)[:, None]
        labels = bunch.target[order]
        schema = ModelSchema((TensorSpec("image", (1, 8, 8), "float32", minimum=0, maximum=16),), ())
        model = LogisticRegression(max_iter=2000, C=0.01).fit(images[:1000].reshape(1000, -1) / 16, labels[:1000])

        def columns(batch):
            outputs = Classes(range(10)).features("output", model.predict_proba(batch.reshape(len(batch), -1) / 16))
            return {**input_features(schema, {"image": batch}), **outputs}

        known = columns(images[:1000])
        classes = known.pop("output.label")
        self.reference = build_reference(known, {"output.label": (classes, [str(i) for i in range(10)])})
        met = images[1000:1247]
        self.clean = self._counted(columns(met))
        self.inverted = self._counted(columns(16 - met))
        self._columns, self._met = columns, met

    def _counted(self, columns) -> dict[str, tuple[int, ...]]:
        return {f.name: tuple(f.bin(columns[f.name]).tolist()) for f in self.reference.features}

    def window(self, counts, index: int) -> Window:
        return Window(
            release="digits@1",
            index=index,
            started_at=float(index),
            ended_at=index + 1.0,
            samples=sum(counts["image.mean"]),
            features={name: FeatureCounts(bins) for name, bins in counts.items()},
        )

    def feed(self, state: DriftState, rounds: range, drifted: frozenset[str] = frozenset()):
        raised = []
        for index in rounds:
            for device in DEVICES:
                seen = self.window(self.inverted if device in drifted else self.clean, index)
                state, alerts = observe(
                    state, self.reference, device, TARGET[device], seen, PLAN, np.random.default_rng([0, index])
                )
                raised += alerts
        return state, raised


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


@pytest.mark.heavy
def test_clean_digits_raise_nothing_over_forty_windows_of_eight_devices(digits):
    state, raised = digits.feed(DriftState("digits@1"), range(40))
    assert raised == []
    assert state.slices["fleet"].looks >= 39  # the first rounds are spent on meeting everyone
    worst = max((f for drift in state.slices.values() for f in drift.findings), key=lambda f: f.js_bits)
    assert worst.js_bits < PLAN.minimum_effect_js / 2, worst


@pytest.mark.heavy
def test_half_a_fleet_that_inverts_is_named_after_two_windows(digits):
    drifted = frozenset(DEVICES[::2])
    state, raised = digits.feed(DriftState("digits@1"), range(30))
    assert raised == []
    state, raised = digits.feed(state, range(30, 31), drifted)
    assert raised == []
    state, raised = digits.feed(state, range(31, 33), drifted)
    assert raised[0].windows == 2
    assert raised[-1].devices == tuple(sorted(drifted))
    assert {alert.id for alert in raised} == {"drift-digits-1-1"}
    assert "image.mean" in raised[-1].features
    assert any(finding.slice == "fleet" for finding in raised[-1].findings)


@pytest.mark.heavy
@pytest.mark.parametrize("size", [50, 100])
def test_windows_of_other_samples_of_clean_digits_raise_nothing(digits, size):
    """Random draws of the met images, so that looks are not copies of each other."""
    rng, state, raised = np.random.default_rng(1), DriftState("digits@1"), []
    for index in range(30):
        for device in DEVICES:
            batch = digits._met[rng.choice(len(digits._met), size)]
            seen = digits.window(digits._counted(digits._columns(batch)), index)
            state, alerts = observe(state, digits.reference, device, TARGET[device], seen, PLAN, rng)
            raised += alerts
    assert raised == []


def test_an_alert_says_since_when_the_world_may_be_another_one():
    """The change may lie in the last window that still looked clean, but in none before it."""
    state = DriftState("digits@1")
    for index in range(4):
        state, _ = see(state, "d0", CLEAN, index=index)
        state, _ = see(state, "d1", CLEAN, index=index)
    for index in (4, 5):
        state, alerts = see(restored(state), "d0", MOVED, index=index)
    (alert,) = alerts
    assert alert.began["device:d0"] == 3.0
    assert (alert.changed_at("d0", "pi"), alert.changed_at("d1", "pi")) == (3.0, None)
    for index in (7, 8, 9):
        state, alerts = see(state, "d1", MOVED, index=index)
        grown = alerts[-1] if alerts else alert
        alert = grown if "d1" in grown.devices else alert
    assert (alert.changed_at("d0", "pi"), alert.changed_at("d1", "pi")) == (3.0, 3.0)


def test_an_alert_about_a_group_is_about_all_of_its_devices():
    state, raised = DriftState("digits@1"), []
    for index in range(3):
        for device in range(10):
            state, alerts = see(state, f"d{device}", (0, 0, 2, 10), index=index)
            raised += alerts
    assert raised[0].devices == ()
    assert raised[0].changed_at("d3", "pi") == raised[0].began["target:pi"]
    assert raised[0].changed_at("elsewhere", "phone") == raised[0].began.get("fleet")


def test_states_and_alerts_of_before_there_were_kinds_can_be_read():
    state = DriftState("digits@1")
    for index in range(2):
        state, _ = see(state, "d0", MOVED, index=index)
    record = json.loads(json.dumps(state.to_record()))
    for name in ("kind", "reason", "began"):
        del record["open"][name]
    for drift in record["slices"].values():
        del drift["began"], drift["last_began"]
    found = DriftState.from_fields(Fields(record, "state"))
    assert (found.open.kind, found.open.began) == ("drift", {})
    assert found.slices["device:d0"].streaks == {"x": 2}


def test_the_level_is_shared_by_all_slices_also_those_of_forgotten_devices():
    """Three devices of one target: three slices of their own, the target's and the fleet's; three tests in each."""
    state = DriftState("digits@1")
    for device in ("a", "b", "c"):
        state, _ = see(state, device, CLEAN)
    assert state.slices["device:c"].findings[0].threshold == pytest.approx(spent_alpha(0.01, 1) / 15)
    assert state.slices["device:a"].findings[0].threshold == pytest.approx(spent_alpha(0.01, 1) / 3)
    state, _ = see(state, "d", CLEAN, target="phone")
    assert state.slices["device:d"].findings[0].threshold == pytest.approx(spent_alpha(0.01, 1) / 18)
    state = forget_device(state, "c")
    assert (set(state.devices), state.forgotten) == ({"a", "b", "d"}, 1)
    assert "device:c" not in state.slices
    assert forget_device(state, "c") is state
    assert restored(state) == state
    state, _ = see(state, "a", CLEAN)
    assert state.slices["device:a"].findings[0].threshold == pytest.approx(spent_alpha(0.01, 2) / 18)
    state, _ = see(state, "c", CLEAN)
    assert state.slices["device:c"].looks == 1
    assert state.slices["device:c"].findings[0].threshold == pytest.approx(spent_alpha(0.01, 1) / 21)


@pytest.mark.parametrize(
    ("targets", "slices"),
    [(["pi"], 1), (["pi", "pi"], 4), (["pi", "phone"], 3), (["pi", "phone", "pi", "phone"], 7)],
)
def test_the_level_is_shared_by_the_slices_of_devices_and_of_groups_of_two_or_more(targets, slices):
    state = DriftState("digits@1")
    for number, target in enumerate(targets):
        state, _ = see(state, f"d{number}", CLEAN, target=target)
    last = state.slices[f"device:d{len(targets) - 1}"]
    assert last.findings[0].threshold == pytest.approx(spent_alpha(0.01, 1) / (3 * slices))


def test_baselines_with_other_bins_are_not_added_up_for_a_device_too_quiet_for_a_look_of_its_own():
    baselines = {"d0": {"x": (1, 1, 1, 1)}, "d1": {"x": (1, 1, 1, 1, 1)}}
    state, _ = see(DriftState("digits@1"), "d1", (3, 3, 3, 3), baselines=baselines)
    state, _ = see(state, "d0", CLEAN, baselines=baselines)
    with pytest.raises(ValueError, match=r"^zip\(\) argument 2 is longer than argument 1$"):
        see(state, "d0", CLEAN, baselines=baselines)


def test_an_alert_lets_go_of_a_forgotten_device_and_names_it_again_when_the_new_one_drifts():
    state = DriftState("digits@1")
    for index in range(3):
        for device in ("d0", "d1"):
            state, _ = see(state, device, MOVED, target=device, index=index)
    assert state.open.devices == ("d0", "d1")
    state = forget_device(state, "d0")
    assert state.open.devices == ("d1",)
    assert "device:d0" not in {*state.open.began, *(finding.slice for finding in state.open.findings)}
    for index in (5, 6):
        state, alerts = see(state, "d0", MOVED, target="d0", index=index)
    assert alerts[-1].devices == ("d0", "d1")
    assert state.raised == 1


def test_an_alert_about_nothing_but_a_forgotten_device_is_closed():
    state = DriftState("digits@1")
    for index in range(2):
        state, _ = see(state, "d0", MOVED, index=index)
    state = forget_device(state, "d0")
    assert state.open is None
    for index in (2, 3):
        state, alerts = see(state, "d0", MOVED, index=index)
    assert [alert.id for alert in alerts] == ["drift-digits-1-2"]


def test_an_alert_of_a_device_names_all_that_was_seen():
    state, _ = see(DriftState("digits@1"), "d0", MOVED, index=7)
    state, (alert,) = see(state, "d0", MOVED, index=8)
    (finding,) = alert.findings
    assert (finding.slice, finding.feature, finding.samples) == ("device:d0", "x", 200)
    assert (alert.release, alert.windows, alert.began, alert.reason) == ("digits@1", 2, {"device:d0": 7.0}, "")
    found = state.slices["device:d0"]
    assert (found.looks, found.looked_at, found.since, found.streaks, found.last_began) == (2, 2, 0, {"x": 2}, 8.0)
    closed = close_alert(state)
    assert closed.open is None
    assert closed.slices == {"device:d0": replace(found, streaks={}, began={})}
    assert closed.raised == 1


TWO = Reference((REFERENCE.features[0], FeatureReference("y", (1.0, 2.0, 3.0), (250, 250, 250, 250))))


def see_two(state, x, y, index):
    seen = replace(window(x, index), features={"x": FeatureCounts(tuple(x)), "y": FeatureCounts(tuple(y))})
    return observe(state, TWO, "d0", "pi", seen, PLAN, np.random.default_rng(0))


def test_two_features_that_drift_one_after_the_other_began_when_the_first_did():
    state = DriftState("digits@1")
    state, _ = see_two(state, CLEAN, CLEAN, 0)
    state, alerts = see_two(state, MOVED, CLEAN, 1)
    assert alerts == ()
    state, (first,) = see_two(state, MOVED, MOVED, 2)
    assert (first.features, first.began, first.windows) == (("x",), {"device:d0": 0.0}, 2)
    state, (grown,) = see_two(state, MOVED, MOVED, 3)
    assert (grown.features, grown.began, grown.windows) == (("x", "y"), {"device:d0": 0.0}, 2)
    assert state.slices["device:d0"].began == {"x": 0.0, "y": 1.0}
    # Closed, and seen anew with both at once, it is the earlier of the two again.
    later = replace(state, open=None, slices={"device:d0": replace(state.slices["device:d0"])})
    _, (again,) = see_two(later, MOVED, MOVED, 4)
    assert (again.features, again.began["device:d0"]) == (("x", "y"), 0.0)


def test_a_state_of_many_thousand_devices_can_be_stored():
    device, drift = DeviceDrift("pi", 1, window(CLEAN)), SliceDrift()
    state = DriftState(
        "digits@1",
        devices={f"d{index}": device for index in range(5000)},
        slices={f"device:d{index}": drift for index in range(5000)},
        observed=5000,
    )
    assert restored(state) == state


def test_a_new_state_has_seen_nothing():
    state, _ = see(DriftState("digits@1"), "a", CLEAN)
    assert (state.observed, state.raised, state.devices["a"].at, state.slices["device:a"].looked_at) == (1, 0, 1, 1)
