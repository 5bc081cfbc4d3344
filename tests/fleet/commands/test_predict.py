"""``hedgerow predict`` through the real command: the same samples by a checkpoint, a build and a release."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hedgerow.checkpoint import Checkpoint, save_checkpoint
from hedgerow.cli import main
from hedgerow.fleet.commands.fleet import make_fleet
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.releases import create_release
from tests import output_tasks
from tests.output_tasks import TASKS

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
OUTPUT_TASKS = Path(output_tasks.__file__)
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


def checkpoint_of(task, folder: Path) -> Path:
    """Save new weights of a task as a checkpoint, and its held-out samples beside it."""
    torch.manual_seed(0)
    weights = {name: tensor.numpy() for name, tensor in task.model().state_dict().items()}
    about = {"run": "r", "round": 1, "strategy": "s", "grid": "g", "seed": 0}
    save_checkpoint(folder / "checkpoint", Checkpoint(weights=weights, task=task.name, **about))
    held_out = task.data().held_out
    np.savez(folder / "samples.npz", **held_out.inputs, target_values=held_out.target_values)
    return folder / "checkpoint"


def test_a_checkpoint_that_reconstructs_flags_by_the_threshold_of_its_held_out_samples(tmp_path, capsys):
    task = TASKS["reconstruction"]
    checkpoint = checkpoint_of(task, tmp_path)

    capsys.readouterr()
    assert predict(tmp_path, checkpoint, "--task", f"{OUTPUT_TASKS}:reconstruction", "--json") == 0

    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    wanted = task.data().held_out.target_values
    assert (record["scored"], record["notes"]) == (len(wanted), [])
    with np.load(tmp_path / "answers.npz") as found:
        flagged, anomaly = found["anomalous"], found["anomaly"].ravel()
    normal = np.sort(anomaly[wanted == 0])
    allowed = int(0.05 * len(normal))
    assert flagged[wanted == 0].sum() == allowed
    assert (flagged == (anomaly > normal[len(normal) - 1 - allowed])).all()
    assert record["metrics"]["score"] == pytest.approx((flagged == (wanted == 1)).mean())


def test_answers_that_only_the_task_can_score_say_so_where_it_is_not_named(tmp_path, capsys):
    checkpoint = checkpoint_of(TASKS["custom"], tmp_path)
    named = ("--task", f"{OUTPUT_TASKS}:custom")
    build = ["compile", str(checkpoint), *named, "--out", str(tmp_path / "build"), "--target", "x86-gateway"]
    assert main([*build, "--recipe", "x86-gateway=onnx-float", "--no-cache"]) == 0
    capsys.readouterr()

    assert predict(tmp_path, tmp_path / "build") == 0
    note = "the score function of output is not part of a build or a release; name the task with --task"
    assert capsys.readouterr().out.splitlines()[0] == f"note: the answers are not scored: {note}"

    assert predict(tmp_path, tmp_path / "build", *named, "--json") == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["notes"] == []
    assert 0 < record["metrics"]["score"] < 1


def test_a_damaged_file_of_a_release_is_not_run(place, tmp_path, capsys):
    import shutil

    shutil.copytree(place / "fleet", tmp_path / "fleet")
    for blob in (tmp_path / "fleet" / "releases" / "points" / "1" / "blobs").iterdir():
        blob.chmod(0o644)
        blob.write_bytes(b"damaged")

    assert predict(place, "points@1", "--fleet", str(tmp_path / "fleet"), "--target", "x86-gateway") == 1
    assert "found another; restore it" in capsys.readouterr().err
