"""The digits' network is trained in plain torch by the script that the README names."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy
SCRIPT = Path(__file__).parents[3] / "examples" / "digits" / "own_weights.py"


def test_the_script_of_the_readme_writes_weights_of_the_digits_network(tmp_path):
    torch = pytest.importorskip("torch")
    file = tmp_path / "out" / "model.pt"

    subprocess.run([sys.executable, SCRIPT, file], check=True, timeout=300)

    weights = torch.load(file, weights_only=True)
    assert {name: tuple(value.shape) for name, value in weights.items() if name.endswith("weight")} == {
        "0.weight": (16, 1, 3, 3),
        "2.weight": (32, 16, 3, 3),
        "5.weight": (128, 512),
        "7.weight": (10, 128),
    }
