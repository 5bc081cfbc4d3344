"""Changed flags, constants, gauges, outliers, spreads and single sensors are found within a few windows, and named."""

import numpy as np
import pytest

from hedgerow.features import input_features, whole_features
from hedgerow.fleet.drift.alerts import DriftState, observe
from hedgerow.fleet.drift.findings import DriftPlan
from hedgerow.model_schema import ModelSchema
from hedgerow.reference import MISSING, Reference, build_reference
from hedgerow.schema import TensorSpec
from hedgerow.window import FeatureCounts, Window, WindowCounter

PLAN = DriftPlan()


def watched(spec: TensorSpec, values) -> Reference:
    schema = ModelSchema((spec,), ())
    return build_reference({}, {}, inputs=input_features(schema, {spec.name: values}), whole=whole_features(schema))


def first_alert(spec: TensorSpec, before, live, *, windows=6):
    """Return after how many windows an alert was raised, and of which features; None: after none."""
    reference, state, rng = watched(spec, before), DriftState("m@1"), np.random.default_rng(2)
    for index in range(windows):
        values = live()
        columns = input_features(ModelSchema((spec,), ()), {spec.name: values})
        features = {
            f.name: FeatureCounts(tuple(f.bin(columns[f.name]).tolist()), int(np.isnan(columns[f.name]).sum()))
            for f in reference.features
        }
        window = Window(
            release="m@1", index=index, started_at=0.0, ended_at=1.0, samples=len(values), features=features
        )
        state, alerts = observe(state, reference, "device", "target", window, PLAN, rng)
        if alerts:
            return index + 1, alerts[0].features
    return None


RNG = np.random.default_rng(1)


def rain(n, dry):
    return np.where(RNG.random((n, 1)) < dry, 0.0, RNG.exponential(size=(n, 1)))


def flags(n, share):
    return (RNG.random((n, 1)) < share) * 1.0


def normal(n, width=1):
    return RNG.normal(size=(n, width))


SENSOR, FLAG = TensorSpec("x", (1,)), TensorSpec("x", (1,), kind="flag")
WORLDS = {
    "flag": (FLAG, lambda n: flags(n, 0.05), lambda n: flags(n, 0.95)),
    "flag that nobody declared": (SENSOR, lambda n: flags(n, 0.05), lambda n: flags(n, 0.95)),
    "rain gauge": (SENSOR, lambda n: rain(n, 0.97), lambda n: rain(n, 0.0)),
    "constant": (SENSOR, lambda n: np.full((n, 1), 3.0), lambda n: np.full((n, 1), 9.0)),
    "outliers": (SENSOR, normal, lambda n: np.where(RNG.random((n, 1)) < 0.08, 20.0, normal(n))),
    "spread": (SENSOR, normal, lambda n: 2 * normal(n)),
    "stuck at what it mostly is": (SENSOR, normal, lambda n: np.full((n, 1), 0.01)),
    "saturated": (SENSOR, normal, lambda n: np.minimum(normal(n), 0.5)),
    "constant that begins to move": (SENSOR, lambda n: np.full((n, 1), 3.0), lambda n: 3 + 0.01 * normal(n)),
    "flag that is stuck": (FLAG, lambda n: flags(n, 0.3), lambda n: flags(n, 0.0)),
    "flag of another value": (FLAG, lambda n: flags(n, 0.3), lambda n: 7 * flags(n, 0.3)),
    "rare flag that is stuck": (FLAG, lambda n: flags(n, 0.05), lambda n: flags(n, 1.0)),
    "category that is stuck": (
        TensorSpec("x", (1,), "int64", kind="category"),
        lambda n: RNG.integers(0, 200, size=(n, 1)),
        lambda n: np.full((n, 1), 42),
    ),
    "category": (
        TensorSpec("x", (1,), "int64", kind="category"),
        lambda n: RNG.choice([3, 7, 70], size=(n, 1), p=[0.5, 0.4, 0.1]),
        lambda n: RNG.choice([3, 7, 8], size=(n, 1), p=[0.5, 0.4, 0.1]),
    ),
    "count": (
        TensorSpec("x", (1,), "int32", kind="count"),
        lambda n: RNG.poisson(2.0, size=(n, 1)),
        lambda n: RNG.poisson(5.0, size=(n, 1)),
    ),
}


