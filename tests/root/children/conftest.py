"""Fixtures of the tests of child processes."""

from tests.processes import nothing_left

__all__ = ["nothing_left"]
