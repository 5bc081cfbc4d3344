from dataclasses import dataclass

import pytest

from hedgerow.compile.errors import PassSettingsError
from hedgerow.compile.passes.settings import NoSettings, between, one_of, read_settings, yes_or_no


@dataclass(frozen=True, slots=True, kw_only=True)
class Baking:
    minutes: int = between(1, 90)
    degrees: float = between(50, 250, default=180.0)
    fan: bool = yes_or_no(default=False)
    form: str = one_of("loaf", "roll", default="loaf")


def test_settings_are_read_with_their_defaults():
    assert read_settings("bake", Baking, {"minutes": 30}) == Baking(minutes=30, degrees=180.0, fan=False, form="loaf")
    assert read_settings("bake", NoSettings, {}) == NoSettings()


def test_a_whole_number_serves_as_a_float():
    assert read_settings("bake", Baking, {"minutes": 30, "degrees": 200}).degrees == 200.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "bake: expected a value for the setting 'minutes', found none"),
        ({"minutes": 0}, "expected a number from 1 to 90 for the setting 'minutes', found 0"),
        ({"minutes": 5.0}, "expected int for the setting 'minutes', found float 5.0"),
        ({"minutes": True}, "expected int for the setting 'minutes', found bool True"),
        ({"minutes": 5, "degrees": float("nan")}, "expected a number from 50 to 250 for the setting 'degrees'"),
        ({"minutes": 5, "form": "plait"}, "expected one of loaf, roll for the setting 'form', found 'plait'"),
        ({"minutes": 5, "fan": 1}, "expected bool for the setting 'fan', found int 1"),
        ({"minutes": 5, "grill": True}, r"expected one of its settings \(degrees, fan, form, minutes\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(PassSettingsError, match=message):
        read_settings("bake", Baking, settings)


def test_a_pass_without_settings_takes_none():
    with pytest.raises(PassSettingsError, match=r"its settings \(none\) for the setting 'bits'"):
        read_settings("bake", NoSettings, {"bits": 8})
