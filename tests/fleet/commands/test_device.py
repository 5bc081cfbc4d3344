import json

import pytest

from hedgerow.cli import main
from tests.fleet.web.test_client import served

__all__ = ["served"]


def test_a_reset_is_one_command_and_says_what_stays_wanted(served, capsys, monkeypatch):
    monkeypatch.setenv("HEDGEROW_ADMIN_KEY", served.key)
    server = ["--server", served.server.url]
    served.service.assign("device-0", "toy@1")
    assert main(["device", "reset", "device-0", *server]) == 0
    assert capsys.readouterr().out == "device-0 is reset; toy@1 stays wanted of it, and its next report counts\n"
    assert main(["device", "reset", "device-1", "--json", *server]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "device-1"
    assert main(["device", "reset", "nobody", *server]) == 1
    assert served.service.device("device-0").target is None


def test_a_device_is_forgotten_by_one_command(served, capsys, monkeypatch):
    monkeypatch.setenv("HEDGEROW_ADMIN_KEY", served.key)
    server = ["--server", served.server.url]
    assert main(["device", "forget", "device-0", *server]) == 0
    assert capsys.readouterr().out == "device-0 is forgotten; if it reports again, it is new\n"
    assert main(["device", "forget", "device-1", "--json", *server]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "device-1"
    assert main(["device", "forget", "device-0", *server]) == 1
    said = capsys.readouterr().err
    assert "found no 'device-0'; correct the name, or wait for its report" in said
    assert {device.name for device in served.service.devices()}.isdisjoint({"device-0", "device-1"})


@pytest.mark.parametrize("command", ["reset", "forget"])
def test_help_has_an_example_and_takes_no_key(capsys, command):
    assert main(["device", command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example:" in text
    assert "--key " not in text


@pytest.mark.parametrize("name", ["a/b é", "", ".", "..", "../nobody", "a?b"])
@pytest.mark.parametrize("command", [["device", "forget"], ["device", "reset"], ["rollout", "status"]])
def test_a_name_that_can_be_none_is_refused_before_anybody_is_asked(capsys, monkeypatch, command, name):
    monkeypatch.setenv("HEDGEROW_ADMIN_KEY", "k")
    assert main([*command, name, "--server", "http://127.0.0.1:1"]) == 2
    assert f"expected a name like [A-Za-z0-9][A-Za-z0-9._-]{{0,63}}, found {name!r}" in capsys.readouterr().err
