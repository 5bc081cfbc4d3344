import os
import signal
import subprocess
import sys
import threading

import pytest

from hedgerow.compile.errors import TimeLimitError, WorkerError
from hedgerow.compile.messages import Job, SentRecipe
from hedgerow.compile.recipes import find_recipe
from hedgerow.compile.workers import CompileWorkers
from hedgerow.errors import TaskError
from hedgerow.hardware import load_target
from tests.processes import new_since, wait_until_gone, what_is_held


def job(**changes) -> Job:
    fields = {
        "toolchain": "onnx",
        "task": "/nowhere/task.py:task",
        "checkpoint": "/nowhere",
        "weights_sha256": "0" * 64,
        "folder": "/nowhere",
        "search_path": tuple(entry for entry in sys.path if entry),
        "max_drop": 0.015,
        "limit_s": 600.0,
        "artifacts": {"x86-gateway": SentRecipe.of(find_recipe("onnx-int8-s8s8"))},
        "targets": {"x86-gateway": load_target("x86-gateway")},
        "train_formats": (),
        "train_options": (),
        "reference": True,
        "counts": {},
    }
    return Job(**(fields | changes))


def take_nothing(kind, fields):
    raise AssertionError(kind)


def test_an_error_in_a_worker_is_raised_here_and_the_pool_works_on():
    with CompileWorkers() as workers:
        for _attempt in range(2):
            with pytest.raises(TaskError, match="there is no such file"):
                workers.run([job()], take_nothing)
            assert len(workers.process_ids) == 1


def test_the_other_jobs_are_stopped_when_one_fails(tmp_path):
    task = tmp_path / "task.py"
    task.write_text("import time\ntime.sleep(60)\n")
    with CompileWorkers() as workers:
        with pytest.raises(TaskError, match="there is no such file"):
            workers.run([job(), job(toolchain="coreml", task=f"{task}:task")], take_nothing)
        assert [worker.toolchain for worker in workers._workers] == ["onnx"]


@pytest.mark.heavy
def test_a_worker_outlives_the_thread_that_started_it():
    with CompileWorkers() as workers:
        thread = threading.Thread(target=workers.warm, args=(("onnx",),))
        thread.start()
        thread.join()
        with pytest.raises(TaskError):
            workers.run([job()], take_nothing)
        assert len(workers.process_ids) == 1


def test_a_worker_that_dies_is_told_with_its_work(tmp_path):
    task = tmp_path / "task.py"
    task.write_text("import os\nprint('out of luck', flush=True)\nos._exit(9)\n")
    with (
        CompileWorkers() as workers,
        pytest.raises(WorkerError, match=r"compiled x86-gateway .*exit code 9.*out of luck"),
    ):
        workers.run([job(task=f"{task}:task")], take_nothing)


def test_workers_end_with_the_pool():
    with CompileWorkers() as workers:
        workers.warm(["onnx"])
        (process,) = workers.process_ids
    wait_until_gone(process)


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_workers_end_with_their_parent_however_it_ends(end):
    code = (
        "import os; from hedgerow.compile.workers import CompileWorkers; "
        f"pool = CompileWorkers(); pool.warm(['onnx']); print(*pool.process_ids, flush=True); {end}"
    )
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    wait_until_gone(int(found.stdout))


def test_an_interrupt_stops_the_job_and_ends_its_process(tmp_path):
    task = tmp_path / "task.py"
    started = tmp_path / "started"
    task.write_text(
        f"import os, pathlib, signal, time\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n"
        "os.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    before = signal.getsignal(signal.SIGINT)
    with CompileWorkers() as workers, pytest.raises(KeyboardInterrupt):
        workers.run([job(task=f"{task}:task")], take_nothing)
    assert signal.getsignal(signal.SIGINT) is before
    wait_until_gone(int(started.read_text()))


def test_an_idle_worker_that_died_is_replaced():
    with CompileWorkers() as workers:
        workers.warm(["onnx"])
        (first,) = workers.process_ids
        os.kill(first, signal.SIGKILL)
        workers._workers[0].child.wait()
        workers.warm(["onnx"])
        assert workers.process_ids != (first,)
        assert len(workers.process_ids) == 1


def test_no_descriptor_process_thread_or_folder_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = what_is_held()
    for _attempt in range(3):
        with CompileWorkers() as workers:
            workers.warm(["onnx", "coreml"])
    assert new_since(before) == []
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_task_or_checkpoint_is_never_a_refusal_of_one_job():
    refused = []
    with CompileWorkers() as workers, pytest.raises(TaskError):
        workers.run([job(), job(reference=False)], take_nothing, refuse=lambda *found: refused.append(found))
    assert refused == []


def test_a_job_that_takes_too_long_is_ended_with_its_process_and_the_others_go_on(tmp_path):
    task = tmp_path / "task.py"
    task.write_text("import time\ntime.sleep(60)\n")
    slow, refused, ended = job(toolchain="coreml", task=f"{task}:task", limit_s=2.0), [], []

    def more(job, elapsed_s):
        ended.append((job, elapsed_s))
        return ()

    with CompileWorkers() as workers:
        workers.run([slow], take_nothing, refuse=lambda *found: refused.append(found), more=more)
        assert workers.process_ids == ()
    ((refused_job, error),) = refused
    assert refused_job is slow
    assert str(error) == (
        "x86-gateway: expected an end within the 2 s that it had left, found it still at work; give it more time with "
        "--time-limit, or make the model smaller (unrolled loops take longest)"
    )
    ((ended_job, elapsed_s),) = ended
    assert ended_job is slow
    assert elapsed_s >= 2


def test_a_job_that_takes_too_long_is_an_error_where_nobody_takes_refusals(tmp_path):
    task = tmp_path / "task.py"
    task.write_text("import time\ntime.sleep(60)\n")
    with CompileWorkers() as workers, pytest.raises(TimeLimitError, match="expected an end within the 1 s"):
        workers.run([job(task=f"{task}:task", limit_s=1.0)], take_nothing)


def test_a_process_makes_room_for_another_toolchain(tmp_path):
    task = tmp_path / "task.py"
    task.write_text("import os\nos._exit(9)\n")
    with CompileWorkers(jobs=1) as workers:
        workers.warm(["onnx"])
        (first,) = workers.process_ids
        with pytest.raises(TaskError):
            workers.run([job(toolchain="coreml")], take_nothing)
        assert len(workers.process_ids) == 1
        assert workers.process_ids != (first,)


def test_a_pool_without_jobs_is_a_bug_of_the_caller():
    with pytest.raises(ValueError, match="at least one job"):
        CompileWorkers(jobs=0)
