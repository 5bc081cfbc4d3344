"""The command is a table; errors are one sentence on stderr and an exit code."""

import subprocess
import sys

import click
import pytest

from hedgerow import __version__
from hedgerow.cli import COMMANDS, LazyGroup, main
from hedgerow.errors import ExtraNotInstalledError, HedgerowError
from hedgerow.installation import install_command
from hedgerow.plugins import Plugin

ELSEWHERE = """
import os, signal, sys
import click
for name in ("fcntl", "resource", "pwd", "termios"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGALRM", "SIGKILL", "SIGQUIT"):
    delattr(signal, name)
from hedgerow.cli import main
os.name = "nt"
sys.platform = "win32"
sys.exit(main(sys.argv[1:]))
"""
"""What Python has on Windows, as far as can be told here."""


@pytest.mark.parametrize("command", [["agent", "run"], ["compile", "--help"], ["--version"]])
def test_a_system_that_is_no_posix_is_one_sentence(command):
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("hedgerow: expected Linux")
    assert "found win32; use a Linux machine" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_lists_every_command_without_importing_one(capsys):
    assert main(["--help"]) == 0

    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items() if not isinstance(entry, tuple)])
def test_help_of_a_group_lists_its_commands(name, capsys):
    assert main([name, "--help"]) == 0

    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS[name])


def test_the_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--no-such-option"], ["fleet", "no-such-command"]])
def test_a_wrong_call_exits_with_2_and_a_usage_line(arguments, capsys):
    assert main(arguments) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage: hedgerow" in captured.err


@click.command()
def fail() -> None:
    """Meet the world."""
    raise HedgerowError("expected sun, found rain; wait")


@click.command()
def interrupt() -> None:
    """Be interrupted."""
    raise KeyboardInterrupt


@click.command()
def seven() -> int:
    """Return an exit code."""
    return 7


@click.command()
def late() -> None:
    """Import what is absent."""
    import no_such_package  # noqa: F401


@click.command()
def wrong() -> None:
    """Import a module that its installed package does not have, which is our mistake."""
    import json.no_such_module  # noqa: F401


GROUP = LazyGroup(
    "hedgerow",
    {
        "fail": (Plugin(f"{__name__}:fail"), "Meet the world."),
        "interrupt": (Plugin(f"{__name__}:interrupt"), "Be interrupted."),
        "seven": (Plugin(f"{__name__}:seven"), "Return an exit code."),
        "absent": (Plugin("no_such_package:x", "compile"), "Need an extra."),
        "late": (Plugin(f"{__name__}:late", "fleet"), "Need an extra after a while."),
    },
    "Try.",
)


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("fail", 1, "hedgerow: expected sun, found rain; wait\n"),
        ("interrupt", 130, "hedgerow: interrupted\n"),
        ("seven", 7, ""),
        ("absent", 1, f"run: {install_command('compile')}\n"),
        ("late", 1, f"run: {install_command('fleet')}\n"),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(name, code, sentence, capsys):
    assert main([name], GROUP) == code

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip("\n").count("\n") == 0
    assert captured.err.endswith(sentence)


@pytest.mark.parametrize("name", ["absent", "late"])
def test_a_command_without_its_packages_is_named_as_it_was_called(name, capsys):
    members = {
        "absent": (Plugin("no_such_package:x", "compile"), "Need an extra."),
        "late": (Plugin(f"{__name__}:late", "fleet"), "Need an extra after a while."),
    }
    group = LazyGroup("hedgerow", {"outer": members}, "Try.")

    assert main(["outer", name], group) == 1
    assert capsys.readouterr().err.startswith(f"hedgerow: the command 'hedgerow outer {name}' needs the packages")


def test_listing_commands_does_not_need_their_packages(capsys):
    assert main(["--help"], GROUP) == 0
    assert "Need an extra." in capsys.readouterr().out
    with pytest.raises(ExtraNotInstalledError):
        GROUP.get_command(click.Context(GROUP), "absent")


def test_the_command_is_there_before_anything_slow_is_imported():
    """Until then a signal meets Python's own answer, not ours."""
    script = "import sys, hedgerow.cli; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_module_that_an_installed_package_lacks_is_a_bug_and_no_missing_extra():
    group = LazyGroup("hedgerow", {"wrong": (Plugin(f"{__name__}:wrong", "fleet"), "Be wrong.")}, "Try.")

    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        main(["wrong"], group)
