"""Fixtures of the server's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hedgerow.task import Task, load_attribute

TINY = Path(__file__).with_name("tiny_task.py")


@pytest.fixture
def tiny_reference() -> str:
    """Return what a user would write to name the tiny task."""
    return f"{TINY}:task"


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """Return the tiny task's maker; only for tests that may import torch."""
    return load_attribute(f"{TINY}:make_task")


@pytest.fixture
def tiny_task(make_task: Callable[..., Task]) -> Task:
    """Return the tiny task."""
    return make_task()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch use one thread: small models are slowest with all, above all on a busy machine."""
    from hedgerow.server.local_steps import torch_threads

    with torch_threads(1):
        yield
