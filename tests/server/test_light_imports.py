"""The modules that commands and the fleet service import early load neither torch nor Flower."""

import subprocess
import sys

MODULES = (
    "hedgerow.server.cli",
    "hedgerow.server.grids.transport",
    "hedgerow.server.run_folder",
    "hedgerow.server.simulation.cli",
)


def test_early_modules_are_light():
    heavy = "{'torch', 'flwr', 'rich', 'optuna', 'matplotlib'}"
    program = f"import sys, {', '.join(MODULES)}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
