"""Settings are checked before anything starts."""

from dataclasses import fields

import pytest

from hedgerow.client.errors import SettingsError
from hedgerow.client.settings import AgentSettings, parse_address, parse_options

GOOD = {
    "device": "d",
    "fleet": "f",
    "target": "t",
    "broker_host": "h",
    "broker_port": 1,
    "server": "http://h",
    "trusted_root": None,
    "state_folder": None,
}


def test_addresses_and_options_are_split():
    assert parse_address("broker.example:1883") == ("broker.example", 1883)
    assert parse_address("[::1]:8883") == ("::1", 8883)
    assert parse_options(("a=1", "b=x=y", "c=")) == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("text", ["broker", "broker:", ":1883", "a b:1", "::1:1883", "h:123456"])
def test_a_wrong_address_names_the_option(text):
    with pytest.raises(SettingsError, match="--broker"):
        parse_address(text)


@pytest.mark.parametrize("texts", [("a",), ("=1",), ("a=1", "a=2")])
def test_a_wrong_option_names_the_option(texts):
    with pytest.raises(SettingsError, match="--source-option"):
        parse_options(texts)


@pytest.mark.parametrize(
    "change",
    [{"device": "a/b"}, {"fleet": "#"}, {"target": ""}, {"broker_port": 0}, {"window_samples": 0}, {"crash_limit": 0}],
)
def test_a_wrong_setting_is_one_sentence(change):
    with pytest.raises(SettingsError, match=r"expected .*, found .*; "):
        AgentSettings(**{**GOOD, **change})


@pytest.mark.parametrize("change", [{"sink": "app.py:act"}, {"is_printing": True}])
def test_answers_need_a_source(change):
    with pytest.raises(SettingsError, match="--source beside"):
        AgentSettings(**{**GOOD, **change})
    assert AgentSettings(**{**GOOD, **change, "source": "app.py:stream"})


def test_every_setting_has_help():
    AgentSettings(**GOOD)
    assert all(field.metadata["help"].endswith(".") for field in fields(AgentSettings))
