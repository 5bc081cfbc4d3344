"""README.md shows the task that there is, and its worked example works as written."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.test_layout import PROJECT, ROOT

README = (ROOT / "README.md").read_text()
SHOWN = {name: (ROOT / "examples" / folder / "task.py").read_text() for name, folder in
         (("task", "digits"), ("own-task", "visits"))}  # fmt: skip
LIMIT_S = 300
"""Of a hang: the machine may have other work."""
UNTIL_STOPPED = {
    "hedgerow fleet broker": "listens on",
    "hedgerow fleet serve": "serves at",
    "hedgerow agent run": "connected",
}
"""Commands that run until they are stopped -> what they say when they are up."""


def block(name: str) -> str:
    found = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", README, re.DOTALL)
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("name", SHOWN)
def test_a_task_shown_is_the_file(name):
    assert block(name) == f"```python\n{SHOWN[name]}```\n"


def test_the_tool_finds_the_tasks_that_are_shown_equal_to_their_files():
    assert subprocess.run([sys.executable, ROOT / "tools" / "readme.py"], check=False).returncode == 0


@pytest.mark.parametrize("name", SHOWN)
def test_a_task_takes_at_most_40_lines(name):
    assert len(SHOWN[name].splitlines()) <= 40


def versions(text: str) -> list[str]:
    return re.findall(r"3\.\d+", text)


def test_the_pythons_that_it_claims_are_those_of_the_package():
    (claimed,) = re.findall(r"On Linux \(x86-64\) with Python (.*):", README)
    (tested,) = re.findall(r"Tested on Linux for x86-64: everything on Python (.*), which need no torch", README)
    classifiers = [line for line in PROJECT["project"]["classifiers"] if ":: Python :: 3." in line]

    assert versions(claimed) == versions(tested) == [line.rpartition(" ")[2] for line in classifiers]
    assert PROJECT["project"]["requires-python"] == f">={versions(claimed)[0]}"


def test_the_pins_without_wheels_that_it_names_are_those_that_the_installer_refuses():
    (newer,) = re.findall(r"On Python 3\.14 there are no wheels of (.*) as pinned, and on", README)
    (arm,) = re.findall(r"on Linux for 64-bit ARM none of\s+(.*)\. The agent", README)
    refused: dict[str, set[str]] = {"3.14": set(), "aarch64": set()}
    for entry in PROJECT["tool"]["hedgerow"]["without-wheels"]:
        for place in (entry.get("python"), *entry.get("machines", ())):
            if place is not None:
                refused[place].add(entry["pin"].partition("==")[0])

    assert {"3.14": set(re.split(", | and ", newer)), "aarch64": set(re.split(", | and ", arm))} == refused


@dataclass
class Command:
    """A command of the worked example, and the lines that the README shows of its output."""

    text: str
    shown: list[str]

    @property
    def ready_text(self) -> str | None:
        return next((ready for start, ready in UNTIL_STOPPED.items() if self.text.startswith(start)), None)


def worked_example(name: str = "commands") -> list[Command]:
    commands: list[Command] = []
    for console in re.findall(r"```console\n(.*?)```", block(name), re.DOTALL):
        for line in console.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                commands.append(Command(" ".join(line[2:].split()), []))
            elif line != "...":
                commands[-1].shown.append(line)
    return [command for command in commands if not command.text.startswith("source ")]


def without_numbers(text: str) -> list[str]:
    """Return the lines of *text* with one sign for every number, and one space for many."""
    return [" ".join(re.sub(r"[+-]?\d[\d,.]*", "#", line).split()) for line in text.splitlines()]


def absent(shown: list[str], output: str) -> list[str]:
    """Return the lines of *shown* that *output* does not have, in that order."""
    lines = iter(without_numbers(output))
    return [line for line in without_numbers("\n".join(shown)) if line not in lines]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Shell:
    """Runs the commands of the worked example from the root of the project, elsewhere than in ``out/``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        broker, server = free_ports(2)
        self._places = {
            " model.pt": f" {folder}/model.pt",
            "out/": f"{folder}/out/",
            "1883": str(broker),
            "8080": str(server),
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, "COLUMNS": "80"}
        self._deadline = time.monotonic() + LIMIT_S
        self.running: list[tuple[Command, subprocess.Popen[bytes], Path]] = []

    def _start(self, command: Command) -> tuple[subprocess.Popen[bytes], Path]:
        text = command.text
        for shown, used in self._places.items():
            text = text.replace(shown, used)
        log = self._folder / f"{len(list(self._folder.glob('*.log')))}.log"
        with log.open("wb") as output:
            return subprocess.Popen(
                shlex.split(text), cwd=ROOT, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            ), log

    def output(self, log: Path) -> str:
        return log.read_text().replace(self._places["out/"], "out/")

    def run(self, command: Command) -> str:
        """Run a command to its end and return its output."""
        process, log = self._start(command)
        self.running.append((command, process, log))
        code = process.wait(self._deadline - time.monotonic())
        self.running.pop()
        assert code == 0, f"{command.text}\n{self.output(log)}"
        return self.output(log)

    def leave_running(self, command: Command) -> None:
        """Start a command and wait until it says that it is up."""
        process, log = self._start(command)
        self.running.append((command, process, log))
        while command.ready_text not in self.output(log):
            assert process.poll() is None, f"{command.text}\n{self.output(log)}"
            assert time.monotonic() < self._deadline, f"{command.text}\n{self.output(log)}"
            time.sleep(0.05)

    def stop(self) -> list[tuple[Command, int, str]]:
        """Stop what runs, the newest first, as Ctrl-C does; return exit codes and outputs."""
        stopped = []
        while self.running:
            command, process, log = self.running.pop()
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            finally:
                process.kill()
                process.wait()
            stopped.append((command, process.returncode, self.output(log)))
        return stopped


