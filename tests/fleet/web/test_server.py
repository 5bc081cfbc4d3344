import socket

import httpx
import pytest

from hedgerow.errors import PortInUseError
from hedgerow.fleet.errors import ServeError
from hedgerow.fleet.web.server import HttpServer, bind


async def hello(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def ask(url):
    return httpx.get(url, trust_env=False).text


def test_it_serves_on_a_free_port_until_it_is_stopped():
    with HttpServer(hello, "127.0.0.1", 0) as server:
        assert server.port > 0
        assert ask(server.url) == "hello"
    with pytest.raises(httpx.ConnectError):
        ask(server.url)
    with HttpServer(hello, "127.0.0.1", server.port) as again:
        assert ask(again.url) == "hello"


def test_a_port_that_is_taken_is_named():
    with HttpServer(hello, "127.0.0.1", 0) as server, pytest.raises(PortInUseError, match=str(server.port)):
        HttpServer(hello, "127.0.0.1", server.port).start()


def test_an_address_that_is_not_ours_is_refused():
    with pytest.raises(ServeError, match=r"192\.0\.2\.1"):
        HttpServer(hello, "192.0.2.1", 0).start()


def test_a_port_can_be_taken_before_there_is_an_application():
    bound = bind("127.0.0.1", 0)
    port = bound.getsockname()[1]
    with pytest.raises(PortInUseError):
        bind("127.0.0.1", port)
    with HttpServer(hello, "127.0.0.1", port, bound=bound) as server:
        assert ask(server.url) == "hello"
    assert bound.fileno() == -1
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
