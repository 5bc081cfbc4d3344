"""How messages lie in a stream of bytes: each behind its length, and none longer than a bound. Pure."""

import struct

from hedgerow.errors import DecodeError

__all__ = ["Frames", "encode_frame"]

_LENGTH = struct.Struct(">Q")


def encode_frame(message: bytes, *, limit_bytes: int) -> bytes:
    """Return *message* as it is sent.

    Raises:
        ValueError: It is longer than the other side takes.
    """
    if len(message) > limit_bytes:
        raise ValueError(f"a message has {len(message)} bytes; its channel takes {limit_bytes}")
    return _LENGTH.pack(len(message)) + message


class Frames:
    """Puts messages together from pieces of a stream.

    Args:
        limit_bytes: A longer message is refused by its length, before any of it is kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held = bytearray()
        self._is_spoiled = False
        self._refusal: DecodeError | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the messages that end in *chunk*.

        Where a message is too long nobody can tell where the next one begins: what comes later is dropped.

        Raises:
            DecodeError: A message is too long. It is raised once: now, or, where *chunk* ended others before it, when
                this is called again.
        """
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal
        if self._is_spoiled:
            return []
        self._held += chunk
        found: list[bytes] = []
        while len(self._held) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._held)
            if length > self._limit_bytes:
                self._is_spoiled, self._held = True, bytearray()
                refusal = DecodeError("message", f"at most {self._limit_bytes} bytes", f"{length} bytes")
                if not found:
                    raise refusal
                self._refusal = refusal
                break
            end = _LENGTH.size + length
            if len(self._held) < end:
                break
            with memoryview(self._held) as held, held[_LENGTH.size : end] as message:
                found.append(bytes(message))
            del self._held[:end]
        return found
