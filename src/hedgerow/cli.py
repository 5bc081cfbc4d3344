"""The ``hedgerow`` command: a table of commands that are imported when they are called.

A device has only the base install; ``hedgerow agent run`` must work there although ``hedgerow compile`` cannot.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from hedgerow.errors import HedgerowError, UnsupportedSystemError
from hedgerow.plugins import Plugin, load_plugin, raise_missing

__all__ = ["COMMANDS", "GROUPS", "LazyGroup", "main"]

Entry = tuple[Plugin, str]
"""Where a command is, and its line in the list."""

COMMANDS: Mapping[str, Mapping[str, Entry] | Entry] = {
    "agent": {
        "run": (Plugin("hedgerow.client.cli:run", ""), "Run the device agent."),
    },
    "checkpoint": {
        "import": (Plugin("hedgerow.server.weights.cli:import_command", "train"), "Make a checkpoint of own weights."),
    },
    "compile": (
        Plugin("hedgerow.compile.cli:compile_command", "compile"),
        "Compile a checkpoint for hardware targets.",
    ),
    "demo": (Plugin("hedgerow.fleet.demo.cli:demo", "all"), "Watch one model make the whole round trip."),
    "deploy": (Plugin("hedgerow.fleet.deploy.cli:deploy", "all"), "Bring a checkpoint to running agents."),
    "device": {
        "forget": (Plugin("hedgerow.fleet.commands.device:forget", "fleet"), "Keep nothing of a device that is gone."),
        "reset": (Plugin("hedgerow.fleet.commands.device:reset", "fleet"), "Believe the next report of a device."),
    },
    "fleet": {
        "init": (
            Plugin("hedgerow.fleet.commands.fleet:init", "fleet"),
            "Make a fleet's folder, signing keys and admin key.",
        ),
        "serve": (
            Plugin("hedgerow.fleet.commands.fleet:serve", "fleet"),
            "Run the fleet service: MQTT, admin API, downloads.",
        ),
        "broker": (Plugin("hedgerow.fleet.commands.fleet:broker", "fleet"), "Run an MQTT broker for development."),
        "status": (
            Plugin("hedgerow.fleet.commands.signatures:status", "fleet"),
            "Show until when the signatures count.",
        ),
        "renew": (
            Plugin("hedgerow.fleet.commands.signatures:renew", "fleet"),
            "Sign root and targets for another year.",
        ),
    },
    "predict": (
        Plugin("hedgerow.fleet.commands.predict:predict", "compile"),
        "Predict a file of samples with a checkpoint, build or release.",
    ),
    "release": {
        "create": (Plugin("hedgerow.fleet.commands.release:create", "fleet"), "Sign a build as a new release."),
        "list": (Plugin("hedgerow.fleet.commands.release:list_releases", "fleet"), "List the signed releases."),
        "show": (Plugin("hedgerow.fleet.commands.release:show", "fleet"), "Show one release."),
    },
    "rollout": {
        "start": (Plugin("hedgerow.fleet.commands.rollout:start", "fleet"), "Roll a release out to the fleet."),
        "status": (Plugin("hedgerow.fleet.commands.rollout:status", "fleet"), "Show how rollouts are going."),
    },
    "simulate": (
        Plugin("hedgerow.server.simulation.cli:simulate", "simulate"),
        "Simulate federated training over very many virtual clients.",
    ),
    "targets": {
        "check": (Plugin("hedgerow.compile.targets_cli:check", "compile"), "Say which targets can hold a model file."),
        "list": (Plugin("hedgerow.hardware.cli:list_command", ""), "List the hardware targets."),
        "show": (Plugin("hedgerow.hardware.cli:show", ""), "Show one hardware target."),
    },
    "task": {
        "check": (Plugin("hedgerow.server.cli:check", "train"), "Report every mistake in a task."),
    },
    "train": (Plugin("hedgerow.server.cli:train", "train"), "Train a task with federated learning."),
}


GROUPS: Mapping[str, str] = {
    "agent": "What runs on a device.",
    "checkpoint": "Trained weights of a task.",
    "device": "Single devices of a fleet.",
    "fleet": "What the fleet's devices talk to.",
    "release": "Signed releases, made from builds.",
    "rollout": "Bring a release to the fleet's devices, in stages.",
    "targets": "Hardware that models are compiled for.",
    "task": "What is learned.",
}
"""The line above a group's commands."""

