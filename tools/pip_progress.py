"""Run pip and show what it downloads and installs, in megabytes and packages, by Hedgerow's own display of progress.

    .venv/bin/python tools/pip_progress.py install ARGUMENT...

What pip says is read line by line, and how far a download is is seen in its temporary folder: pip tells it by itself
from 24.1 on only, and to no pipe that older ones know. On success pip's own words are left out; on failure all that it
wrote on its standard error is shown. Exits as pip does.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from hedgerow.progress import Progress
from hedgerow.progress_display import ProgressDisplay

__all__ = ["PipReading", "main"]

_LOOK_S = 0.5
_MB = 1e6
_UNITS = {"bytes": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_FETCH = re.compile(r"^\s*(Downloading|Using cached|Processing) (\S+)(?: \(([\d.]+) (bytes|kB|MB|GB)\))?")
_COLLECT = re.compile(r"^\s*(?:Collecting|Requirement already satisfied:) ([\w.-]+)")
_INSTALL = re.compile(r"^Installing collected packages: (.*)")


class PipReading:
    """Turns what pip says into progress. Pure.

    Attributes:
        downloaded_bytes: Of all files so far, as pip announced them.
        packages: How many packages are installed in the end; 0 until pip says so.
        file: Name of the file that is being downloaded; empty: none.
    """

    def __init__(self) -> None:
        self.downloaded_bytes, self.packages, self.file = 0.0, 0, ""
        self._file_bytes = 0.0
        self._looked_at: dict[str, None] = {}

    def hear(self, line: str) -> None:
        """Take one line of pip's standard output."""
        if found := _COLLECT.match(line):
            self._looked_at[found.group(1)] = None
            self.finish()
        elif found := _FETCH.match(line):
            self.finish()
            if found.group(1) == "Downloading":
                self.file = found.group(2).rpartition("/")[2]
                self._file_bytes = float(found.group(3) or 0) * _UNITS[found.group(4) or "bytes"]
        elif found := _INSTALL.match(line):
            self.finish()
            self.packages = len(found.group(1).split(","))

    def finish(self) -> None:
        """Count the file that was being downloaded as downloaded: pip went on, or ended."""
        self.downloaded_bytes += self._file_bytes
        self.file, self._file_bytes = "", 0.0

    def progress(self, file_bytes: int, installed: int) -> Progress:
        """Return how far pip is.

        Args:
            file_bytes: How much of :attr:`file` is there.
            installed: How many packages have been unpacked since pip said that it installs.
        """
        if self.packages:
            # One less than all: pip has not said that it is done.
            done = min(installed, self.packages - 1)
            return Progress("install", done, self.packages, unit="packages")
        here = min(float(file_bytes), self._file_bytes)
        note = f"{len(self._looked_at)} packages looked at"
        if self.file:
            size = f" ({here / _MB:.0f} of {self._file_bytes / _MB:.0f} MB)" if self._file_bytes >= 10 * _MB else ""
            note = f"{self.file}{size}"
        return Progress("download", round((self.downloaded_bytes + here) / _MB, 1), 0, note, unit="MB")


def main(arguments: Sequence[str]) -> int:
    """Run pip with *arguments*; return its exit code."""
    began = time.monotonic()
    reading = PipReading()
    with tempfile.TemporaryDirectory(prefix="hedgerow-pip-") as folder, tempfile.TemporaryFile() as errors:
        command = [sys.executable, "-P", "-m", "pip", *arguments, "--progress-bar", "off"]
        pip = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": folder, "PYTHONUNBUFFERED": "1"},
        )
        signal.signal(signal.SIGTERM, lambda *_: pip.terminate())
        try:
            with ProgressDisplay(bars=False) as display:
                _follow(pip, reading, Path(folder), display)
        except KeyboardInterrupt:
            # The terminal told pip as well.
            pip.wait()
            return 130
        if pip.returncode != 0:
            errors.seek(0)
            shutil.copyfileobj(errors, sys.stderr.buffer)
            return pip.returncode
    reading.finish()
    said = f"{reading.packages} packages installed" if reading.packages else "everything was there"
    seconds = time.monotonic() - began
    sys.stderr.write(f"{said}, {reading.downloaded_bytes / _MB:,.0f} MB downloaded, in {seconds:.0f} s\n")
    return 0


def _follow(pip: "subprocess.Popen[str]", reading: PipReading, folder: Path, display: ProgressDisplay) -> None:
    site = Path(sysconfig.get_path("purelib"))
    lines = threading.Thread(target=_read, args=(pip, reading), daemon=True)
    lines.start()
    before: int | None = None
    while lines.is_alive():
        installed = 0
        if reading.packages:
            found = sum(1 for _ in site.glob("*.dist-info"))
            before = found if before is None else before
            installed = found - before
        display.report(reading.progress(_size(folder, reading.file), installed))
        lines.join(_LOOK_S)
    pip.wait()


def _read(pip: "subprocess.Popen[str]", reading: PipReading) -> None:
    for line in pip.stdout or ():
        reading.hear(line)


def _size(folder: Path, name: str) -> int:
    """Return how much of a file is in pip's temporary folders."""
    if not name:
        return 0
    sizes = [0]
    for path in folder.glob(f"pip-*/{name}"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # moved away meanwhile
            continue
    return max(sizes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
