"""``hedgerow agent run``: the device agent as a command."""

import logging
import os
import random
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import click

from hedgerow.client.agent import Agent
from hedgerow.client.connecting_link import ConnectingLink
from hedgerow.client.log_lines import log_to_stderr
from hedgerow.client.outlet import AnswerLines
from hedgerow.client.presence import new_boot, presence_will
from hedgerow.client.settings import AgentSettings, parse_address, parse_options
from hedgerow.client.source import Sink, load_sink, load_source
from hedgerow.client.state_folder import StateFolderLock
from hedgerow.errors import UnknownNameError
from hedgerow.hardware.lookup import target_names
from hedgerow.mqtt_link import MqttLink, decorrelated_jitter
from hedgerow.settings_options import PathOption, given_options, settings_file_option, settings_option

__all__ = ["run"]

_log = logging.getLogger(__name__)


@click.command(
    epilog="\b\nExample:\n  hedgerow agent run --device pi-0 --fleet garden --target raspberry-pi-4 \\\n"
    "      --broker 192.0.2.7:1883 --server http://192.0.2.7:8080 \\\n"
    "      --trusted-root 1.root.json --state state --source camera.py:stream"
)
@settings_option(AgentSettings, "device")
@settings_option(AgentSettings, "fleet")
@settings_option(AgentSettings, "target")
@click.option("--broker", metavar="HOST:PORT", help="Address of the MQTT broker.  [required]")
@settings_option(AgentSettings, "server")
@settings_option(AgentSettings, "trusted_root", type=PathOption(path_type=Path, dir_okay=False))
@settings_option(AgentSettings, "state_folder", type=PathOption(path_type=Path, file_okay=False))
@settings_option(AgentSettings, "source")
@settings_option(AgentSettings, "source_options", multiple=True)
@settings_option(AgentSettings, "sink")
@settings_option(AgentSettings, "is_printing", is_flag=True)
@settings_option(AgentSettings, "window_samples")
@settings_option(AgentSettings, "buffer_samples")
@settings_option(AgentSettings, "spool_windows")
@settings_option(AgentSettings, "healthy_after_s")
@settings_option(AgentSettings, "trial_timeout_s")
@settings_option(AgentSettings, "crash_limit")
@settings_file_option()
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    metavar="LEVEL",
    default="info",
    show_default=True,
    help="Least of what is written to stderr: debug, info, warning or error.",
)
def run(log_level: str, **_values: Any) -> None:
    """Run the device agent.

    It serves the installed release, installs what the fleet wants, counts what it sees, and trains when it is asked to.
    SIGTERM or SIGINT ends it in order. So does, with --print, that nobody reads standard output any more; the exit code
    is 1 then.
    """
    context = click.get_current_context()
    settings = _read_settings(context)
    log_to_stderr(settings.device, log_level)
    known = target_names()
    if settings.target not in known:
        # A newer fleet may know more targets, so this is no error; but nothing else tells the device of a misspelt one.
        _log.warning(
            "%s (this device gets only releases that are signed for %r)",
            UnknownNameError("target", settings.target, known),
            settings.target,
        )
    stopping = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    # Before anything of the user's is imported, so that a stop is a stop at any time.
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    source = load_source(settings.source) if settings.source else None
    sinks: list[Sink] = [load_sink(settings.sink)] if settings.sink else []
    lines = AnswerLines(sys.stdout, stopping.set)
    if settings.is_printing:
        sinks.append(lines)
    boot = new_boot()
    with StateFolderLock(settings.state_folder) as lock:
        link = ConnectingLink(
            lambda: _connect(settings, boot), lambda delay_s: decorrelated_jitter(delay_s, random.uniform)
        )
        agent = Agent(settings, link, source, sinks=sinks, boot=boot, stopping=stopping)

        had_model = agent.has_model
        if not had_model:
            lock.check_writable()
        link.open()

        def check() -> None:
            # With a model there is something to do without the network; without one there is not, so say it and go.
            error = link.wait_first_attempt(0) if link.is_decided else None
            if error is not None and not had_model:
                raise error

        agent.run(check=check)
    if lines.is_closed:
        # Python flushes standard output once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        context.exit(1)


def _read_settings(context: click.Context) -> AgentSettings:
    """Return the settings from file, environment and options; what is required and stands in none of them is misuse."""
    options = given_options(context, AgentSettings)
    if "source_options" in options:
        options["source_options"] = parse_options(options["source_options"])
    if context.params["broker"] is not None:
        options["broker_host"], options["broker_port"] = parse_address(context.params["broker"])
    sources: dict[str, Any] = {"file": context.params["settings_file"], "env": os.environ, "options": options}
    absent = AgentSettings.required() - set(AgentSettings.collect(**sources))
    for name, declared in AgentSettings.declared().items():
        if name in absent:
            raise click.MissingParameter(ctx=context, param_hint=repr(declared.metadata["flag"]), param_type="option")
    return AgentSettings.read(**sources)


def _connect(settings: AgentSettings, boot: str) -> MqttLink:
    return MqttLink(settings.device, settings.broker_host, settings.broker_port, will=presence_will(settings, boot))
