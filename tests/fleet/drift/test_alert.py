"""An alert is stored whole or refused, and grows by what is found."""

from dataclasses import replace

import pytest

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.fleet.drift.alert import Alert, AlertKind, Watched, device_slice, without_device
from hedgerow.fleet.drift.findings import Finding

FINDING = Finding("device:a", "x", 100, 0.001, 0.01, 0.2, 0.3, 1.0, drifted=True)
ALERT = Alert(
    "drift-digits-1-1",
    "digits@1",
    5.0,
    ("a", "b"),
    ("x",),
    (FINDING, replace(FINDING, slice="fleet", feature="y")),
    2,
    AlertKind.DRIFT,
    "",
    {"device:a": 3.0, "fleet": 4.0},
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "x" * 161),
        ("kind", "rumour"),
        ("reason", "x" * 4097),
        ("began", {"fleet": "soon"}),
        ("release", "digits"),
        ("raised_at", None),
        ("devices", "a"),
        ("features", [1]),
        ("windows", -1),
        ("more", 1),
    ],
)
def test_an_alert_out_of_bounds_is_refused_and_one_at_its_bounds_is_not(name, value):
    edge = replace(ALERT, id="x" * 160, reason="x" * 4096, windows=0)
    assert Alert.from_fields(Fields(edge.to_record(), "alert")) == edge
    with pytest.raises(DecodeError, match=name):
        Alert.from_fields(Fields({**edge.to_record(), name: value}, "alert"))


def test_an_alert_about_thousands_can_be_stored():
    names = tuple(f"d{index}" for index in range(5000))
    findings = tuple(replace(FINDING, slice=device_slice(name)) for name in names)
    alert = replace(ALERT, devices=names, features=names, findings=findings)
    assert Alert.from_fields(Fields(alert.to_record(), "alert")) == alert


def test_the_first_alert_and_the_next_have_numbers_and_an_open_one_keeps_its_own():
    none = Watched("digits@1", raised=3)
    first = none.next_alert(AlertKind.SCORE, 9.0, devices=["b", "a"], began={"fleet": 1.0}, reason="low")
    assert first == Alert(
        "score-digits-1-4", "digits@1", 9.0, ("a", "b"), (), (), 0, AlertKind.SCORE, "low", {"fleet": 1.0}
    )
    grown = replace(none, raised=4, open=first).next_alert(
        AlertKind.SCORE, 12.0, devices=["c", "a"], began={"fleet": 7.0, "device:c": 8.0}, reason="lower", windows=2
    )
    assert grown == replace(first, devices=("a", "b", "c"), began={"fleet": 1.0, "device:c": 8.0}, windows=2)


def test_an_alert_without_a_device_is_about_the_others_as_before():
    left = without_device(ALERT, "a")
    assert left == replace(ALERT, devices=("b",), features=("y",), findings=ALERT.findings[1:], began={"fleet": 4.0})
    assert without_device(ALERT, "nobody") == replace(ALERT, features=("x", "y"))


@pytest.mark.parametrize(
    ("devices", "device", "target", "moment"),
    [
        (("a",), "a", "pi", 3.0),
        (("a",), "b", "pi", None),
        ((), "b", "pi", 4.0),
        ((), "b", None, 4.0),
    ],
)
def test_an_alert_says_since_when_for_whom(devices, device, target, moment):
    assert replace(ALERT, devices=devices).changed_at(device, target) == moment
    earlier = replace(ALERT, devices=(), began={"fleet": 4.0, "target:pi": 2.0})
    assert (earlier.changed_at("b", "pi"), earlier.changed_at("b", "phone")) == (2.0, 4.0)
    assert replace(ALERT, devices=(), began={}).changed_at("b", "pi") is None
