"""Tests of hedgerow.server.run_options: written once, and on both commands with their own defaults."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from hedgerow.server.cli import check, train
from hedgerow.server.run_options import folder_options, rounds_option, seed_option
from hedgerow.server.simulation.cli import simulate


@click.command()
@rounds_option(7)
@seed_option
@folder_options("out/x", holds="the thing", found="that thing")
def shown(**settings):
    click.echo(repr(sorted(settings.items())))


def test_the_options_have_their_defaults():
    expected = [("as_json", False), ("out", Path("out/x")), ("resume", True), ("rounds", 7), ("seed", 0)]
    assert CliRunner().invoke(shown, []).output.strip() == repr(expected)


def test_the_options_give_what_is_said():
    said = CliRunner().invoke(shown, ["--fresh", "--json", "--seed", "3", "--rounds", "1", "--out", "y"])
    expected = [("as_json", True), ("out", Path("y")), ("resume", False), ("rounds", 1), ("seed", 3)]
    assert said.output.strip() == repr(expected)


@pytest.mark.parametrize("bad", [["--rounds", "0"], ["--seed", "-1"], ["--seed", str(2**53)]])
def test_a_number_out_of_its_range_is_a_usage_error(bad):
    assert CliRunner().invoke(shown, bad).exit_code == 2


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        (train, ("Folder of the run and its checkpoint.", "Go on with the run that is in the folder, or forget it")),
        (simulate, ("Folder of the run or the sweep.", "Go on with what is in the folder, or forget it")),
        (check, ("Print one JSON object, the last line of stdout.",)),
    ],
)
def test_the_help_says_what_each_command_means(command, texts):
    shown_help = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    for text in texts:
        assert text in shown_help
