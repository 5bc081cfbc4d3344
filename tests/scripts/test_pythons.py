"""Every Python of a machine is found, and what keeps it from being used is said."""

import pytest

from tests.scripts.machine import Machine


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def found(machine: Machine, **environment: str) -> list[tuple[str, ...]]:
    result = machine.run("pythons", **environment)
    assert (result.returncode, result.stderr) == (0, "")
    return [tuple(line.split("\t")) for line in result.stdout.splitlines()]


def test_a_machine_without_python_has_none(machine):
    assert found(machine) == []


def test_they_come_in_the_order_of_their_versions_each_once(machine):
    newer, older = machine.add_python("python3", version=(3, 13)), machine.add_python("python3.12", version=(3, 12))
    machine.add_python("python3.13", version=(3, 13))

    assert found(machine) == [("3.12", str(older), ""), ("3.13", str(newer), "")]


def test_one_that_is_too_old_is_told(machine):
    path = machine.add_python("python3", version=(3, 9))

    assert found(machine) == [("3.9", str(path), "older than 3.11")]


def test_one_without_venv_gives_way_to_one_that_has_it(machine):
    machine.add_python("python3", without=["ensurepip"])
    path = machine.add_python("python3.11")

    assert found(machine) == [("3.11", str(path), "")]


def test_one_without_venv_that_is_alone_is_told(machine):
    path = machine.add_python("python3.11", without=["venv"])

    assert found(machine) == [("3.11", str(path), "without the module venv (Debian: apt-get install python3-venv)")]


def test_a_shim_that_does_not_run_is_told_with_its_words(machine):
    path = machine.add_program("python3.12", "echo 'pyenv: python3.12: command not found' >&2; echo more >&2; exit 127")

    assert found(machine) == [("3.12", str(path), "does not run (pyenv: python3.12: command not found)")]


def test_behind_a_shim_that_does_not_run_is_what_pyenv_holds(machine):
    machine.add_program("python3.12", "exit 127")
    held = machine.add_python("held", version=(3, 12))
    machine.add_program(
        "pyenv",
        f'case "$1 ${{PYENV_VERSION:-}}" in versions*) printf "2.7.18\\n3.12.1\\n" ;;'
        f' "which 3.12.1") echo {held} ;; *) exit 1 ;; esac',
    )

    assert found(machine) == [("3.12", str(held), "")]
