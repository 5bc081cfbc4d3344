import numpy as np
import pytest

from hedgerow.decode import decode_json, encode_json
from hedgerow.server.simulation.battery import Battery, BatteryLedger
from hedgerow.server.simulation.clock import LocalTime

HOUR_S = 3600.0
ONE = np.array([0])
# On the charger from 22 h to 6 h; the owner takes a half in the 16 hours between.
STEADY = Battery(daily_use=(0.5, 0.5), full_in_h=4.0, capacity_j=1000.0, local=LocalTime(habit_h=0))


@pytest.mark.parametrize(
    ("hour", "level"), [(6, 1.0), (14, 0.75), (22, 0.5), (23, 0.75), (24, 1.0), (26, 1.0), (30, 1.0), (38, 0.75)]
)
def test_a_battery_drains_by_day_and_fills_at_night(hour: float, level: float):
    assert STEADY.level(ONE, hour * HOUR_S)[0] == pytest.approx(level)


def test_training_drains_and_a_battery_is_never_below_empty():
    assert STEADY.level(ONE, 14 * HOUR_S, 250.0)[0] == pytest.approx(0.5)
    assert STEADY.level(ONE, 14 * HOUR_S, 5000.0)[0] == 0.0
    assert STEADY.level(ONE, 22 * HOUR_S, 5000.0)[0] == 0.0


def test_levels_lie_between_empty_and_full_and_never_jump():
    devices = np.arange(200)
    levels = np.array([Battery().level(devices, minute * 60.0) for minute in range(0, 3 * 1440, 5)])
    assert levels.min() >= 0
    assert levels.max() <= 1
    assert np.abs(np.diff(levels, axis=0)).max() < 0.03


def test_a_ledger_forgets_what_was_taken_before_the_last_charge():
    ledger = BatteryLedger()
    devices = np.array([7, 3])
    ledger.take(STEADY, devices, 10 * HOUR_S, np.array([100.0, 0.0]))
    ledger.take(STEADY, devices, 12 * HOUR_S, np.array([50.0, 25.0]))
    asked = np.array([3, 5, 7])
    assert ledger.used_j(STEADY, asked, 13 * HOUR_S).tolist() == [25.0, 0.0, 150.0]
    assert ledger.used_j(STEADY, asked, 23 * HOUR_S).tolist() == [25.0, 0.0, 150.0]
    assert ledger.used_j(STEADY, asked, 34 * HOUR_S).tolist() == [0.0, 0.0, 0.0]


def test_training_on_the_charger_costs_nothing():
    ledger = BatteryLedger()
    ledger.take(STEADY, ONE, 23 * HOUR_S, np.array([100.0]))
    assert ledger.used_j(STEADY, ONE, 23 * HOUR_S).tolist() == [0.0]


def test_a_ledger_survives_its_record():
    ledger = BatteryLedger()
    ledger.take(STEADY, np.array([7, 3]), 10 * HOUR_S, np.array([100.5, 1.0]))
    fields = decode_json(encode_json(ledger.to_record()), "ledger", limit_bytes=1000)
    again = BatteryLedger.from_fields(fields)
    assert again.used_j(STEADY, np.array([3, 7]), 11 * HOUR_S).tolist() == [1.0, 100.5]


@pytest.mark.parametrize(
    "changes", [{"daily_use": (0.9, 0.4)}, {"charge_from_h": 24.0}, {"charging_h": 24.0}, {"capacity_j": 0.0}]
)
def test_impossible_batteries_are_refused(changes: dict):
    with pytest.raises(ValueError, match="expected"):
        Battery(**changes)
