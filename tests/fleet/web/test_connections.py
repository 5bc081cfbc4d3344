import asyncio
import socket
import threading

import httpx
import pytest
from starlette.exceptions import HTTPException

from hedgerow.fleet.web.connections import ConnectionLimits
from hedgerow.fleet.web.request_bodies import BoundedBodies, bound_body
from hedgerow.fleet.web.server import HttpServer


async def hello(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture
def connect():
    peers = []

    def connect(server):
        peers.append(socket.create_connection((server.host, server.port), timeout=20))
        return peers[-1]

    yield connect
    for peer in peers:
        peer.close()


def is_closed(peer):
    """Whether the other side ends the connection within a while."""
    peer.settimeout(20)
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def ask(server):
    return httpx.get(server.url, trust_env=False, timeout=20).text


def test_one_address_gets_no_more_than_its_share(connect):
    with HttpServer(hello, "127.0.0.1", 0, limits=ConnectionLimits(per_address=2, header_s=60)) as server:
        first, second = connect(server), connect(server)
        assert is_closed(connect(server))
        first.close()
        second.close()
        assert ask(server) == "hello"


def test_whoever_has_asked_nothing_for_longest_gives_way(connect):
    with HttpServer(hello, "127.0.0.1", 0, limits=ConnectionLimits(connections=2, header_s=60)) as server:
        silent = [connect(server), connect(server)]
        assert ask(server) == "hello"
        assert is_closed(silent[0])
        silent[1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert silent[1].recv(65536).startswith(b"HTTP/1.1 200")


def test_a_request_in_progress_never_gives_way(connect):
    begun, go_on = threading.Event(), threading.Event()

    async def slow(scope, receive, send):
        begun.set()
        await asyncio.to_thread(go_on.wait, 30)
        await hello(scope, receive, send)

    with HttpServer(slow, "127.0.0.1", 0, limits=ConnectionLimits(connections=1, header_s=60)) as server:
        working = connect(server)
        working.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert begun.wait(30)
        assert is_closed(connect(server))
        go_on.set()
        assert working.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
def test_headers_that_do_not_end_are_not_waited_for(connect, sent):
    with HttpServer(hello, "127.0.0.1", 0, limits=ConnectionLimits(header_s=0.2)) as server:
        peer = connect(server)
        peer.sendall(sent)
        assert is_closed(peer)
        assert ask(server) == "hello"


def test_a_second_request_that_does_not_end_is_not_waited_for_either(connect):
    with HttpServer(hello, "127.0.0.1", 0, limits=ConnectionLimits(header_s=0.2, idle_s=60)) as server:
        peer = connect(server)
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"hello"):
            answer += peer.recv(65536)
        peer.sendall(b"GET / HT")
        assert is_closed(peer)


def test_a_client_that_reads_nothing_is_not_waited_for(connect):
    ended = threading.Event()

    async def endless(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            for _ in range(100_000):
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
                await asyncio.sleep(0)
                if send.__self__.disconnected:
                    break
        finally:
            ended.set()

    with HttpServer(endless, "127.0.0.1", 0, limits=ConnectionLimits(unread_s=0.2)) as server:
        peer = connect(server)
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert ended.wait(30)


async def drip(_scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await hello(_scope, receive, send)


class Incoming:
    """What a client sends, piece by piece; after the last one it is silent."""

    def __init__(self, *pieces, headers=()):
        self.pieces, self.headers, self.sent = list(pieces), list(headers), []

    async def receive(self):
        if not self.pieces:
            await asyncio.sleep(3600)
        more = len(self.pieces) > 1 or self.pieces[0] is None
        return {"type": "http.request", "body": self.pieces.pop(0) or b"", "more_body": more}

    async def send(self, message):
        self.sent.append(message)

    def run(self, app):
        asyncio.run(app({"type": "http", "headers": self.headers}, self.receive, self.send))
        return self.sent[0]["status"] if self.sent else None


def raised(incoming, app):
    with pytest.raises(HTTPException) as caught:
        incoming.run(app)
    return caught.value.status_code


CHUNKED = [(b"transfer-encoding", b"chunked")]


def test_a_body_may_be_as_long_as_its_bound_and_no_longer():
    app = BoundedBodies(drip, limit_bytes=10)
    assert Incoming(b"12345", b"67890", headers=CHUNKED).run(app) == 200
    assert raised(Incoming(b"12345", b"678901", headers=CHUNKED), app) == 413
    assert Incoming(b"1234567890", headers=[(b"content-length", b"10")]).run(app) == 200


@pytest.mark.parametrize("length", [b"11", b"9" * 18, b"9" * 5000])
def test_a_body_that_says_that_it_is_too_long_is_not_asked_for(length):
    incoming = Incoming(b"1", headers=[(b"content-length", length)])
    assert raised(incoming, BoundedBodies(drip, limit_bytes=10)) == 413
    assert incoming.pieces == [b"1"]


def test_a_body_that_stops_coming_is_not_waited_for():
    assert raised(Incoming(b"1", b"2", None, headers=CHUNKED), BoundedBodies(drip, silence_s=0.05)) == 408
    slow = BoundedBodies(drip, limit_bytes=1, grace_s=-1.0)
    assert raised(Incoming(b"1", headers=CHUNKED), slow) == 408


def test_a_route_may_give_a_body_another_bound():
    async def wide(scope, receive, send):
        bound_body(scope, 20)
        await drip(scope, receive, send)

    assert Incoming(b"x" * 20, headers=CHUNKED).run(BoundedBodies(wide, limit_bytes=1)) == 200
    assert raised(Incoming(b"x" * 21, headers=CHUNKED), BoundedBodies(wide, limit_bytes=1)) == 413


def test_an_answer_before_the_end_of_the_body_closes_the_connection():
    early, late = Incoming(b"1", headers=CHUNKED), Incoming(b"1", headers=CHUNKED)
    early.run(BoundedBodies(hello))
    late.run(BoundedBodies(drip))
    without = Incoming(b"")
    without.run(BoundedBodies(hello))
    assert (b"connection", b"close") in early.sent[0]["headers"]
    assert (b"connection", b"close") not in late.sent[0]["headers"]
    assert (b"connection", b"close") not in without.sent[0]["headers"]
