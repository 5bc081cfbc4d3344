"""Settings for all tests: Hypothesis without a clock and without a folder of its own, libraries that stay silent."""

import ast
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

FAST = "not heavy and not broker and not e2e"
"""The expression with which `scripts/test` chooses the fast tests."""

# Before any test imports Flower: it reads them when it is imported.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

# A shell starts background work with SIGINT ignored, and children inherit that; tests of Ctrl-C need it to arrive.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, and no deadline: a slow machine must not turn a right test red.
settings.register_profile(
    "hedgerow",
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("hedgerow")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave alone the files of which the fast tests have nothing: importing them takes seconds, and torch."""
    if config.option.markexpr == FAST and collection_path.suffix == ".py" and is_heavy(collection_path):
        return True
    return None


def is_heavy(path: Path) -> bool:
    """Return whether all tests of a file are marked heavy."""
    source = path.read_text()
    return "pytestmark" in source and any(
        isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "pytestmark"
        and "pytest.mark.heavy" in ast.unparse(node.value)
        for node in ast.parse(source).body
    )


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that leaves logging off takes the words from every later test of its process."""
    before = logging.root.manager.disable
    yield
    found = logging.root.manager.disable
    logging.disable(before)
    assert found == before, f"logging below {logging.getLevelName(found)} was left off"
