"""A regression and a detector of anomalies go the whole way to devices, by the commands of their READMEs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(400)]
EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = re.compile(r"^\$ (hedgerow .*)$", re.MULTILINE)


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "HEDGEROW_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hedgerow.cli", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("name", "score_name", "least", "most_lost"),
    [("winding", "worth of the values", 0.65, 0.015), ("vibration", "share of right flags", 0.9, 0.015)],
)
def test_an_example_reaches_agents_of_both_runtimes_with_nearly_the_float_score(
    tmp_path, name, score_name, least, most_lost
):
    (tmp_path / "examples").symlink_to(EXAMPLES)
    train, compile_it, deploy = COMMAND.findall((EXAMPLES / name / "README.md").read_text())

    assert score_name in run(tmp_path, *train.split()[1:])
    built = json.loads(run(tmp_path, *compile_it.split()[1:], "--json").splitlines()[-1])
    (artifact,) = built["artifacts"]
    assert artifact["float_score"] >= least
    assert artifact["float_score"] - artifact["score"] <= most_lost
    assert artifact["checks"]["score"] == artifact["checks"]["golden"] == "passed"

    both = [*deploy.split()[1:], "--target", "android-arm64", "--json"]
    record = json.loads(run(tmp_path, *both).splitlines()[-1])
    assert record["rollout"]["state"] == "FINISHED"
    assert record["rollout"]["reason"].startswith(score_name)
    assert sorted((device["name"], device["release"], device["online"]) for device in record["devices"]) == [
        ("dev-android-arm64", f"{name}@1", True),
        ("dev-raspberry-pi-4", f"{name}@1", True),
    ]
