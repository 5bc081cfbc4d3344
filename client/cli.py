"""``hedgerow agent run``: the device agent as a command."""

import dataclasses
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
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

__all__ = ["run"]

_log = logging.getLogger(__name__)
_FIELDS = {field.name: field for field in dataclasses.fields(AgentSettings)}


def _option(flag: str, name: str, **keywords: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return an option whose help and default are the setting's."""
    field = _FIELDS[name]
    if field.default is not dataclasses.MISSING and field.default is not None:
        keywords = {"default": field.default, "show_default": True, **keywords}
    elif field.default is dataclasses.MISSING and not keywords.get("multiple"):
        keywords = {"required": True, **keywords}
    return click.option(flag, name, help=field.metadata["help"], **keywords)


@click.command(
    epilog="\b\nExample:\n  hedgerow agent run --device pi-0 --fleet garden --target raspberry-pi-4 \\\n"
    "      --broker 192.0.2.7:1883 --server http://192.0.2.7:8080 \\\n"
    "      --trusted-root 1.root.json --state state --source camera.py:stream"
)
@_option("--device", "device", metavar="NAME")
@_option("--fleet", "fleet", metavar="NAME")
@_option("--target", "target", metavar="NAME")
@click.option("--broker", required=True, metavar="HOST:PORT", help="Address of the MQTT broker.")
@_option("--server", "server", metavar="URL")
@_option("--trusted-root", "trusted_root", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@_option("--state", "state_folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@_option("--source", "source", metavar="REF")
@_option("--source-option", "source_options", multiple=True, metavar="KEY=VALUE")
@_option("--sink", "sink", metavar="REF")
@_option("--print", "is_printing", is_flag=True)
@_option("--window-samples", "window_samples", type=int, metavar="N")
@_option("--buffer-samples", "buffer_samples", type=int, metavar="N")
@_option("--spool-windows", "spool_windows", type=int, metavar="N")
@_option("--healthy-after-s", "healthy_after_s", type=float, metavar="SECONDS")
@_option("--trial-timeout-s", "trial_timeout_s", type=float, metavar="SECONDS")
@_option("--crash-limit", "crash_limit", type=int, metavar="N")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    metavar="LEVEL",
    default="info",
    show_default=True,
    help="Least of what is written to stderr: debug, info, warning or error.",
)
def run(broker: str, log_level: str, source_options: tuple[str, ...], **values: Any) -> None:
    """Run the device agent.

    It serves the installed release, installs what the fleet wants, counts what it sees, and trains when it is asked to.
    SIGTERM or SIGINT ends it in order. So does, with --print, that nobody reads standard output any more; the exit code
    is 1 then.
    """
    host, port = parse_address(broker)
    settings = AgentSettings(broker_host=host, broker_port=port, source_options=parse_options(source_options), **values)
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
        click.get_current_context().exit(1)


def _connect(settings: AgentSettings, boot: str) -> MqttLink:
    return MqttLink(settings.device, settings.broker_host, settings.broker_port, will=presence_will(settings, boot))
