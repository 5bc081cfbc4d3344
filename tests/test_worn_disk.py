"""A state folder that cannot be written, really: mounted read-only, or full. What is installed is served."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.wire.execution import ExecutionState
from tests.test_bad_release import LONGEST_GAP_S, Field, good_release, open_field

pytestmark = [pytest.mark.heavy, pytest.mark.broker]

READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
# As a card that is full: all that was there is there, and not a byte more fits.
FULL = (
    'mount -t tmpfs -o size=2m tmpfs "$0" && cp -a "$0.kept/." "$0/" && '
    '{ dd if=/dev/zero of="$0/filler" bs=1k 2>/dev/null; true; } && exec "$@"'
)


def in_own_namespace(script: str, folder: Path) -> list[str]:
    """Return a command that changes mounts for what comes after it, and nobody else; skip where that is not allowed."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("mounting needs the rights of root")
    return [unshare, "--mount", "sh", "-c", script, str(folder)]


@pytest.fixture
def field(tmp_path):
    with open_field(tmp_path) as made:
        yield made


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("script", "words"),
    [(READ_ONLY, ["a state folder that can be written", "Read-only file system"]), (FULL, ["room", "No space left"])],
    ids=["read-only", "full"],
)
def test_a_state_folder_that_cannot_be_written_serves_counts_and_refuses_to_install(field: Field, script, words):
    good, better = field.sign(good_release(1)), field.sign(good_release(2))
    process = field.start_agent()
    assert field.roll_out(good).state is RolloutState.FINISHED
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    state = field.folder / "state"
    shutil.copytree(state, field.folder / "state.kept")
    before = state_of(state)

    began = time.time()
    process = field.start_agent(*in_own_namespace(script, state))
    field.until(lambda: len(field.service.windows("d1", since=began)) > 10)
    rollout = field.roll_out(better)
    record, ended = rollout.executions["d1"], time.time()
    field.until(lambda: len(field.service.windows("d1", since=ended)) > 3)

    assert (rollout.state, record.state) == (RolloutState.ABORTED, ExecutionState.FAILED), record
    assert [word for word in words if word not in record.reason] == [], record.reason
    assert process.poll() is None
    assert {window.window.release for window in field.service.windows("d1", since=began)} == {good}
    assert field.longest_gap_s(began + 1) < LONGEST_GAP_S
    assert field.service.device("d1").release == good
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    said = [line for line in (field.folder / "agent-1.log").read_text().splitlines() if "cannot be written" in line]
    assert len(said) == 1, said
    assert state_of(state) == before

    # The disk is changed: the same release installs.
    field.start_agent()
    assert field.roll_out(better).state is RolloutState.FINISHED
    assert json.loads((state / "pointer.json").read_bytes())["slots"]["contents"]["B"]["was_healthy"]
