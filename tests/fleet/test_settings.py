import dataclasses
import re

import pytest

from hedgerow.fleet.errors import ServiceSettingsError
from hedgerow.fleet.settings import FleetSettings

TIMES = (
    "tick_s",
    "nudge_s",
    "nudge_longest_s",
    "presence_silence_s",
    "presence_answer_s",
    "merge_period_s",
    "retrain_timeout_s",
)
COUNTS = (
    "batch_events",
    "device_limit",
    "recent_windows",
    "drift_consecutive",
    "retrain_minimum_devices",
    "retrain_most_failures",
    "retrain_rounds",
    "baseline_samples",
)
PAUSES = ("retrain_cool_down_s", "retrain_longest_cool_down_s")
FROM_ZERO = (
    "drift_minimum_js",
    "drift_minimum_samples",
    "seed",
)


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
        ("TICK_S", "inf"),
        ("TICK_S", "1e+30"),
        ("RECENT_WINDOWS", "0"),
        ("FLEET", "two words"),
        ("SEED", "-1"),
        ("HOST", "h" * 64),
        ("BROKER_HOST", "a..b"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_what_was_expected(variable, value):
    with pytest.raises(ServiceSettingsError, match=f"(?i){variable}.*expected.*{re.escape(value)}"):
        FleetSettings.from_env({f"HEDGEROW_FLEET_{variable}": value})


def test_a_file_comes_before_variables_and_names_its_keys(tmp_path):
    path = tmp_path / "fleet.toml"
    path.write_text("tick_s = 1\nport = 8081\nretrain_on_alert = false\n")
    settings = FleetSettings.read(file=path, env={"HEDGEROW_FLEET_PORT": "8082"}, options={"host": "192.0.2.1"})
    assert (settings.tick_s, settings.port, settings.host) == (1.0, 8082, "192.0.2.1")
    assert settings.retrain_on_alert is False
    path.write_text("drift_alpha = 1")
    with pytest.raises(
        ServiceSettingsError, match=r"fleet.toml, drift_alpha: expected a probability .* found '1'; correct it"
    ):
        FleetSettings.read(file=path)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("port", (0, 65535), (-1, 65536)),
        ("broker_port", (0, 65535), (-1, 65536)),
        *((name, (1e-9, 1e9), (0.0, -1.0, 1.1e9, float("inf"), float("nan"))) for name in TIMES),
        *((name, (0.0, 1e9), (-1.0, 1.1e9, float("inf"), float("nan"))) for name in PAUSES),
        *((name, (1, 2**40), (0, -1)) for name in COUNTS),
        *((name, (1e-9, 0.999), (0.0, 1.0, float("nan"))) for name in ("drift_alpha", "score_alpha")),
        *((name, (0, 1), (-1, float("inf"), float("nan"))) for name in FROM_ZERO),
    ],
)
def test_numbers_hold_at_their_bounds_and_not_beyond(name, good, bad):
    for value in good:
        assert getattr(FleetSettings(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(ServiceSettingsError, match=f"^{name}: expected"):
            FleetSettings(**{name: value})


@pytest.mark.parametrize("variable", ["HOST", "BROKER_HOST"])
def test_a_host_of_half_a_character_is_refused(variable):
    with pytest.raises(ServiceSettingsError, match=f"^HEDGEROW_FLEET_{variable}: expected text without control"):
        FleetSettings.from_env({f"HEDGEROW_FLEET_{variable}": "\udcff"})


def test_every_setting_of_time_has_a_longest():
    times = [name for name in FleetSettings.declared() if name.endswith("_s")]
    assert set(times) == {*TIMES, *PAUSES}
    for name in times:
        assert not FleetSettings.declared()[name].metadata["bound"].holds(1.1e9), name
