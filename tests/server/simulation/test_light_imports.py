"""The pure core of the device model loads neither torch nor Flower."""

import subprocess
import sys

PURE = ("arrivals", "availability", "battery", "clock", "deadlines", "draws", "population", "traces")


def test_the_pure_core_is_light():
    imports = ", ".join(f"hedgerow.server.simulation.{name}" for name in PURE)
    program = f"import sys, {imports}; print(sorted({{'torch', 'flwr', 'matplotlib', 'scipy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
