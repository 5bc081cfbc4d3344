"""Hardware targets: what a device can hold and run, as data (``targets/*.toml``).

A new device is one TOML file; no Python is needed. :mod:`hedgerow.hardware.target` documents every field and reads the
files strictly; :mod:`hedgerow.hardware.cost` turns a target and a model's size into a first-order latency and energy.
"""

from hedgerow.hardware.cost import CostEstimate, Workload, estimate_cost
from hedgerow.hardware.target import CostModel, Target, load_target, target_names

__all__ = ["CostEstimate", "CostModel", "Target", "Workload", "estimate_cost", "load_target", "target_names"]
