"""The summary counts what pytest reported, and fails when something failed or left no report."""

import os
import subprocess
import sys
from pathlib import Path

from tests.test_layout import ROOT

TESTS = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_passes(number):
    pass

@pytest.mark.skip(reason="needs mosquitto")
def test_needs_a_broker():
    pass

@pytest.mark.skip(reason="needs mosquitto")
def test_needs_a_broker_too():
    pass
"""


def report(folder: Path, name: str, tests: str) -> None:
    """Let pytest itself write a report."""
    (folder / "test_it.py").write_text(tests)
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        f"--rootdir={folder}",
        f"--junit-xml={folder}/{name}.xml",
    ]
    command = [sys.executable, "-m", "pytest", *options, folder / "test_it.py"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    subprocess.run(command, env=environment, check=False, capture_output=True)


def summary(folder: Path, *parts: str) -> tuple[int, list[str]]:
    result = subprocess.run(
        [sys.executable, ROOT / "tools" / "what_ran.py", folder, *parts], capture_output=True, text=True, check=False
    )
    assert result.stderr == ""
    return result.returncode, [line.partition(" in ")[0] for line in result.stdout.splitlines()]


def test_parts_are_counted_and_skips_are_told_with_their_reasons(tmp_path):
    report(tmp_path, "fast", TESTS)
    report(tmp_path, "fast on Python 3.12", TESTS)

    assert summary(tmp_path, "fast", "fast on Python 3.12") == (
        0,
        [
            "fast: 3 passed, 0 failed, 2 skipped",
            "fast on Python 3.12: 3 passed, 0 failed, 2 skipped",
            "skipped 4: needs mosquitto",
            "total: 6 passed, 0 failed, 4 skipped",
        ],
    )


def test_a_failure_and_an_error_are_failed_tests(tmp_path):
    broken = "@pytest.fixture\ndef broken():\n    raise OSError\n\ndef test_error(broken):\n    pass\n"
    report(tmp_path, "fast", f"{TESTS}\n{broken}\ndef test_failure():\n    assert False\n")

    code, lines = summary(tmp_path, "fast")
    assert (code, lines[-1]) == (1, "total: 3 passed, 2 failed, 2 skipped")


def test_a_part_without_a_report_did_not_run_and_fails(tmp_path):
    report(tmp_path, "fast", TESTS)

    code, lines = summary(tmp_path, "fast", "heavy")
    assert (code, lines[-2]) == (1, "not run: heavy")


def test_a_part_in_which_nothing_ran_fails(tmp_path):
    report(tmp_path, "fast", "")

    assert summary(tmp_path, "fast") == (
        1,
        ["fast: 0 passed, 0 failed, 0 skipped", "total: 0 passed, 0 failed, 0 skipped"],
    )
