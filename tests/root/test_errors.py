"""Errors say what was expected, what was found and what to do, and keep their facts."""

import pickle

import pytest

from hedgerow.errors import (
    BrokerUnreachableError,
    DecodeError,
    ExtraNotInstalledError,
    HedgerowError,
    LinkError,
    PluginError,
    PortInUseError,
    TaskError,
    UnknownNameError,
)
from hedgerow.installation import install_command

ERRORS = [
    BrokerUnreachableError("broker.example", 8883, "refused"),
    DecodeError("manifest.number", "a whole number", "'x'"),
    ExtraNotInstalledError("compiling", "compile", "torch"),
    LinkError("expected a link, found none; connect it"),
    PluginError("strategy", "mine.py:Mine", "it raised KeyError: 1; correct it"),
    PortInUseError("the fleet service", "127.0.0.1", 8080),
    TaskError("'digits'", ["it has no inputs", "its labels repeat"]),
    UnknownNameError("target", "raspberry", ["raspberry-pi-4", "x86-gateway"]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_is_a_hedgerow_error_and_one_line(error):
    assert isinstance(error, HedgerowError)
    assert str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_crosses_a_process_border_with_its_facts(error):
    copied = pickle.loads(pickle.dumps(error))

    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)


def test_an_unknown_name_suggests_the_nearest():
    assert "did you mean 'raspberry-pi-4'?" in str(
        UnknownNameError("target", "rasberry-pi-4", ["raspberry-pi-4", "mcu"])
    )


def test_an_unknown_name_that_is_near_to_none_lists_all_in_order():
    assert str(UnknownNameError("target", "zzz", ["b", "a"])) == "no target is called 'zzz'; choose one of: a, b"


def test_a_missing_extra_names_the_command_that_installs_it():
    assert f"run: {install_command('compile')}" in str(ExtraNotInstalledError("compiling", "compile", "torch"))


def test_a_task_error_lists_every_mistake():
    error = TaskError("'digits'", ["it has no inputs", "its labels repeat"])

    assert error.mistakes == ("it has no inputs", "its labels repeat")
    assert str(error).endswith("it has no inputs; its labels repeat")


def test_advice_that_a_quoted_error_gives_as_well_stands_once_and_last():
    quoted = DecodeError("reply", "a; b", "none; try again")
    assert str(LinkError(f"expected an answer, found {quoted}; try again")) == (
        "expected an answer, found reply: expected a; b, found none; try again"
    )
    assert str(LinkError("expected x, found y; correct it; correct it")) == "expected x, found y; correct it"
    assert str(LinkError("expected x, found y; wait; try again")) == "expected x, found y; wait; try again"


def test_a_hint_takes_the_place_of_the_names():
    error = UnknownNameError("target", "door", ["pico"], hint="name the file, as ./door.toml")
    assert str(error) == "no target is called 'door'; name the file, as ./door.toml"
    assert error.known == ("pico",)
