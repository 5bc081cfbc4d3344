"""The simulation benchmark runs each system in a process of its own and says what could not be run."""

import json

import pytest

pytest.importorskip("torch")

from benchmarks.simulation import SYSTEMS, command_of, main, measure

pytestmark = pytest.mark.heavy


def test_every_system_has_as_many_threads_as_there_are_cores_or_says_one():
    for name, system in SYSTEMS.items():
        command, threads = command_of(system, "cifar10", None, "python", 4)
        processes = int(command[command.index("--processes") + 1])
        assert command[command.index("--threads") + 1] == str(threads), name
        if system.shared == "one":
            assert (processes, threads) == (1, 1)
        else:
            assert 4 in {processes, threads}, name
        light, light_threads = command_of(system, "lr-mnist", None, "python", 4)
        assert light_threads == 1
        assert light[light.index("--processes") + 1] == str(processes)


def test_pfl_is_started_by_torchrun_as_its_documentation_says():
    command, _threads = command_of(SYSTEMS["pfl"], "cifar10", 3, "/env/bin/python", 4)

    assert command[:6] == [
        "/env/bin/python", "-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--nproc_per_node=4",
    ]  # fmt: skip
    assert command[-2:] == ["--rounds", "3"]


def test_a_process_that_fails_gives_its_last_error():
    import sys

    found, reason = measure([sys.executable, "-c", "raise ValueError('no such thing')"], 1, "cpu")

    assert found is None
    assert reason == "it ended with 1: ValueError: no such thing"


# Starting our grid's process and importing torch and Flower takes seconds.
@pytest.mark.timeout(120)
def test_the_overhead_of_our_grid_is_measured_and_an_absent_peer_is_a_row_with_a_reason(capsys):
    chosen = ["--work", "overhead", "--rounds", "3", "--json"]
    arguments = [*chosen, "--system", "hedgerow", "--system", "pfl", "--peer-python", "/nowhere/python"]

    assert main(arguments) == 0

    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    ours, theirs = result["rows"]
    assert (ours["work"], ours["system"], ours["rounds"], ours["engine"]) == ("overhead", "hedgerow", 3, "null")
    assert theirs["system"] == "pfl"
    assert "/nowhere/python" in theirs["not_run"]
    assert set(result) == {"device", "rows", "ratios", "bars"}
