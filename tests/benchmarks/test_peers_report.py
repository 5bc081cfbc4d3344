"""What a simulator's process measures of itself."""

import subprocess
import sys
from dataclasses import replace

import pytest

pytest.importorskip("torch")

from benchmarks.peers.report import Clock, cpu_seconds, peak_rss_bytes
from benchmarks.peers.works import WORKS

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc"),
]


def test_rounds_are_timed_after_the_warm_up():
    clock = Clock(replace(WORKS["overhead"], warm_up=2, rounds=3))
    for _ in range(5):
        clock.lap()

    figures = clock.figures()

    assert len(figures["rounds_s"]) == 3
    assert figures["startup_s"] >= 0
    assert figures["round_cpu_s"] >= 0
    clock.lap()
    with pytest.raises(RuntimeError, match="expected 5 rounds, measured 6"):
        clock.figures()


def test_processes_that_this_one_started_count():
    alone_s, alone_bytes = cpu_seconds(), peak_rss_bytes()
    busy = "import sys; held = bytearray(50_000_000); sum(range(10_000_000)); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()

        assert cpu_seconds() >= alone_s + 0.05
        assert peak_rss_bytes() >= alone_bytes + 50_000_000
        child.communicate()
