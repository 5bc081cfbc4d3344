"""Hardware targets: what a device can hold and run, as data (``targets/*.toml``).

A new device is one TOML file; no Python is needed. :mod:`hedgerow.hardware.target` documents every field and reads the
files strictly; :mod:`hedgerow.hardware.cost` turns a target and a model's size into a first-order latency and energy;
:mod:`hedgerow.hardware.fit` says what keeps a model from running on a target.
"""

from hedgerow.hardware.cost import CostEstimate, Workload, estimate_cost
from hedgerow.hardware.fit import Misfit, ModelFacts, fit
from hedgerow.hardware.lookup import load_target, target_names
from hedgerow.hardware.target import CostModel, Target

__all__ = [
    "CostEstimate",
    "CostModel",
    "Misfit",
    "ModelFacts",
    "Target",
    "Workload",
    "estimate_cost",
    "fit",
    "load_target",
    "target_names",
]
