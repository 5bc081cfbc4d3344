"""Options of a command that are settings."""

import os

import click
import pytest
from click.testing import CliRunner

from hedgerow.settings_options import given_options, settings_file_option, settings_option
from tests.root.test_settings import Garden, RefusedError


@click.command()
@settings_option(Garden, "name", metavar="NAME")
@settings_option(Garden, "beds")
@settings_file_option()
def plant(settings_file, **_values):
    """Plant."""
    context = click.get_current_context()
    settings = Garden.read(file=settings_file, env=os.environ, options=given_options(context, Garden))
    click.echo(f"{settings.name} {settings.beds}")


def run(*arguments: str, env: dict[str, str] | None = None) -> str:
    done = CliRunner(env=env).invoke(plant, arguments, catch_exceptions=False)
    return done.output.strip()


def test_an_option_wins_over_a_variable_and_that_over_a_file(tmp_path):
    path = tmp_path / "g.toml"
    path.write_text('name = "file"\nbeds = 2')
    file, env = ("--settings", str(path)), {"GARDEN_BEDS": "3"}
    assert run(*file) == "file 2"
    assert run(*file, env=env) == "file 3"
    assert run(*file, "--beds", "4", env=env) == "file 4"
    assert run("--name", "a") == "a 1"


def test_the_help_says_what_the_declaration_says():
    text = " ".join(run("--help").split())
    assert "--name NAME Its name. [required]" in text
    assert "--beds INTEGER Its beds. [default: 1]" in text


def test_a_bound_is_named_with_the_option():
    with pytest.raises(RefusedError, match="--beds: expected 1 to 9, found '10'"):
        run("--name", "a", "--beds", "10")


def test_an_empty_path_is_misuse_and_not_the_working_folder():
    done = CliRunner().invoke(plant, ["--name", "a", "--settings", ""])
    assert done.exit_code == 2
    assert "Invalid value for '--settings': expected a path, found an empty one" in done.output
