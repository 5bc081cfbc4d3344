import dataclasses

import pytest

from hedgerow.fleet.errors import SettingsError
from hedgerow.fleet.settings import FleetSettings


def test_every_setting_has_help():
    assert all(field.metadata["help"] for field in dataclasses.fields(FleetSettings))


def test_settings_come_from_variables_and_what_is_given_wins():
    env = {
        "HEDGEROW_FLEET_PORT": "0",
        "HEDGEROW_FLEET_TICK_S": "0.5",
        "HEDGEROW_FLEET_RETRAIN_ON_ALERT": "false",
        "HEDGEROW_FLEET_FLEET": "garden",
        "PATH": "/bin",
    }
    settings = FleetSettings.from_env(env, fleet="orchard", host=None)
    assert (settings.port, settings.tick_s, settings.retrain_on_alert) == (0, 0.5, False)
    assert (settings.fleet, settings.host) == ("orchard", "127.0.0.1")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("PROT", "80"),
        ("RETRAIN_ON_ALERT", "maybe"),
        ("DRIFT_ALPHA", "2"),
        ("TICK_S", "0"),
        ("TICK_S", "nan"),
        ("RECENT_WINDOWS", "0"),
        ("FLEET", "two words"),
        ("SEED", "-1"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_what_was_expected(variable, value):
    with pytest.raises(SettingsError, match=f"(?i){variable}.*expected.*{value}"):
        FleetSettings.from_env({f"HEDGEROW_FLEET_{variable}": value})
