"""The federated server: Flower strategies over our grids, resumable runs, checks of a user's task.

Importing this package imports neither torch nor Flower.
"""

import os

# Flower reads both when it is first imported; every module of this package is imported after this one. Someone who
# wants Flower's telemetry or its update check sets the variables and is not overruled.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
