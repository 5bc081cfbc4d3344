"""``hedgerow predict`` through the real command: the same samples by a checkpoint, a build and a release."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest

from hedgerow.checkpoint import Checkpoint, save_checkpoint
from hedgerow.cli import main
from hedgerow.fleet.commands.fleet import make_fleet
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.releases import create_release

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TASK = f"{Path(__file__).parents[2] / 'server' / 'tiny_task.py'}:task"
WEIGHT = np.array([[0.0, 4.0], [4.0, -4.0], [-4.0, -4.0]], np.float32)
POINTS = np.array([[0, 1], [1, -1], [-1, -1], [0.1, 0.9], [-0.2, -1.2]], np.float32)
LABELS = np.array([0, 1, 2, 1, -1])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A checkpoint, a build of it for three targets, a release of that, and samples."""
    place = tmp_path_factory.mktemp("predict")
    weights = {"weight": WEIGHT, "bias": np.zeros(3, np.float32)}
    about = {"run": "r", "round": 1, "strategy": "s", "grid": "g", "seed": 0}
    save_checkpoint(place / "checkpoint", Checkpoint(weights=weights, task="points", **about))
    targets = [part for name in ("x86-gateway", "android-arm64", "iphone-15") for part in ("--target", name)]
    build = ["compile", str(place / "checkpoint"), "--task", TASK, "--out", str(place / "build"), *targets]
    assert main([*build, "--no-cache"]) == 0
    folder = FleetFolder(place / "fleet")
    make_fleet(folder, "garden", now=time.time())
    create_release(folder, "points", place / "build", now=time.time())
    np.savez(place / "samples.npz", point=POINTS, labels=LABELS)
    return place


def predict(place, what, *more, out="answers.npz") -> int:
    return main(["predict", str(what), str(place / "samples.npz"), "-o", str(place / out), *more])


def by_hand() -> np.ndarray:
    powers = np.exp(POINTS @ WEIGHT.T)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("what", "more", "runtime", "tolerance"),
    [
        ("checkpoint", ("--task", TASK), "torch ", 1e-6),
        ("build", ("--target", "x86-gateway"), "ONNX Runtime ", 0.05),
        ("build", ("--target", "android-arm64"), "LiteRT ", 0.05),
        ("points@1", ("--target", "android-arm64"), "LiteRT ", 0.05),
    ],
)
def test_the_answers_are_those_of_the_model_and_the_labelled_ones_are_scored(
    place, capsys, what, more, runtime, tolerance
):
    named = (what, "--fleet", str(place / "fleet")) if what == "points@1" else (place / what,)
    capsys.readouterr()
    assert predict(place, *named, *more, "--json") == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert record["executed_by"].startswith(runtime)
    assert (record["samples"], record["scored"], record["notes"]) == (5, 4, [])
    assert record["metrics"]["accuracy"] == 0.75
    with np.load(place / "answers.npz") as found:
        np.testing.assert_allclose(found["probabilities"], by_hand(), atol=tolerance)
        assert found["label"].tolist() == ["top", "right", "left", "top", "left"]


def test_a_table_goes_in_and_out(place, capsys):
    rows = "".join(f"{x:g},{y:g},{name}\n" for (x, y), name in zip(POINTS, ["top", "", "left", "", ""], strict=True))
    (place / "samples.csv").write_text(f"x,y,labels\n{rows}")
    out = place / "answers.csv"

    assert main(["predict", str(place / "checkpoint"), str(place / "samples.csv"), "--task", TASK, "-o", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{place / 'checkpoint'}: 5 answers by torch ")
    assert lines[0].endswith(", float32; accuracy 1.000, precision 1.000, recall 1.000, f1 1.000 on 2 labelled ones")
    assert [row["label"] for row in csv.DictReader(out.read_text().splitlines())] == [
        "top",
        "right",
        "left",
        "top",
        "left",
    ]


@pytest.mark.parametrize(
    ("what", "more", "code", "sentence"),
    [
        ("checkpoint", (), 2, "expected --task for a checkpoint, and no --target"),
        ("checkpoint", ("--task", TASK, "--target", "x86-gateway"), 2, "expected --task for a checkpoint"),
        ("build", (), 2, "(x86-gateway, android-arm64, iphone-15), found 3"),
        ("build", ("--target", "esp32-s3"), 2, "(x86-gateway, android-arm64, iphone-15), found none called 'esp32-s3'"),
        ("build", ("--target", "iphone-15"), 1, "which this machine can run, found the one of iphone-15 for coreml"),
        ("points@1", (), 2, "expected --fleet DIR for the release points@1"),
        (
            "points@7",
            ("--fleet", "FLEET"),
            1,
            "expected a signed release, found 'points@7'; the signed ones are: points@1",
        ),
        ("nothing", (), 1, "expected the folder of a checkpoint or a build, or a release such as digits@1, found none"),
    ],
)
def test_what_cannot_predict_is_told(place, capsys, what, more, code, sentence):
    more = [str(place / "fleet") if each == "FLEET" else each for each in more]
    (place / "answers.npz").unlink(missing_ok=True)

    assert predict(place, what if "@" in what else place / what, *more) == code
    # A usage error is folded to the width of the terminal.
    assert "".join(sentence.split()) in "".join(capsys.readouterr().err.replace("│", "").split())
    assert not (place / "answers.npz").exists()


def test_a_damaged_file_of_a_release_is_not_run(place, tmp_path, capsys):
    import shutil

    shutil.copytree(place / "fleet", tmp_path / "fleet")
    for blob in (tmp_path / "fleet" / "releases" / "points" / "1" / "blobs").iterdir():
        blob.chmod(0o644)
        blob.write_bytes(b"damaged")

    assert predict(place, "points@1", "--fleet", str(tmp_path / "fleet"), "--target", "x86-gateway") == 1
    assert "found another; restore it" in capsys.readouterr().err
