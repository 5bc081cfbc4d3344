"""A release is tried in a process of its own: what such a process can do, and what the agent makes of it."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hedgerow.client.errors import InstallError, RejectedError, StoppedError, TrialFailedError, TrialRejectedError
from hedgerow.client.runtimes.linear import load_linear
from hedgerow.client.slot_folders import OpenSlot, SlotFolders
from hedgerow.client.trial import ChildTrials, DirectTrials
from hedgerow.weights import encode_arrays
from tests.client.deadly_runtimes import MEBIBYTE, load_deadly


@pytest.fixture
def opened(tmp_path, release):
    """Return a slot with a release for a runtime of this name."""

    def make(runtime: str = "linear", **more) -> OpenSlot:
        made = release(1, runtime=runtime, **more)
        folders = SlotFolders(tmp_path / f"state-{runtime}", "bench")
        files = {}
        for blob in made.manifest.blobs():
            path = tmp_path / blob.sha256
            path.write_bytes(made.blobs[blob.sha256])
            files[blob] = path
        return folders.open(folders.fill_idle(made.manifest.encode(), made.name, files))

    return make


FILES = Path("/proc/self/fd")


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.fixture(autouse=True)
def nothing_left():
    """No test leaves a process or a descriptor behind."""
    before, descriptors = children(), len(list(FILES.iterdir()))
    yield
    deadline = time.monotonic() + 5
    while children() - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert children() <= before
    assert len(list(FILES.iterdir())) <= descriptors


def test_a_good_release_passes_and_tells_its_steps(opened):
    entered = []
    ChildTrials(load_linear).model(opened(), entered.append)
    assert entered == ["load", "replay"]


@pytest.mark.parametrize(("where", "step"), [("load", "load"), ("replay", "replay")])
def test_an_abort_is_a_refusal_that_names_signal_step_and_runtime(opened, where, step):
    with pytest.raises(TrialRejectedError) as caught:
        ChildTrials(load_deadly).model(opened(f"{where}.abort"))
    assert isinstance(caught.value, RejectedError)
    assert caught.value.release == "demo@1"
    for words in ("demo@1 is refused", f"{where}.abort", "SIGABRT", f"step {step}", "internal check failed"):
        assert words in str(caught.value)


def test_a_segmentation_fault_is_a_refusal(opened):
    with pytest.raises(TrialRejectedError, match="SIGSEGV ended it in step replay"):
        ChildTrials(load_deadly).model(opened("replay.segfault"))


def test_a_hang_is_ended_in_time_and_may_be_tried_again(opened):
    began = time.monotonic()
    with pytest.raises(TrialFailedError, match=r"within 1\.5 s, found it in step replay"):
        ChildTrials(load_deadly, timeout_s=1.5).model(opened("replay.hang"))
    assert time.monotonic() - began < 20


def test_leaving_without_a_result_is_no_success(opened):
    with pytest.raises(TrialFailedError, match="exit code 0 in step replay and no result"):
        ChildTrials(load_deadly).model(opened("replay.leave"))


def test_garbage_and_a_forged_result_on_stdout_are_no_success(opened):
    with pytest.raises(TrialFailedError, match="exit code 0 in step load and no result"):
        ChildTrials(load_deadly).model(opened("load.leave_with_garbage"))


def test_a_verdict_that_cannot_be_read_is_no_verdict(opened):
    with pytest.raises(TrialFailedError, match="none that can be read"):
        ChildTrials(load_deadly).model(opened("load.refuse_without_a_reason"))


WANTED = "expected the model of demo@1 to run with load.{} in a process of its own"
NO_RESULT = "found that it ended with exit code 0 in step load and no result, and what it said was none"


@pytest.mark.parametrize(
    ("deed", "sentence"),
    [
        ("claim_other_bytes", f"{WANTED}, found that other bytes were tried; install it again"),
        (
            "claim_with_more",
            (
                "expected a verdict on demo@1, found none that can be read (trial.passed: expected only the fields "
                "manifest_sha256, sha256, found also more)"
            ),
        ),
        (
            "refuse_with_more",
            (
                "expected a verdict on demo@1, found none that can be read (trial.refused: expected only the fields "
                "is_final, reason, found also more)"
            ),
        ),
        (
            "step_with_more",
            f"{WANTED}, {NO_RESULT}: trial: expected only the fields step, found also more; it may be tried again",
        ),
        ("say_nothing_known", f"{WANTED}, {NO_RESULT}: neither of step, passed, refused; it may be tried again"),
    ],
)
def test_what_is_no_verdict_on_these_bytes_is_told_whole_and_may_be_tried_again(opened, deed, sentence):
    with pytest.raises(TrialFailedError) as caught:
        ChildTrials(load_deadly).model(opened(f"load.{deed}"))
    assert caught.value.reason == str(caught.value) == sentence.format(deed)


def test_all_memory_is_not_taken(opened):
    with pytest.raises(InstallError, match="memory"):
        ChildTrials(load_deadly, ram_bytes=512 * MEBIBYTE).model(opened("replay.take_all_memory"))


def test_an_error_of_the_runtime_is_told(opened):
    with pytest.raises(TrialFailedError, match=r"exit code 1.*Node number 7 failed to invoke"):
        ChildTrials(load_deadly).model(opened("replay.fall_over"))


def test_being_killed_from_outside_says_nothing_of_the_release(opened):
    with pytest.raises(TrialFailedError, match=r"SIGKILL.*memory"):
        ChildTrials(load_deadly).model(opened("replay.be_killed"))


def test_talking_without_end_costs_no_memory_and_does_not_matter(opened):
    ChildTrials(load_deadly).model(opened("replay.chatter"))


def test_a_process_that_is_left_behind_holds_nothing_up_and_is_ended(opened):
    began = time.monotonic()
    ChildTrials(load_deadly, timeout_s=60).model(opened("replay.leave_a_child_behind"))
    assert time.monotonic() - began < 30


def test_a_missing_runtime_and_other_outputs_come_out_as_without_a_child(opened):
    with pytest.raises(RejectedError, match="demo@1 is refused"):
        ChildTrials(load_linear).model(opened("coreml"))
    for trials in (ChildTrials(load_linear), DirectTrials(load_linear)):
        with pytest.raises(InstallError, match="golden samples"):
            trials.model(opened(golden_error=0.01))


def test_other_bytes_than_those_on_trial_do_not_pass(opened):
    slot = opened()
    with pytest.raises(InstallError, match="damaged"):
        ChildTrials(load_linear).model(replace(slot, manifest_sha256="0" * 64))
    slot.blob(slot.artifact.blob).write_bytes(encode_arrays({}))
    with pytest.raises(InstallError, match="damaged"):
        ChildTrials(load_linear).model(slot)


def test_stopping_ends_a_trial(opened):
    stopping = threading.Event()
    timer = threading.Timer(0.5, stopping.set)
    timer.start()
    with pytest.raises(StoppedError):
        ChildTrials(load_deadly, pause=stopping.wait).model(opened("replay.hang"))
    timer.join()


def test_a_train_graph_is_tried_once(opened, monkeypatch):
    slot, trials = opened(), ChildTrials(load_linear)
    trials.train_graph(slot)
    monkeypatch.setattr("subprocess.Popen", None)
    trials.train_graph(slot)


def test_a_train_graph_that_ends_the_process_is_refused_and_its_model_is_not(opened):
    slot, trials = opened("train.abort"), ChildTrials(load_deadly)
    trials.model(slot)
    with pytest.raises(TrialRejectedError, match=r"train graph of demo@1.*SIGABRT ended it in step step"):
        trials.train_graph(slot)


def test_what_a_child_cannot_import_is_a_bug_of_the_caller():
    with pytest.raises(ValueError, match="a function of a module"):
        ChildTrials(lambda _name: load_linear("linear"))


def test_no_child_process_is_a_failure_that_may_pass(opened, monkeypatch):
    monkeypatch.setattr("sys.executable", str(Path("/nowhere/python")))
    with pytest.raises(TrialFailedError, match="expected a child process"):
        ChildTrials(load_linear).model(opened())
