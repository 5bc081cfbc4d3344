"""What all messages of the wire protocol share: a version, canonical JSON, bounds. Pure."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.link import PAYLOAD_LIMIT_BYTES

__all__ = ["SEQUENCE_LIMIT", "WireMessage", "lines", "one_line"]

VERSION = 1
SEQUENCE_LIMIT = 2**40


class WireMessage(ABC):
    """What all messages share: a name for errors, a version, canonical JSON."""

    KIND: ClassVar[str]

    @abstractmethod
    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""

    @classmethod
    @abstractmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""

    def encode(self) -> bytes:
        """Encode as canonical JSON."""
        return encode_json({"v": VERSION, **self.to_record()})

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Decode a message.

        Raises:
            DecodeError: The payload is not one, is too long, or is of another protocol version.
        """
        fields = decode_json(payload, cls.KIND, limit_bytes=PAYLOAD_LIMIT_BYTES)
        fields.integer("v", minimum=VERSION, maximum=VERSION)
        message = cls.from_fields(fields)
        fields.finish()
        return message


def one_line(text: str) -> str:
    """Return what a device said in words without what breaks lines or moves a terminal's cursor: people read it."""
    return "".join(character if character.isprintable() else " " for character in text)


def lines(fields: Fields, key: str, maximum_items: int, maximum_chars: int) -> tuple[str, ...]:
    """Return a bounded list of bounded lines that people read."""
    found = fields.texts(key, maximum_items=maximum_items, maximum_chars=maximum_chars)
    return tuple(one_line(text) for text in found)
