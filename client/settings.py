"""Everything the agent can be told, with its defaults."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from hedgerow.client.errors import AgentSettingsError
from hedgerow.settings import HOST, HTTP_ADDRESS, Settings, at_least, between, matching, told
from hedgerow.window import WINDOW_SAMPLES_LIMIT
from hedgerow.wire.topics import NAME

__all__ = ["AgentSettings", "parse_address", "parse_options"]

_LONGEST_S = 3600.0
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]\s]+)):(?P<port>[0-9]{1,5})")


_COUNT = at_least(1)
_SECONDS = between(0, _LONGEST_S, f"a time above 0 and at most {_LONGEST_S:g}", is_open=True)
_WINDOW = between(1, WINDOW_SAMPLES_LIMIT, f"1 to {WINDOW_SAMPLES_LIMIT}: the fleet refuses longer windows")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings(Settings):
    """What one agent is and where its fleet is.

    Raises:
        AgentSettingsError: A value is outside its bounds, or answers are wanted of no source.
    """

    PREFIX: ClassVar[str] = "HEDGEROW_AGENT_"

    device: str = field(
        metadata=told(
            "Name of this device in the fleet; also its MQTT client id.",
            matching(NAME),
            flag="--device",
            metavar="NAME",
        )
    )
    fleet: str = field(
        metadata=told(
            "Name of the fleet, as given to `hedgerow fleet init`.", matching(NAME), flag="--fleet", metavar="NAME"
        )
    )
    target: str = field(
        metadata=told(
            "Hardware target of this device, as in `hedgerow targets list`.",
            matching(NAME),
            flag="--target",
            metavar="NAME",
        )
    )
    broker_host: str = field(metadata=told("Host of the MQTT broker.", HOST, flag="--broker"))
    broker_port: int = field(
        metadata=told("Port of the MQTT broker.", between(1, 65535, "a port from 1 to 65535"), flag="--broker")
    )
    server: str = field(
        metadata=told(
            "Address of the fleet service, such as http://192.0.2.7:8080.", HTTP_ADDRESS, flag="--server", metavar="URL"
        )
    )
    trusted_root: Path = field(
        metadata=told(
            "TUF root metadata that this device was provisioned with: the fleet's tuf/metadata/1.root.json.",
            flag="--trusted-root",
            metavar="FILE",
        )
    )
    state_folder: Path = field(
        metadata=told(
            "Folder of everything that this device keeps; for this agent alone.", flag="--state", metavar="DIR"
        )
    )
    source: str | None = field(
        default=None,
        metadata=told(
            "Function that yields samples, module:attribute or file.py:attribute; without it nothing is served.",
            flag="--source",
            metavar="REF",
        ),
    )
    source_options: Mapping[str, str] = field(
        default_factory=dict,
        metadata=told("An option for the source; repeat it for more.", flag="--source-option", metavar="KEY=VALUE"),
    )
    sink: str | None = field(
        default=None,
        metadata=told(
            "Function that is called with the answer to each sample, module:attribute or file.py:attribute.",
            flag="--sink",
            metavar="REF",
        ),
    )
    is_printing: bool = field(
        default=False,
        metadata=told("Write the answer to each sample to standard output, one line of JSON each.", flag="--print"),
    )
    window_samples: int = field(
        default=200,
        metadata=told("Predictions counted in one window.", _WINDOW, flag="--window-samples", metavar="N"),
    )
    buffer_samples: int = field(
        default=2000,
        metadata=told(
            "Labelled samples kept for training on this device; the oldest go first.",
            _COUNT,
            flag="--buffer-samples",
            metavar="N",
        ),
    )
    spool_windows: int = field(
        default=500,
        metadata=told(
            "Windows kept on disk while they cannot be sent; the oldest go first.",
            _COUNT,
            flag="--spool-windows",
            metavar="N",
        ),
    )
    healthy_after_s: float = field(
        default=5.0,
        metadata=told(
            "Seconds of running after which a release counts as healthy and is a success.",
            _SECONDS,
            flag="--healthy-after-s",
            metavar="SECONDS",
        ),
    )
    trial_timeout_s: float = field(
        default=60.0,
        metadata=told(
            "Seconds that a new release may take to load and replay its golden samples.",
            _SECONDS,
            flag="--trial-timeout-s",
            metavar="SECONDS",
        ),
    )
    crash_limit: int = field(
        default=3,
        metadata=told(
            "Starts without becoming healthy after which a release is given up.",
            _COUNT,
            flag="--crash-limit",
            metavar="N",
        ),
    )

    @classmethod
    def refused(cls, place: str, value: str, expected: str) -> AgentSettingsError:
        """Return the error of a setting."""
        return AgentSettingsError(f"{place}: expected {expected}, found {value!r}; correct it")

    def __post_init__(self) -> None:
        # Not super(): the class that slots make is another one than that which the method was written in.
        Settings.__post_init__(self)
        if self.source is None and (self.sink is not None or self.is_printing):
            raise AgentSettingsError(
                "expected --source beside --sink or --print, found none; say where samples come from"
            )


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[ipv6]:port``.

    Raises:
        AgentSettingsError: It is not like that.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise AgentSettingsError(f"expected a broker like host:1883, found {text!r}; correct --broker")
    return match["six"] or match["host"], int(match["port"])


def parse_options(texts: tuple[str, ...]) -> dict[str, str]:
    """Return ``key=value`` texts as a mapping.

    Raises:
        AgentSettingsError: One has no ``=``, or a key repeats.
    """
    options: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals or key in options:
            raise AgentSettingsError(
                f"expected each --source-option once and like key=value, found {text!r}; correct it"
            )
        options[key] = value
    return options
