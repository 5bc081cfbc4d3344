"""Where the installation cannot work, it says so in one sentence before it begins."""

import pytest

from tests.scripts.machine import Machine
from tests.test_layout import PROJECT


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def refusal(machine: Machine, *arguments: str, code: int = 1, **environment: str) -> str:
    """Return the one sentence on standard error; nothing else was written or left behind."""
    before = sorted(path.name for path in machine.root.iterdir())
    result = machine.run("install", *arguments, **environment)
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    (line,) = result.stderr.splitlines()
    assert sorted(path.name for path in machine.root.iterdir()) == before
    return line


def test_a_machine_without_a_python_that_is_new_enough_is_told_what_to_install(machine):
    machine.add_python("python3", version=(3, 9))

    assert refusal(machine) == (
        "scripts/install: expected Python 3.11 or later with its venv module, found none of them;"
        " install it (Debian: apt-get install python3 python3-venv)"
    )


def test_every_python_that_was_passed_over_is_named_with_its_reason(machine):
    machine.add_program("python3.12", "echo 'not active' >&2; exit 127")
    machine.add_python("python3.11", without=["ensurepip"])
    line = refusal(machine)

    lacks_venv = "3.11 without the module ensurepip (Debian: apt-get install python3-venv)"
    assert f"found {lacks_venv}; 3.12 does not run (not active); install it" in line


def test_a_version_that_is_asked_for_and_absent_is_named(machine):
    path = machine.add_python("python3.11")

    assert f"expected Python 3.13 with its venv module, found 3.11 at {path};" in refusal(machine, "--python", "3.13")


def test_a_python_for_which_pins_have_no_wheels_is_refused(machine):
    newest = PROJECT["tool"]["hedgerow"]["without-wheels"][0]
    machine.add_python("python3.14", version=(3, 14))
    line = refusal(machine, "all")

    assert line.startswith("scripts/install: expected wheels of everything pinned, found none for Python 3.14 on ")
    assert f"{newest['pin']} (for compile)" in line
    assert line.endswith("use Python 3.11 to 3.13 on x86_64, or leave these extras out")


@pytest.mark.heavy
def test_an_older_python_is_taken_before_one_that_would_be_refused(machine):
    machine.add_python("python3.14", version=(3, 14))
    machine.add_python("python3.13", version=(3, 13))
    result = machine.run("install", "compile", PIP_INDEX_URL="http://127.0.0.1:1/simple", PIP_CONFIG_FILE="/dev/null")

    assert result.stderr.startswith("scripts/install: making .venv with Python 3.")
    assert "found none for Python 3.14" not in result.stderr


def test_an_extra_that_does_not_exist_is_refused(machine):
    machine.add_python("python3.11")

    assert "found trian" in refusal(machine, "trian", "fleet")


@pytest.mark.parametrize("arguments", [["--python", "2.7"], ["--into"], ["--quick"]])
def test_an_option_that_does_not_exist_is_refused(machine, arguments):
    line = refusal(machine, *arguments, code=2)

    assert line == f"scripts/install: expected --python VERSION or --into FOLDER, found '{' '.join(arguments)}'"


@pytest.mark.parametrize("place", ["notes", ".", "notes/a.txt", "/absolute"])
def test_a_folder_with_other_files_is_not_cleared(machine, tmp_path, place):
    machine.add_python("python3.11")
    absolute = tmp_path / "elsewhere"
    for folder in (machine.root / "notes", absolute):
        folder.mkdir()
        (folder / "a.txt").write_text("mine")
    place = str(absolute) if place == "/absolute" else place
    line = refusal(machine, "--into", place, "litert")

    assert line == (
        f"scripts/install: expected a Python environment or nothing at {place}, found other files; name another folder"
    )
    assert (machine.root / "notes" / "a.txt").read_text() == (absolute / "a.txt").read_text() == "mine"
    assert (machine.root / "pyproject.toml").exists()


@pytest.mark.heavy
@pytest.mark.parametrize("left", [[], ["bin", "lib"]])
def test_an_environment_is_made_where_it_was_asked_for(machine, tmp_path, left):
    machine.add_python("python3.11")
    for name in left:  # a making that was killed
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
    place = str(tmp_path / "elsewhere")
    result = machine.run(
        "install", "--into", place, "litert", PIP_INDEX_URL="http://127.0.0.1:1/simple", PIP_CONFIG_FILE="/dev/null"
    )

    assert result.stderr.startswith(f"scripts/install: making {place} with Python 3.")
    assert (tmp_path / "elsewhere" / "pyvenv.cfg").exists()
    assert sorted(path.name for path in machine.root.iterdir()) == [
        "constraints.txt", "pyproject.toml", "scripts", "setup.py", "tools"
    ]  # fmt: skip


@pytest.mark.heavy
def test_without_a_network_nothing_is_installed(machine):
    machine.add_python("python3.11")
    result = machine.run("install", "litert", PIP_INDEX_URL="http://127.0.0.1:1/simple", PIP_CONFIG_FILE="/dev/null")

    made, line = result.stderr.splitlines()
    assert result.returncode == 1
    assert made.startswith("scripts/install: making .venv with Python 3.")
    assert line.startswith("scripts/install: expected a package index in pip's reach, found none (ERROR: ")
    assert line.endswith("connect to the network, or set PIP_INDEX_URL")
    assert list((machine.root / ".venv").glob("hedgerow-*")) == []