_EPILOG = """\b
To see everything work:
  hedgerow demo

\b
The order of work:
  task check, train, compile, fleet init, release create,
  fleet broker, fleet serve, agent run, rollout start

\b
With trained weights of your own:
  checkpoint import, deploy
"""


class LazyGroup(click.Group):
    """A command group whose members are imported when they are called, not when they are listed."""

    def __init__(
        self, name: str, table: Mapping[str, Mapping[str, Entry] | Entry], help_text: str, *, epilog: str | None = None
    ) -> None:
        super().__init__(name, help=help_text, epilog=epilog)
        self._table = table

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names in the table."""
        return sorted(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or None."""
        entry = self._table.get(cmd_name)
        if entry is None:
            return None
        if isinstance(entry, Mapping):
            return LazyGroup(cmd_name, entry, GROUPS.get(cmd_name, ""))
        name = _full_name(ctx, cmd_name)
        command: click.Command = load_plugin("command", {name: entry[0]}, name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; a package that it misses, whenever it needs it, is one sentence."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as exc:
            name = str(ctx.invoked_subcommand)
            entry = self._table.get(name)
            if isinstance(entry, tuple):
                raise_missing(exc, f"the command {_full_name(ctx, name)!r}", entry[0].extra)
            raise

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one line a command, from the table, without importing any."""
        rows = []
        for name, entry in sorted(self._table.items()):
            if isinstance(entry, tuple):
                rows.append((name, entry[1]))
            else:
                rows += [(f"{name} {inner}", summary) for inner, (_plugin, summary) in sorted(entry.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _full_name(ctx: click.Context, name: str) -> str:
    """Return the name of a group's command as it is called: two groups may have commands of one name."""
    return f"{ctx.command_path} {name}".strip()


def command_group() -> LazyGroup:
    """Return the whole command."""
    from hedgerow import __version__

    summary = "Train, compile, roll out, watch and retrain models on edge devices."
    group = LazyGroup("hedgerow", COMMANDS, summary, epilog=_EPILOG)
    return click.version_option(__version__, prog_name="hedgerow")(group)


def main(argv: Sequence[str] | None = None, group: click.Command | None = None) -> int:
    """Run the command; return its exit code.

    An error of the world becomes one sentence on stderr and the exit code 1; a usage error exits with 2; an interrupt
    (SIGINT, SIGTERM or SIGHUP) with 130.

    Args:
        argv: The arguments; None: those of the process, whose signals are then ours as well.
        group: The command; None: the whole of Hedgerow.
    """
    if os.name != "posix":
        # Before anything is imported that needs what is missing here.
        click.echo(f"hedgerow: {UnsupportedSystemError(sys.platform)}", err=True)
        return UnsupportedSystemError.exit_code
    if argv is None:
        from hedgerow.interrupts import interruptible

        with interruptible():
            return _run(sys.argv[1:], group)
    return _run(argv, group)


def _run(argv: Sequence[str], group: click.Command | None) -> int:
    try:
        command = group if group is not None else command_group()
        code = command.main(list(argv), prog_name="hedgerow", standalone_mode=False)
    except HedgerowError as exc:
        click.echo(f"hedgerow: {exc}", err=True)
        if exc.details:
            click.echo(exc.details, err=True)
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("hedgerow: interrupted", err=True)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as exc:
        # Disks fill up and folders turn read-only under any write: the system's word, not a bug to trace.
        place = f" at {exc.filename}" if exc.filename else ""
        advice = "make room, correct the path or its permissions, and call it again"
        click.echo(
            f"hedgerow: expected files that can be read and written, found: {exc.strerror or exc}{place}; {advice}",
            err=True,
        )
        return 1
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