@pytest.mark.heavy
@pytest.mark.e2e
@pytest.mark.timeout(LIMIT_S + 60)
def test_the_worked_example_works_as_written(tmp_path):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    commands = worked_example()
    shell = Shell(tmp_path)
    outputs: list[tuple[Command, str]] = []
    try:
        for command in commands:
            if command.ready_text is not None:
                shell.leave_running(command)
            else:
                outputs.append((command, shell.run(command)))
        children = psutil.Process().children(recursive=True)
    finally:
        stopped = shell.stop()

    assert [(command.text, code) for command, code, _output in stopped if code != 0] == []
    assert len(stopped) == len(UNTIL_STOPPED)
    outputs += [(command, output) for command, _code, output in stopped]
    wrong = {command.text: (absent(command.shown, output), output) for command, output in outputs}
    assert {text: found for text, found in wrong.items() if found[0]} == {}
    (start,) = (output for command, output in outputs if command.text.startswith("hedgerow rollout start"))
    (status,) = (output for command, output in outputs if command.text.startswith("hedgerow rollout status"))
    assert "FINISHED" in start.splitlines()[-2]
    assert "rollout-1: digits@1 FINISHED" in status
    assert "pi-0: SUCCEEDED" in status
    _gone, alive = psutil.wait_procs([child for child in children if child.pid not in before], timeout=5)
    assert alive == []


@pytest.mark.heavy
@pytest.mark.e2e
@pytest.mark.timeout(LIMIT_S + 60)
def test_the_simulation_works_as_written(tmp_path):
    (command,) = worked_example("simulate")

    output = Shell(tmp_path).run(command)

    assert absent(command.shown, output) == [], output
    assert (tmp_path / "out" / "simulation" / "curves.png").stat().st_size > 10_000


@pytest.mark.heavy
@pytest.mark.e2e
@pytest.mark.timeout(LIMIT_S + 60)
def test_the_model_of_ones_own_works_as_written(tmp_path):
    shell = Shell(tmp_path)

    wrong = {
        command.text: (absent(command.shown, output), output)
        for command in worked_example("own")
        for output in [shell.run(command)]
    }

    assert {text: found for text, found in wrong.items() if found[0]} == {}


@pytest.mark.heavy
@pytest.mark.e2e
@pytest.mark.timeout(LIMIT_S + 60)
def test_weights_of_ones_own_reach_an_agent_as_written(tmp_path):
    shell = Shell(tmp_path)

    wrong = {
        command.text: (absent(command.shown, output), output)
        for command in worked_example("own-weights")
        for output in [shell.run(command)]
    }

    assert {text: found for text, found in wrong.items() if found[0]} == {}
