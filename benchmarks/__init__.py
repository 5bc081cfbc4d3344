"""Measurements against other tools, run from the checkout: ``python -m benchmarks.<name> --json``."""