@pytest.mark.parametrize("world", WORLDS)
def test_a_change_is_found_within_a_few_windows_and_named(world):
    spec, before, after = WORLDS[world]
    found = first_alert(spec, before(5000), lambda: after(500))

    assert found is not None
    assert found[0] <= 3
    assert found[1] == ("x",)


@pytest.mark.parametrize("world", WORLDS)
def test_the_same_world_without_the_change_raises_nothing(world):
    spec, before, _after = WORLDS[world]
    assert first_alert(spec, before(5000), lambda: before(500), windows=20) is None


@pytest.mark.parametrize("width", [8, 16, 17, 128])
def test_one_stuck_sensor_of_many_is_named(width):
    spec = TensorSpec("pump", (width,), channels=[f"bearing {index}" for index in range(width)])

    def stuck():
        values = normal(500, width)
        values[:, 3] = 0.0
        return values

    assert first_alert(spec, normal(5000, width), stuck) == (2, ("pump.bearing 3",))


@pytest.mark.heavy
def test_one_stuck_sensor_of_two_thousand_is_named_and_the_others_are_not():
    def stuck():
        values = normal(200, 2000)
        values[:, 1234] = 0.0
        return values

    assert first_alert(TensorSpec("x", (2000,)), normal(2000, 2000), stuck, windows=3) == (2, ("x.1234",))


def counted(spec: TensorSpec, reference: Reference, values, *, index: int) -> Window:
    """Return what a device makes of values whose answers nobody watches."""
    counter = WindowCounter("m@1", ModelSchema((spec,), ()), reference, first_index=index)
    counter.observe({spec.name: values}, {}, latency_ms=1.0, now=0.0)
    window = counter.cut(1.0)
    assert window is not None
    return window


@pytest.mark.parametrize(("minimum", "maximum", "beyond"), [(-40, None, -41.0), (None, 40, 41.0), (-40, 40, np.inf)])
def test_values_beyond_what_was_declared_are_found_and_missing_ones_are_none_of_them(minimum, maximum, beyond):
    spec = TensorSpec("x", (3,), minimum=minimum, maximum=maximum, missing=True)
    reference, rng = watched(spec, normal(5000, 3)), np.random.default_rng(2)

    def alert_of(live):
        state = DriftState("m@1")
        for index in range(6):
            window = counted(spec, reference, live(), index=index)
            state, alerts = observe(state, reference, "device", "target", window, PLAN, rng)
            if alerts:
                return index + 1, alerts[0].features
        return None

    def with_some(value):
        values = normal(500, 3)
        values[RNG.random(500) < 0.3, 1] = value
        return values

    assert alert_of(lambda: with_some(beyond)) == (2, ("out_of_range", "x.1"))
    assert alert_of(lambda: with_some(np.nan)) == (2, (f"{MISSING}x.1",))
    assert alert_of(lambda: normal(500, 3)) is None


def test_a_stuck_sensor_of_a_series_is_named_by_its_spread():
    spec = TensorSpec("hall", (4, 32), channels=("a", "b", "c", "d"))

    def stuck():
        values = RNG.normal(size=(200, 4, 32))
        values[:, 2] = values[:, 2, :1]
        return values

    found = first_alert(spec, RNG.normal(size=(2000, 4, 32)), stuck)

    assert found is not None
    assert (found[0], set(found[1])) == (2, {"hall.c.mean", "hall.c.std"})


def test_a_channel_that_is_missing_more_often_than_in_training_is_named():
    spec = TensorSpec("weather", (2,), missing=True, channels=("wind", "rain"))

    def some(n, share):
        values = normal(n, 2)
        values[:, 1][RNG.random(n) < share] = np.nan
        return values

    assert first_alert(spec, some(5000, 0.2), lambda: some(500, 0.2), windows=20) is None
    assert first_alert(spec, some(5000, 0.2), lambda: some(500, 0.7)) == (2, (f"{MISSING}weather.rain",))


def test_a_channel_that_was_never_there_and_comes_is_named():
    spec = TensorSpec("x", (2,), missing=True)
    before = np.stack([RNG.normal(size=1000), np.full(1000, np.nan)], axis=1)

    assert first_alert(spec, before, lambda: normal(200, 2)) == (2, (f"{MISSING}x.1",))
