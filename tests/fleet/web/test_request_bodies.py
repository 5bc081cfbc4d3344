"""Real clients against a real server process: what is not authorized, or too long, costs no memory."""

import json
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

MIB = 2**20
LENGTH_BYTES = 300 * MIB


class Server:
    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fleet.http_process", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        facts = json.loads(self.process.stdout.readline())
        self.port, self.key, self.token = facts["port"], facts["key"], facts["token"]
        self.url = f"http://127.0.0.1:{self.port}"

    def memory_bytes(self, name):
        """Return ``VmRSS`` or, over the life of the process, ``VmHWM``."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(name))

    @contextmanager
    def bounded_growth(self, limit_bytes):
        """Expect that the process never held more than *limit_bytes* above what it held before."""
        before = self.memory_bytes("VmRSS")
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        yield
        assert self.memory_bytes("VmHWM") - before < limit_bytes

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def is_well(self):
        return httpx.get(f"{self.url}/healthz", trust_env=False, timeout=20).json()["devices"] == 8


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("fleet"))
    assert made.is_well()
    yield made
    made.process.communicate(timeout=20)
    assert made.process.returncode == 0


def head(method, path, *headers):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: fleet", *headers, "", ""]).encode()


def send_until_refused(peer, request, *, is_chunked):
    """Send 300 MiB as fast as the server takes them; return how much went out, and the answer."""
    peer.sendall(request)
    piece, sent = bytes(MIB), 0
    framed = b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece
    try:
        while sent < LENGTH_BYTES:
            peer.sendall(framed)
            sent += len(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    answer = b""
    try:
        while chunk := peer.recv(65536):
            answer += chunk
    except ConnectionResetError:
        pass
    return sent, answer


DECLARED, CHUNKED = f"Content-Length: {LENGTH_BYTES}", "Transfer-Encoding: chunked"
JSON = "Content-Type: application/json"


@pytest.mark.heavy
@pytest.mark.parametrize("length", [DECLARED, CHUNKED])
@pytest.mark.parametrize(
    ("method", "path", "authorization", "status"),
    [
        ("POST", "/v1/rollouts", None, 401),
        ("POST", "/v1/rollouts", "guess", 401),
        ("POST", "/v1/rollouts", "key", 413),
        ("POST", "/v1/rollouts/rollout-1/abort", None, 401),
        ("PUT", "/v1/training/run-1/1/updates/device-0", None, 401),
        ("PUT", "/v1/training/run-1/1/updates/device-0", "guess", 401),
        ("PUT", "/v1/training/run-1/1/updates/device-0", "token", 413),
        ("PUT", "/v1/training/run-1/2/updates/device-0", "token", 404),
        ("POST", "/tuf/metadata/timestamp.json", None, 405),
        ("GET", "/healthz", None, 200),
        ("POST", "/nowhere", None, 404),
    ],
)
def test_300_mb_are_refused_early_and_held_nowhere(server, method, path, authorization, status, length):
    secret = {"key": server.key, "token": server.token}.get(authorization, authorization)
    headers = [JSON, length, *([f"Authorization: Bearer {secret}"] if secret else [])]
    with server.bounded_growth(8 * MIB), server.connect() as peer:
        sent, answer = send_until_refused(peer, head(method, path, *headers), is_chunked=length == CHUNKED)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"connection: close" in answer.lower()
    assert sent < 32 * MIB
    assert server.is_well()


@pytest.mark.heavy
def test_a_client_library_that_sends_300_mb_without_a_key_hears_401(server):
    with server.bounded_growth(8 * MIB):
        answer = httpx.post(f"{server.url}/v1/rollouts", content=bytes(LENGTH_BYTES), trust_env=False, timeout=60)
    assert answer.status_code == 401
    assert answer.json()["detail"].startswith("expected the fleet's admin key, found none")


@pytest.mark.heavy
def test_many_half_open_connections_do_not_keep_a_request_waiting_and_are_ended(server):
    halves = [b"", b"GET /healthz HT", head("GET", "/healthz")[:-2] + b"X-Slow: "]
    peers = []
    try:
        # Three times as many as the server keeps.
        for index in range(120):
            peers.append(server.connect())
            peers[-1].sendall(halves[index % 3])
            if index % 30 == 29:
                assert server.is_well()
        deadline = time.monotonic() + 30
        for peer in peers:
            # A drop now and then keeps a keep-alive timer away, but not this one.
            while time.monotonic() < deadline:
                try:
                    peer.sendall(b"a")
                    peer.settimeout(0.05)
                    if peer.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            else:
                pytest.fail("a half-open connection was kept")
        assert server.is_well()
    finally:
        for peer in peers:
            peer.close()


@pytest.mark.heavy
def test_headers_without_end_are_refused(server):
    with server.bounded_growth(8 * MIB), server.connect() as peer:
        request = head("GET", "/healthz")[:-2]
        sent, answer = 0, b""
        try:
            peer.sendall(request)
            while sent < 64 * MIB:
                peer.sendall(b"X-Long: " + b"a" * 8000 + b"\r\n")
                sent += 8000
        except OSError:
            pass
        with suppress(OSError):
            answer = peer.recv(64)
    assert sent < 32 * MIB
    assert answer[:12] in {b"", b"HTTP/1.1 400"}
    assert server.is_well()
