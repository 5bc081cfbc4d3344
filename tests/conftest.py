"""Settings for all tests: Hypothesis without a clock and without a folder of its own, libraries that stay silent."""

import os
import signal

from hypothesis import HealthCheck, settings

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
