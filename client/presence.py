"""How a device says that it is there, and how the broker says that it is gone."""

import secrets

from hedgerow.client.settings import AgentSettings
from hedgerow.link import LastWill
from hedgerow.wire.device import Presence
from hedgerow.wire.topics import Channel, device_topic

__all__ = ["new_boot", "presence_will"]


def new_boot() -> str:
    """Return a new random identity of a start."""
    return secrets.token_hex(8)


def presence_will(settings: AgentSettings, boot: str) -> LastWill:
    """Return what the broker publishes when this device's link breaks."""
    topic = device_topic(settings.fleet, settings.device, Channel.PRESENCE)
    return LastWill(topic, Presence(online=False, boot=boot).encode())
