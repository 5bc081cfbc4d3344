"""What is known of pins without wheels is true of the pins there are, and refuses where it must and nowhere else."""

import re
import subprocess
import sys
from importlib.metadata import requires

import pytest

from hedgerow.task import load_attribute
from tests.test_layout import PROJECT, ROOT

TOOL = ROOT / "tools" / "installable.py"
OPTIONAL = PROJECT["project"]["optional-dependencies"]
WITHOUT_WHEELS = PROJECT["tool"]["hedgerow"]["without-wheels"]


def refusal(extras: list[str], version: tuple[int, int], machine: str = "x86_64") -> str:
    return load_attribute(f"{TOOL}:refusal")(PROJECT, extras, version, machine)


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_everything_can_be_installed_on_x86_by_a_python_that_is_tested(version):
    assert refusal(["all", "dev"], version) == ""


def test_a_python_that_is_too_new_is_refused_by_the_pins_that_the_extras_need():
    assert refusal(["fleet", "examples"], (3, 14)) == (
        "expected wheels of everything pinned, found none for Python 3.14 on x86_64 of pydantic_core==2.33.2"
        " (for fleet): use Python 3.11 to 3.13 on x86_64, or leave these extras out"
    )


def test_an_extra_inside_another_counts():
    assert "pydantic_core==2.33.2 (for train)" in refusal(["simulate"], (3, 15))
    assert "coremltools==9.0 (for compile)" in refusal(["dev"], (3, 15))


def test_compiling_is_refused_on_linux_for_arm_and_the_rest_is_not():
    assert "on aarch64 of coremltools==9.0 (for compile); litert-converter==0.5.0 (for compile); tflite-micro==" in (
        refusal(["all"], (3, 11), "aarch64")
    )
    assert refusal(["examples", "fleet", "litert", "simulate", "train"], (3, 11), "aarch64") == ""


@pytest.mark.parametrize("extras", [[], ["litert"]])
def test_the_agent_alone_is_refused_nowhere(extras):
    assert refusal(extras, (3, 14), "aarch64") == ""


def test_a_python_below_the_first_is_refused():
    assert refusal([], (3, 10)) == "expected Python 3.11 or later, found 3.10"


def test_an_unknown_extra_is_refused_with_those_there_are():
    assert refusal(["all", "trian"], (3, 11)) == f"expected extras out of {', '.join(OPTIONAL)}, found trian"


def test_run_as_a_program_it_says_the_sentence_and_fails():
    result = subprocess.run([sys.executable, TOOL, "nothing"], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.startswith("expected extras out of ")
    assert subprocess.run([sys.executable, TOOL], capture_output=True, check=False).returncode == 0


def test_every_pin_without_a_wheel_is_a_pin():
    pins = {line.split(" ")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}

    assert {entry["pin"] for entry in WITHOUT_WHEELS} <= pins


def reached(requirements: list[str]) -> set[str]:
    """Return the names of all packages that *requirements* bring in here, those of Hedgerow's own extras too."""
    from packaging.requirements import Requirement

    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        requirement = waiting.pop()
        name, extras = re.sub(r"[-_.]+", "-", requirement.name).lower(), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        asked = [line for extra in extras for line in OPTIONAL[extra]] if name == "hedgerow" else requires(name) or []
        for line in asked:
            inside = Requirement(line)
            if inside.marker is None or any(inside.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                waiting.append(inside)
    return {name for name, _extras in seen}


@pytest.mark.heavy
@pytest.mark.parametrize("extra", [None, *OPTIONAL])
def test_an_extra_needs_the_pins_without_wheels_that_are_written_down_for_it(extra):
    """By the installed packages' own metadata, so on a machine that has everything."""
    needed = reached([*PROJECT["project"]["dependencies"], *(OPTIONAL[extra] if extra else [])])
    inside = load_attribute(f"{TOOL}:with_inner")([extra] if extra else [], OPTIONAL)

    for entry in WITHOUT_WHEELS:
        name = re.sub(r"[-_.]+", "-", entry["pin"].partition("==")[0]).lower()
        assert (name in needed) == bool(inside & set(entry["extras"])), entry
