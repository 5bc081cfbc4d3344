"""Call every command that needs an extra, where there is none; exit with 1 when one says anything but what is missing.

Run in a process of its own: by tests/test_base_install.py, which hides the packages, and by .ci/run where nothing but
the base install exists.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TASK = """
import torch
from hedgerow import Task
task = Task(name="t", inputs=[], labels=[], model=torch.nn.Flatten, data=None)
"""

COMMANDS = {
    "checkpoint import": ("model.pt", "--task", "task.py:task", "--out", "imported"),
    "compile": ("checkpoint", "--task", "task.py:task", "--target", "raspberry-pi-4", "--out", "build"),
    "compile --artifact": ("model.onnx", "--target", "raspberry-pi-4", "--out", "build"),
    "demo": ("--out", "demo"),
    "deploy": ("checkpoint", "--task", "task.py:task", "--fleet", "fleet"),
    "device forget": ("pi-0", "--server", "http://127.0.0.1:1", "--key-file", "key"),
    "device reset": ("pi-0", "--server", "http://127.0.0.1:1", "--key-file", "key"),
    "fleet init": ("fleet", "--name", "demo"),
    "fleet serve": ("--fleet-folder", "fleet", "--broker", "127.0.0.1:1"),
    "fleet broker": ("--port", "0"),
    "predict": ("checkpoint", "samples.csv", "--task", "task.py:task", "--out", "answers.csv"),
    "release create": ("digits", "--build", "build", "--fleet-folder", "fleet"),
    "release list": ("--fleet-folder", "fleet"),
    "release show": ("digits@1", "--fleet-folder", "fleet"),
    "rollout start": ("digits@1", "--server", "http://127.0.0.1:1", "--key-file", "key"),
    "rollout status": ("rollout-1", "--server", "http://127.0.0.1:1", "--key-file", "key"),
    "simulate": ("--task", "task.py:task", "--out", "simulation"),
    "targets check": ("model.onnx",),
    "task check": ("task.py:task",),
    "train": ("task.py:task", "--out", "run"),
}
"""Command -> arguments with which it would work."""

WORK = {"fleet renew", "fleet status"}
"""Commands that get by with the base install so far, until they meet a fleet that has to be made first."""

SENTENCE = re.compile(
    r"hedgerow: .* needs the packages of the extra '([a-z]+)', and the module '[\w.]+' is not installed; "
    r"run: \S+ -m pip install .*\[\1\]\S*\n"
)


def answers() -> dict[str, tuple[int, str, str]]:
    """Return command -> exit code, standard output and standard error."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "task.py").write_text(TASK)
        for file in ("key", "model.onnx"):
            (folder / file).write_text("")
        for command, arguments in COMMANDS.items():
            called = [sys.executable, "-P", "-m", "hedgerow.cli", *command.split(), *arguments]
            done = subprocess.run(called, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))
            found[command] = (done.returncode, done.stdout, done.stderr)
    return found


if __name__ == "__main__":
    wrong = {
        command: answer
        for command, answer in answers().items()
        if answer[0] != 1 or answer[1] or not SENTENCE.fullmatch(answer[2])
    }
    for command, (code, out, err) in wrong.items():
        sys.stderr.write(f"hedgerow {command}: exit code {code}\n{out}{err}\n")
    sys.exit(bool(wrong))
