from dataclasses import dataclass
from typing import ClassVar

import pytest

from hedgerow.compile.errors import PassSettingsError
from hedgerow.compile.passes.kinds import ModelPass
from hedgerow.compile.passes.settings import between, one_of, yes_or_no


@dataclass(frozen=True, slots=True, kw_only=True)
class Bake(ModelPass):
    name: ClassVar[str] = "bake"
    minutes: int = between(1, 90)
    degrees: float = between(50, 250, default=180.0)
    fan: bool = yes_or_no(default=False)
    form: str = one_of("loaf", "roll", default="loaf")
    share: float = 0.0

    def apply(self, source):
        return source.model


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest(ModelPass):
    name: ClassVar[str] = "rest"

    def apply(self, source):
        return source.model


def test_settings_that_are_left_out_have_their_defaults():
    assert Bake(minutes=30).settings == {"degrees": 180.0, "fan": False, "form": "loaf", "minutes": 30, "share": 0.0}
    assert Rest().settings == {}


def test_a_whole_number_serves_as_a_float_and_makes_the_same_pass():
    assert type(Bake(minutes=30, degrees=200).degrees) is float
    assert Bake(minutes=30, degrees=200) == Bake(minutes=30, degrees=200.0)
    assert str(Bake(minutes=30, degrees=200)) == "bake(degrees=200.0, fan=False, form=loaf, minutes=30, share=0.0)"


@pytest.mark.parametrize("degrees", [50.0, 250.0])
def test_both_ends_of_a_range_belong_to_it(degrees):
    assert Bake(minutes=1, degrees=degrees).degrees == degrees


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "bake: expected a value for the setting 'minutes', found none"),
        ({"minutes": 0}, "expected a number from 1 to 90 for the setting 'minutes', found 0"),
        ({"minutes": 91}, "expected a number from 1 to 90 for the setting 'minutes', found 91"),
        ({"minutes": 5.0}, "expected int for the setting 'minutes', found float 5.0"),
        ({"minutes": True}, "expected int for the setting 'minutes', found bool True"),
        ({"minutes": None}, "expected int for the setting 'minutes', found NoneType None"),
        ({"minutes": 5, "degrees": float("nan")}, "expected a finite number for the setting 'degrees', found nan"),
        ({"minutes": 5, "share": float("inf")}, "expected a finite number for the setting 'share', found inf"),
        ({"minutes": 5, "degrees": 250.1}, "expected a number from 50 to 250 for the setting 'degrees'"),
        ({"minutes": 5, "form": "plait"}, "expected one of loaf, roll for the setting 'form', found 'plait'"),
        ({"minutes": 5, "fan": 1}, "expected bool for the setting 'fan', found int 1"),
        ({"minutes": 10**5000}, "from 1 to 90 for the setting 'minutes', found a whole number of 16610 bits"),
        ({"minutes": -(10**5000)}, "from 1 to 90 for the setting 'minutes', found a whole number of 16610 bits"),
        (
            {"minutes": 5, "degrees": 10**400},
            "expected a finite number for the setting 'degrees', found a whole number",
        ),
        ({"minutes": 5, "form": 10**5000}, "expected str for the setting 'form', found int a whole number of 16610"),
        ({"minutes": 5, "cls": 1}, r"expected one of its settings .* for the setting 'cls'"),
        ({"minutes": 5, "self": 1}, r"expected one of its settings .* for the setting 'self'"),
        ({"minutes": 5, "grill": True}, r"expected one of its settings \(degrees, fan, form, minutes, share\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(PassSettingsError, match=message):
        Bake(**settings)


@pytest.mark.parametrize("kind", [tuple[int, ...], int | None, list])
def test_a_setting_that_no_record_can_hold_is_refused(kind):
    made = dataclass(frozen=True, kw_only=True)(type("Odd", (Rest,), {"__annotations__": {"odd": kind}, "odd": None}))
    with pytest.raises(PassSettingsError, match="rest: expected a field of type int, float, bool or str"):
        made()


def test_a_pass_without_settings_takes_none():
    with pytest.raises(PassSettingsError, match=r"its settings \(none\) for the setting 'bits'"):
        Rest(bits=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wide(ModelPass):
    name: ClassVar[str] = "wide"
    most: int = between(0, 10**400, default=1)
    plain: int = 1

    def apply(self, source):
        return source.model


def test_a_whole_number_is_as_wide_as_records_hold():
    assert Wide(most=2**63 - 1, plain=-(2**63)).settings == {"most": 2**63 - 1, "plain": -(2**63)}
    for setting in ("most", "plain"):
        with pytest.raises(
            PassSettingsError, match=f"at most 64 bits for the setting '{setting}', found 9223372036854775808"
        ):
            Wide(**{setting: 2**63})
    with pytest.raises(
        PassSettingsError, match="from 0 to a whole number of 1329 bits for the setting 'most', found -1"
    ):
        Wide(most=-1)
