"""A full disk and wrong calibration data: a clear error, and the cache and everything else stay as they are."""

import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hedgerow.compile import CompileWorkers, compile_targets, load_build
from hedgerow.errors import TaskError

pytestmark = pytest.mark.heavy

PI, GATEWAY = "raspberry-pi-4", "x86-gateway"
SMALL_FILES_BYTES = 12_000
"""An int8 artifact of the digits fits into this, its float one does not."""


def can_mount() -> bool:
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


def test_a_file_that_does_not_fit_refuses_its_target_alone_and_is_made_once_there_is_room(
    digits, digits_checkpoint, tmp_path
):
    """A limit on the size of a file stands for a disk that is nearly full: writing past it fails in the kernel."""
    targets, recipes, cache = [PI, GATEWAY], {GATEWAY: "onnx-float"}, tmp_path / "cache"
    with CompileWorkers() as workers:
        # What every build needs is made while there is room.
        compile_targets(digits, digits_checkpoint, [PI], tmp_path / "out", cache=cache, workers=workers)
        before = (tmp_path / "out" / "build.json").read_bytes()
        for process in workers.process_ids:
            resource.prlimit(process, resource.RLIMIT_FSIZE, (SMALL_FILES_BYTES, resource.RLIM_INFINITY))
        full = compile_targets(
            digits, digits_checkpoint, targets, tmp_path / "full", recipes=recipes, cache=cache, workers=workers
        )
        (refusal,) = full.refused
        assert (refusal.target, refusal.check) == (GATEWAY, "disk")
        assert "File too large" in refusal.reason
        assert "make room" in refusal.reason
        assert [artifact.target for artifact in load_build(tmp_path / "full").artifacts] == [PI]
        assert (tmp_path / "out" / "build.json").read_bytes() == before
        for process in workers.process_ids:
            resource.prlimit(process, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        again = compile_targets(
            digits, digits_checkpoint, targets, tmp_path / "full", recipes=recipes, cache=cache, workers=workers
        )
    assert again.refused == ()
    assert again.cached == (PI,)


SCRIPT = """
mount -t tmpfs -o size=16m none "$1" || exit 77
$2 --target raspberry-pi-4 --out "$1/out" --json > "$3/first.json" || exit 1
cp "$1/out/build.json" "$3/before.json"
cat /dev/zero > "$1/filler" 2>/dev/null
$2 --target raspberry-pi-4 --target x86-gateway --out "$1/out" --json > "$3/full.json" 2> "$3/full.txt"
echo $? > "$3/full.code"
cp "$1/out/build.json" "$3/after.json"
rm "$1/filler"
ls -A "$1" > "$3/left.txt"
$2 --target raspberry-pi-4 --target x86-gateway --out "$1/out" --json > "$3/again.json"
"""


def test_a_full_disk_leaves_the_earlier_build_and_the_cache_and_a_rerun_succeeds(digits, digits_checkpoint, tmp_path):
    """The build goes to a file system of 16 MiB with a file that fills the rest of it."""
    if not can_mount():
        pytest.skip("mounting a small file system of one's own is not allowed here")
    disk, notes = tmp_path / "disk", tmp_path / "notes"
    disk.mkdir()
    notes.mkdir()
    command = [sys.executable, "-m", "hedgerow.cli", "compile", str(digits_checkpoint), "--task", digits]
    arguments = [str(disk), shlex.join(command), str(notes)]
    environment = {**os.environ, "HEDGEROW_CACHE": str(tmp_path / "cache")}
    subprocess.run(["unshare", "-Urm", "sh", "-c", SCRIPT, "sh", *arguments], env=environment, check=True)
    assert (notes / "full.code").read_text().strip() == "1"
    said = (notes / "full.txt").read_text()
    assert said.startswith("hedgerow: ")
    assert "No space left on device" in said
    assert "Traceback" not in said
    assert (notes / "after.json").read_bytes() == (notes / "before.json").read_bytes()
    assert (notes / "left.txt").read_text().split() == ["out"]
    again = last_record(notes / "again.json")
    assert again["refused"] == []
    assert again["artifacts"][0]["cached"] is True


def last_record(path: Path) -> dict:
    return json.loads(path.read_text().splitlines()[-1])


TASK = """
from dataclasses import replace
import numpy as np
from hedgerow.examples.digits.task import task as digits
from hedgerow.task import Dataset, Task

def data():
    known = digits.load_data()
    return replace(known, calibration=Dataset({{"image": np.zeros({shape}, np.float32)}}, np.zeros({count}, np.int64)))

task = Task(name="digits", inputs=digits.inputs, outputs=digits.answers, model=digits.model, data=data,
            preprocess=digits.preprocess)
"""


@pytest.mark.parametrize(
    ("shape", "count", "said"),
    [((0, 1, 8, 8), 0, "calibration: it holds no samples"), ((4, 1, 9, 9), 4, "calibration: image is float32")],
)
def test_wrong_calibration_data_stops_the_compile_before_anything_is_written(
    shape, count, said, digits_checkpoint, tmp_path
):
    (tmp_path / "task.py").write_text(TASK.format(shape=shape, count=count))
    (tmp_path / "cache").mkdir()
    with pytest.raises(TaskError, match=said):
        compile_targets(
            f"{tmp_path / 'task.py'}:task", digits_checkpoint, [PI], tmp_path / "out", cache=tmp_path / "cache"
        )
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "cache").rglob("*.result")) == []


CARELESS = """
from dataclasses import replace
from hedgerow.examples.digits.task import task as digits

def careless(probabilities, labels):
    return [][len(labels)]

task = replace(digits, metrics={"careless": careless})
"""


def test_what_a_tasks_own_function_raises_is_told_with_its_place_and_not_as_a_bug_of_ours(digits_checkpoint, tmp_path):
    (tmp_path / "task.py").write_text(CARELESS)
    with pytest.raises(TaskError) as caught:
        compile_targets(f"{tmp_path / 'task.py'}:task", digits_checkpoint, [PI], tmp_path / "out")
    said = f"careless() in {tmp_path / 'task.py'}, line 6, raised IndexError in compiling the reference"
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()
