"""Settings are checked before anything starts."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from hedgerow.client.errors import AgentSettingsError
from hedgerow.client.settings import AgentSettings, parse_address, parse_options
from hedgerow.window import WINDOW_SAMPLES_LIMIT

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
    with pytest.raises(AgentSettingsError, match="--broker"):
        parse_address(text)


@pytest.mark.parametrize("texts", [("a",), ("=1",), ("a=1", "a=2")])
def test_a_wrong_option_names_the_option(texts):
    with pytest.raises(AgentSettingsError, match="--source-option"):
        parse_options(texts)


@pytest.mark.parametrize(
    "change",
    [{"device": "a/b"}, {"fleet": "#"}, {"target": ""}, {"broker_port": 0}, {"window_samples": 0}, {"crash_limit": 0}],
)
def test_a_wrong_setting_is_one_sentence(change):
    with pytest.raises(AgentSettingsError, match=r"expected .*, found .*; "):
        AgentSettings(**{**GOOD, **change})


@pytest.mark.parametrize("change", [{"sink": "app.py:act"}, {"is_printing": True}])
def test_answers_need_a_source(change):
    with pytest.raises(AgentSettingsError, match="--source beside"):
        AgentSettings(**{**GOOD, **change})
    assert AgentSettings(**{**GOOD, **change, "source": "app.py:stream"})


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("broker_port", (1, 65535), (0, 65536)),
        ("window_samples", (1, WINDOW_SAMPLES_LIMIT), (0, WINDOW_SAMPLES_LIMIT + 1)),
        ("buffer_samples", (1,), (0,)),
        ("spool_windows", (1,), (0,)),
        ("crash_limit", (1,), (0,)),
        ("healthy_after_s", (0.001, 3600.0), (0.0, 3600.1, float("nan"))),
        ("trial_timeout_s", (0.001, 3600.0), (0.0, 3600.1, float("nan"))),
    ],
)
def test_numbers_hold_at_their_bounds_and_not_beyond(name, good, bad):
    for value in good:
        assert getattr(AgentSettings(**{**GOOD, name: value}), name) == value
    for value in bad:
        with pytest.raises(AgentSettingsError, match=name):
            AgentSettings(**{**GOOD, name: value})


def test_an_agents_settings_come_from_a_file_variables_and_options(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(
        'device = "pi-0"\nfleet = "garden"\ntarget = "t"\nbroker_host = "h"\nbroker_port = 1883\nserver = "http://h"\n'
        'trusted_root = "root.json"\nstate_folder = "state"\nwindow_samples = 20\n[source_options]\ninbox = "in"\n'
    )
    settings = AgentSettings.read(
        file=path, env={"HEDGEROW_AGENT_DEVICE": "pi-1", "HEDGEROW_FLEET_PORT": "1"}, options={"crash_limit": 2}
    )
    assert (settings.device, settings.fleet, settings.window_samples, settings.crash_limit) == ("pi-1", "garden", 20, 2)
    assert (settings.state_folder, settings.source_options) == (Path("state"), {"inbox": "in"})
    with pytest.raises(
        AgentSettingsError, match=r"HEDGEROW_AGENT_DEVICES: expected a setting out of broker_host, .*'x'"
    ):
        AgentSettings.read(file=path, env={"HEDGEROW_AGENT_DEVICES": "x"})
    path.write_text("crash_limit = 0")
    with pytest.raises(
        AgentSettingsError, match=r"agent.toml, crash_limit: expected at least 1, found '0'; correct it"
    ):
        AgentSettings.read(file=path)


def test_the_file_in_the_documents_holds_settings_and_all_but_the_name_of_the_device(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
    path = tmp_path / "agent.toml"
    path.write_text(text.partition("```toml\n")[2].partition("```")[0])
    settings = AgentSettings.read(file=path, options={"device": "pi-0"})
    assert (settings.broker_host, settings.source_options["inbox"]) == ("192.0.2.7", "/var/spool/garden")
    told = text.partition("## Options\n")[2].partition("```toml")[0]
    for name, declared in AgentSettings.declared().items():
        flag = declared.metadata["flag"]
        assert f"`{flag}`" in told
        assert flag == f"--{name.replace('_', '-')}" or f"`{name}`" in told, "a name that is not the option's is told"


def test_every_setting_has_an_option():
    flags = [field.metadata["flag"] for field in fields(AgentSettings)]
    assert all(flag.startswith("--") for flag in flags)
    assert len(set(flags)) == len(flags) - 1, "--broker sets host and port"


def test_every_setting_has_help():
    AgentSettings(**GOOD)
    assert all(field.metadata["help"].endswith(".") for field in fields(AgentSettings))


@pytest.mark.parametrize("value", ["", "a\x00b"])
@pytest.mark.parametrize("key", ["state_folder", "trusted_root"])
def test_a_path_that_no_system_call_takes_or_that_is_empty_is_refused_from_a_file(tmp_path, key, value):
    path = tmp_path / "agent.toml"
    path.write_text(f"{key} = {json.dumps(value)}\n")
    with pytest.raises(AgentSettingsError, match=f"agent.toml, {key}: expected"):
        AgentSettings.collect(file=path)


def test_a_host_that_cannot_be_looked_up_is_refused():
    with pytest.raises(AgentSettingsError, match=r"^broker_host: expected the name or the address of a host, found "):
        AgentSettings(**{**GOOD, "broker_host": "b" * 300})


@pytest.mark.parametrize("server", ["", "h:80", "http://[", "http://h:99999", f"http://{'h' * 300}"])
def test_an_address_of_the_fleet_that_is_none_is_refused(server):
    with pytest.raises(AgentSettingsError, match=r"^server: expected an address like http://127.0.0.1:8080, found "):
        AgentSettings(**{**GOOD, "server": server})
