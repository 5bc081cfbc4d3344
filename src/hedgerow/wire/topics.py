"""Topics of the wire protocol: ``hedgerow/v1/<fleet>/<device>/<channel>`` (docs/wire.md). Pure."""

import re
from enum import StrEnum

__all__ = ["CHANNELS", "NAME", "Channel", "device_topic", "fleet_filter", "parse_topic"]

PROTOCOL = "hedgerow/v1"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Channel(StrEnum):
    """The last level of a topic."""

    DESIRED = "desired"
    REPORTED = "reported"
    PRESENCE = "presence"
    EXECUTION = "execution"
    TELEMETRY = "telemetry"
    TRAIN = "train"
    UPDATE = "update"


CHANNELS = {channel.value: channel for channel in Channel}


def device_topic(fleet: str, device: str, channel: Channel) -> str:
    """Return the topic of one device's channel.

    Raises:
        ValueError: A name holds characters that are not allowed in topics.
    """
    for name in (fleet, device):
        if not NAME.fullmatch(name):
            raise ValueError(f"expected a name like {NAME.pattern}, found {name!r}")
    return f"{PROTOCOL}/{fleet}/{device}/{channel}"


def fleet_filter(fleet: str, channel: Channel) -> str:
    """Return the subscription for one channel of all devices."""
    return f"{PROTOCOL}/{fleet}/+/{channel}"


def parse_topic(topic: str) -> tuple[str, str, Channel] | None:
    """Return (fleet, device, channel), or None for a topic that is not ours."""
    parts = topic.split("/")
    if len(parts) != 5 or "/".join(parts[:2]) != PROTOCOL or parts[4] not in CHANNELS:
        return None
    if not NAME.fullmatch(parts[2]) or not NAME.fullmatch(parts[3]):
        return None
    return parts[2], parts[3], CHANNELS[parts[4]]
