"""Tests of commands whose extra may be absent, as on the other Pythons of `scripts/test --python`."""

from importlib.util import find_spec

import pytest

__all__ = ["TRAINS_AND_COMPILES", "needs_torch"]

TRAINS_AND_COMPILES = {"compile", "demo", "simulate", "task", "train"}
"""Groups of commands that need the extras ``train`` or ``compile``, and refuse first where these are absent."""

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs the extras train and compile")
