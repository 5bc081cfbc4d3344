"""The HTTP client believes no server: what an answer may cost is bounded."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from hedgerow.client.errors import AgentSettingsError, TransferError
from hedgerow.client.fleet_http import FleetHttp


@contextlib.contextmanager
def endless(status: str) -> Iterator[str]:
    """A server that takes one request and answers it for ever, and must not get rid of much."""
    listening = socket.create_server(("127.0.0.1", 0))
    sent = [0]

    def serve() -> None:
        connection, _peer = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode())
            while sent[0] < 2**28:
                sent[0] += connection.send(b"x" * 65536)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()
    thread.join(5)
    assert sent[0] < 2**25, "it is not read to its end"


def test_an_answer_to_an_update_that_does_not_end_is_not_read():
    with endless("200 OK") as url:
        http = FleetHttp(url)
        http.put("v1/updates", b"weights")
        http.close()


def test_a_refusal_that_does_not_end_is_not_read():
    with endless("404 Not Found") as url:
        http = FleetHttp(url)
        with pytest.raises(TransferError, match="status 404"):
            http.get("tuf/metadata/2.root.json", limit_bytes=1000)
        http.close()


@pytest.mark.parametrize(
    "server", ["", "http://[", "http://h:99999", "ftp://h", "http://me@h", "http://h?a=1", "http://h#a"]
)
def test_a_server_that_is_no_plain_address_is_refused(server):
    with pytest.raises(AgentSettingsError, match="correct --server"):
        FleetHttp(server)
