"""Waiting for processes, for tests: for a state, never for a while."""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

WITHIN_S = 30.0
PYTHON = [sys.executable, "-I", "-S", "-c"]


def wait_until(condition: Callable[[], object], timeout_s: float = WITHIN_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def is_running(process_id: int) -> bool:
    """Whether a process is there; a zombie is gone for our purposes, for in a container nobody may reap it."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(*process_ids: int) -> None:
    wait_until(lambda: not any(map(is_running, process_ids)))


def what_is_held() -> frozenset[str]:
    """Return what this process holds: each descriptor with what it is open on, each child, each thread."""
    import threading

    me = psutil.Process()
    return frozenset(
        [f"descriptor {number} on {place}" for number, place in _descriptors()]
        + [f"child {child.pid}" for child in me.children()]
        + [f"thread {thread.name} ({thread.ident})" for thread in threading.enumerate()]
    )


def new_since(before: frozenset[str]) -> list[str]:
    """Return what this process holds now and did not; what an earlier test still let go of counts for nothing."""
    return sorted(what_is_held() - before)


def _descriptors() -> Iterator[tuple[str, str]]:
    for descriptor in Path("/proc/self/fd").iterdir():
        # That of the listing itself is gone.
        with suppress(FileNotFoundError):
            yield descriptor.name, str(descriptor.readlink())


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """A test with it leaves no process, descriptor or thread behind."""
    before = what_is_held()
    yield
    assert new_since(before) == []
