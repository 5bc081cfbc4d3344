"""HTTP to the fleet service: bounded, timed, no redirects. Used for signed metadata, blobs and training rounds."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import urllib3

from hedgerow.client.errors import AgentSettingsError, TransferError
from hedgerow.settings import HTTP_ADDRESS

__all__ = ["FleetHttp", "ResponseBody"]

_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ResponseBody:
    """The body of an answer, in pieces.

    Attributes:
        status: 200, or 206 when the range was granted.
        start: Offset of the first byte.
        chunks: The bytes; iterating raises TransferError when the connection breaks or is too slow.
    """

    status: int
    start: int
    chunks: Iterator[bytes]


class FleetHttp:
    """A client of one server. What that says beside a status that ends the matter is not read: it may have no end.

    Args:
        server: Such as ``http://fleet.example:8080``.
        timeout_s: Longest wait for a connection, and for each piece of an answer.
        total_s: Longest time that one whole :meth:`get` or :meth:`put` may take, however steadily bytes drip in.

    Raises:
        AgentSettingsError: The address is not an HTTP address.
    """

    def __init__(self, server: str, *, timeout_s: float = 10.0, total_s: float = 60.0) -> None:
        parts = urlsplit(server) if HTTP_ADDRESS.holds(server) else None
        if parts is None or parts.username or parts.query or parts.fragment:
            raise AgentSettingsError(f"expected a server like http://host:port, found {server!r}; correct --server")
        self.server = server.rstrip("/")
        self._total_s = total_s
        # No retries and no redirects in here: the callers know what may be repeated, and a redirect leaves the server.
        self._pool = urllib3.PoolManager(
            num_pools=2, maxsize=4, retries=False, timeout=urllib3.Timeout(connect=timeout_s, read=timeout_s)
        )

    def open(self, path: str, *, offset: int = 0, headers: Mapping[str, str] | None = None) -> ResponseBody:
        """Start to read *path* from *offset* on.

        Raises:
            TransferError: There was no answer, or another status than 200 or 206.
        """
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        if offset:
            sent["Range"] = f"bytes={offset}-"
        answer = self._request("GET", path, None, sent)
        if answer.status not in {200, 206}:
            answer.close()
            raise TransferError(f"GET {path}", "status 200", f"status {answer.status}", status=answer.status)
        start = 0
        if answer.status == 206:
            start = _range_start(answer.headers.get("Content-Range", ""))
        return ResponseBody(answer.status, start, self._chunks(path, answer))

    def get(self, path: str, *, limit_bytes: int, headers: Mapping[str, str] | None = None) -> bytes:
        """Return the whole of *path*.

        Raises:
            TransferError: There was no such answer, or it is longer than *limit_bytes*, or took too long.
        """
        deadline = time.monotonic() + self._total_s
        body = bytearray()
        for chunk in self.open(path, headers=headers).chunks:
            body += chunk
            if len(body) > limit_bytes:
                raise TransferError(f"GET {path}", f"at most {limit_bytes} bytes", "more")
            if time.monotonic() > deadline:
                raise TransferError(f"GET {path}", f"an answer within {self._total_s:g} s", "a slower one")
        return bytes(body)

    def put(self, path: str, body: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Send *body* to *path*.

        Raises:
            TransferError: There was no answer, or it was no success.
        """
        sent = {"Content-Type": "application/octet-stream", **(headers or {})}
        answer = self._request("PUT", path, body, sent)
        answer.close()
        if not 200 <= answer.status < 300:
            raise TransferError(f"PUT {path}", "status 200", f"status {answer.status}", status=answer.status)

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(
                method,
                f"{self.server}/{path.lstrip('/')}",
                body=body,
                headers=headers,
                preload_content=False,
                redirect=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise TransferError(f"{method} {path}", f"an answer from {self.server}", _reason(exc)) from exc

    def _chunks(self, path: str, answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            # What has come, not what was asked for: a server that drips must not hold the caller for long.
            while chunk := answer.read1(_CHUNK_BYTES, decode_content=False):
                yield chunk
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise TransferError(f"GET {path}", "the whole answer", _reason(exc)) from exc
        finally:
            # A body that was not read to its end leaves the connection unusable.
            answer.close()


def _range_start(content_range: str) -> int:
    unit, _, rest = content_range.partition(" ")
    start = rest.partition("-")[0]
    if unit != "bytes" or not start.isdecimal() or len(start) > 18:
        raise TransferError("a range request", "a Content-Range like bytes 0-9/10", repr(content_range[:80]))
    return int(start)


def _reason(exc: BaseException) -> str:
    return type(exc).__name__ if isinstance(exc, urllib3.exceptions.HTTPError) else str(exc)
