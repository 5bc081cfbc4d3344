"""Everything the agent can be told, with its defaults."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hedgerow.client.errors import SettingsError
from hedgerow.window import WINDOW_SAMPLES_LIMIT
from hedgerow.wire.topics import NAME

__all__ = ["AgentSettings", "parse_address", "parse_options"]

_LONGEST_S = 3600.0
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]\s]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What one agent is and where its fleet is."""

    device: str = field(metadata={"help": "Name of this device in the fleet; also its MQTT client id."})
    fleet: str = field(metadata={"help": "Name of the fleet, as given to `hedgerow fleet init`."})
    target: str = field(metadata={"help": "Hardware target of this device, as in `hedgerow targets list`."})
    broker_host: str = field(metadata={"help": "Host of the MQTT broker."})
    broker_port: int = field(metadata={"help": "Port of the MQTT broker."})
    server: str = field(metadata={"help": "Address of the fleet service, such as http://192.0.2.7:8080."})
    trusted_root: Path = field(
        metadata={
            "help": "TUF root metadata that this device was provisioned with: the fleet's tuf/metadata/1.root.json."
        }
    )
    state_folder: Path = field(metadata={"help": "Folder of everything that this device keeps; for this agent alone."})
    source: str | None = field(
        default=None,
        metadata={
            "help": "Function that yields samples, module:attribute or file.py:attribute; without it nothing is served."
        },
    )
    source_options: Mapping[str, str] = field(
        default_factory=dict, metadata={"help": "An option for the source; repeat it for more."}
    )
    sink: str | None = field(
        default=None,
        metadata={
            "help": "Function that is called with the answer to each sample, module:attribute or file.py:attribute."
        },
    )
    is_printing: bool = field(
        default=False, metadata={"help": "Write the answer to each sample to standard output, one line of JSON each."}
    )
    window_samples: int = field(default=200, metadata={"help": "Predictions counted in one window."})
    buffer_samples: int = field(
        default=2000, metadata={"help": "Labelled samples kept for training on this device; the oldest go first."}
    )
    spool_windows: int = field(
        default=500, metadata={"help": "Windows kept on disk while they cannot be sent; the oldest go first."}
    )
    healthy_after_s: float = field(
        default=5.0, metadata={"help": "Seconds of running after which a release counts as healthy and is a success."}
    )
    trial_timeout_s: float = field(
        default=60.0, metadata={"help": "Seconds that a new release may take to load and replay its golden samples."}
    )
    crash_limit: int = field(
        default=3, metadata={"help": "Starts without becoming healthy after which a release is given up."}
    )

    def __post_init__(self) -> None:
        for kind in ("device", "fleet", "target"):
            name = getattr(self, kind)
            if not NAME.fullmatch(name):
                raise SettingsError(f"expected a {kind} name like {NAME.pattern}, found {name!r}; choose another name")
        if self.source is None and (self.sink is not None or self.is_printing):
            raise SettingsError("expected --source beside --sink or --print, found none; say where samples come from")
        if not 1 <= self.broker_port <= 65535:
            raise SettingsError(f"expected a broker port from 1 to 65535, found {self.broker_port}; correct --broker")
        for number in ("window_samples", "buffer_samples", "spool_windows", "crash_limit"):
            if getattr(self, number) < 1:
                raise SettingsError(f"expected {number} of at least 1, found {getattr(self, number)}; raise it")
        if self.window_samples > WINDOW_SAMPLES_LIMIT:
            found = f"found {self.window_samples}; lower it, the fleet refuses longer windows"
            raise SettingsError(f"expected window_samples of at most {WINDOW_SAMPLES_LIMIT}, {found}")
        for number in ("healthy_after_s", "trial_timeout_s"):
            if not 0 < getattr(self, number) <= _LONGEST_S:
                raise SettingsError(
                    f"expected {number} above 0 and at most {_LONGEST_S:g}, found {getattr(self, number):g}; correct it"
                )


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[ipv6]:port``.

    Raises:
        SettingsError: It is not like that.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise SettingsError(f"expected a broker like host:1883, found {text!r}; correct --broker")
    return match["six"] or match["host"], int(match["port"])


def parse_options(texts: tuple[str, ...]) -> dict[str, str]:
    """Return ``key=value`` texts as a mapping.

    Raises:
        SettingsError: One has no ``=``, or a key repeats.
    """
    options: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals or key in options:
            raise SettingsError(f"expected each --source-option once and like key=value, found {text!r}; correct it")
        options[key] = value
    return options
