"""What pip says becomes progress, and what it fails with is shown."""

import importlib.util
import subprocess
import sys
import zipfile

import pytest

from hedgerow.progress import Progress
from tests.test_layout import ROOT

TOOL = ROOT / "tools" / "pip_progress.py"
SPEC = importlib.util.spec_from_file_location("pip_progress", TOOL)
pip_progress = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(pip_progress)

SAID = """\
Looking in indexes: https://pypi.org/simple
Collecting torch==2.13.0 (from -c constraints.txt (line 36))
  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (29 kB)
Collecting numpy>=1.26
  Using cached numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl (16.9 MB)
Requirement already satisfied: click>=8.1 in ./.venv/lib/python3.11/site-packages (8.4.2)
Downloading https://example.org/whl/torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (915.6 MB)
""".splitlines()


def reading(lines):
    found = pip_progress.PipReading()
    for line in lines:
        found.hear(line)
    return found


def test_what_is_looked_at_is_counted():
    assert reading(SAID[:2]).progress(0, 0) == Progress("download", 0.0, 0, "1 packages looked at", "MB")
    assert reading(SAID[:6]).progress(0, 0) == Progress("download", 0.0, 0, "3 packages looked at", "MB")


def test_a_small_file_is_named_and_counts_when_it_is_there():
    found = reading(SAID[:3])
    assert found.file == "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata"
    assert found.progress(10_000, 0).note == found.file
    found.hear(SAID[3])
    assert (found.file, found.downloaded_bytes) == ("", 29_000)


def test_a_large_file_shows_how_much_of_it_is_there():
    name = "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    found = reading(SAID)

    assert found.progress(312_000_000, 0) == Progress("download", 312.0, 0, f"{name} (312 of 916 MB)", "MB")
    # pip says 915.6 MB of 915.62; more than all of it is all of it.
    assert found.progress(915_620_000, 0).done == 915.6


def test_installing_counts_packages_and_is_over_when_pip_says_so():
    found = reading([*SAID, "Installing collected packages: numpy, torch, hedgerow"])

    assert found.downloaded_bytes == 915_629_000
    assert found.progress(0, 2) == Progress("install", 2, 3, unit="packages")
    assert found.progress(0, 3) == Progress("install", 2, 3, unit="packages")


def test_the_last_file_counts_when_pip_ends_after_it():
    found = reading(SAID)
    found.finish()
    found.finish()

    assert (found.downloaded_bytes, found.packages) == (915_629_000, 0)


@pytest.fixture
def wheel(tmp_path):
    """Write a package that holds nothing."""
    path = tmp_path / "nothing_at_all-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nothing_at_all.py", "")
        info = "nothing_at_all-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: nothing-at-all\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.heavy  # pip itself
def test_pip_installs_and_the_end_tells_how_much(wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, TOOL, "install", "--no-index", "--target", tmp_path / "to", wheel]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")
    assert "1 packages installed, 0 MB downloaded, in " in done.stderr.splitlines()[-1]
    assert (tmp_path / "to" / "nothing_at_all.py").exists()
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.heavy
def test_what_pip_fails_with_is_shown_and_its_exit_code_is_ours(tmp_path):
    command = [sys.executable, TOOL, "install", "--no-index", "--target", tmp_path, "no-such-package-at-all"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "No matching distribution found for no-such-package-at-all" in done.stderr
    assert "Traceback" not in done.stderr
