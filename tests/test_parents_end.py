"""No process that Hedgerow starts outlives who started it, not even when that is killed in the midst of its work."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.processes import wait_until, wait_until_gone

ROOT = Path(__file__).resolve().parents[1]
HEAVY = pytest.mark.heavy

BEGIN = """
import os, sys, time
from pathlib import Path

busy = Path(sys.argv[1])
"""

PROGRAM = """
from hedgerow.children.child import Child
child = Child(["sh", "-c", f"echo busy > {busy}; sleep 600"], name="program")
time.sleep(600)
"""

PROGRAMS = """
from hedgerow.children.programs import Programs
children = Programs()
for name in ("a", "b"):
    children.start(["sh", "-c", f"trap '' TERM; echo busy > {busy}; exec sleep 600"], busy.with_suffix(".log"), name)
time.sleep(600)
"""

COPY = """
from hedgerow.children.forked import fork_child
child = fork_child(lambda: (busy.write_text("busy"), time.sleep(600)), name="copy")
time.sleep(600)
"""

COPY_OF_A_THREAD = """
import threading
from hedgerow.children.forked import fork_child
made = []
threading.Thread(
    target=lambda: made.append(fork_child(lambda: (busy.write_text("busy"), time.sleep(600)), name="copy"))
).start()
time.sleep(600)
"""

MODULE_OF_A_THREAD = """
import threading
from tests.root.children.talking import talker
made = []
thread = threading.Thread(target=lambda: made.append(talker("wait_for_ever")))
thread.start()
thread.join()
busy.write_bytes(made[0].channel.receive())
time.sleep(600)
"""

COMPILE = """
from hedgerow.compile.workers import CompileWorkers
from tests.compile.test_workers import job
task = busy.with_suffix(".py")
task.write_text(f"import time; open({str(busy)!r}, 'w').write('busy'); time.sleep(600)")
with CompileWorkers() as workers:
    workers.run([job(task=f"{task}:task")], print)
"""

FOREIGN = """
from hedgerow.compile import foreign
module = busy.with_name("stand_in.py")
module.write_text(f"import time\\ndef serve(_): open({str(busy)!r}, 'w').write('busy'); time.sleep(600)")
os.environ["PYTHONPATH"] += f":{module.parent}"
foreign._MODULE, foreign.check_installed = "stand_in", lambda *_: None
with foreign.ForeignFile("model.tflite", "tflite", b"bytes") as file:
    file.outline()
"""

EDGETPU = """
from hedgerow.compile.edgetpu import COMPILER, compile_for_edgetpu
program = busy.with_name(COMPILER)
program.write_text(f"#!/bin/sh\\necho busy > {busy}\\nexec sleep 600")
program.chmod(0o755)
compile_for_edgetpu(b"model", search_path=str(program.parent))
"""

TRIAL = """
import threading
from hedgerow.client.slot_folders import SlotFolders
from hedgerow.client.trial import ChildTrials
from tests.client.conftest import make_release
from tests.client.deadly_runtimes import load_deadly
made = make_release(1, runtime="replay.hang")
folders = SlotFolders(busy.with_name("state"), "bench")
files = {}
for blob in made.manifest.blobs():
    files[blob] = busy.with_name(blob.sha256)
    files[blob].write_bytes(made.blobs[blob.sha256])
slot = folders.open(folders.fill_idle(made.manifest.encode(), made.name, files))
def enter(step):
    if step == "replay":
        busy.write_text("busy")
# As the agent does it: from a thread of its own.
thread = threading.Thread(target=ChildTrials(load_deadly).model, args=(slot, enter))
thread.start()
# From Python 3.12 on nothing can be started any more once the main thread has come to its end.
thread.join()
"""

GRID = """
from hedgerow.server.grids.processes import ProcessGrid
from tests.server.grids.test_processes import APP, messages
grid = ProcessGrid(f"{APP}:app", 2, workers=2)
grid.send_and_receive(messages([1, 2]))
busy.write_text("busy")
grid.send_and_receive(messages([1, 2], **{"partition-0": "sleep", "partition-1": "sleep"}))
"""

BROKER = """
from hedgerow.fleet.brokers.development import DevelopmentBroker
broker = DevelopmentBroker()
broker.start()
busy.write_text("busy")
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize(
    ("code", "processes"),
    [
        pytest.param(PROGRAM, 1, id="program"),
        pytest.param(PROGRAMS, 2, id="programs"),
        pytest.param(COPY, 1, id="copy"),
        pytest.param(COPY_OF_A_THREAD, 1, id="copy of a thread"),
        pytest.param(MODULE_OF_A_THREAD, 1, id="module of a thread"),
        pytest.param(COMPILE, 1, id="compile"),
        pytest.param(FOREIGN, 1, id="foreign file"),
        pytest.param(EDGETPU, 1, id="edgetpu compiler"),
        pytest.param(TRIAL, 1, id="trial"),
        pytest.param(GRID, 2, id="grid", marks=HEAVY),
        pytest.param(BROKER, 1, id="broker", marks=pytest.mark.broker),
    ],
)
def test_who_is_killed_leaves_no_process(code, processes, tmp_path):
    busy = tmp_path / "busy"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", BEGIN + code, str(busy)], env=environment) as parent:
        wait_until(lambda: busy.exists() or parent.poll() is not None)
        wait_until(lambda: len(psutil.Process(parent.pid).children()) >= processes)
        children = [child.pid for child in psutil.Process(parent.pid).children()]
        parent.send_signal(signal.SIGKILL)
    assert parent.returncode == -signal.SIGKILL
    assert len(children) == processes
    wait_until_gone(*children)
