"""Seconds of a federated round: Hedgerow's engines, Flower's Ray backend, pfl-research and a plain loop, in one run.

``python -m benchmarks.simulation --json`` prints ``{device, rows: [{work, system, seconds, clients_per_s, accuracy}],
ratios, bars, roofline}``. Every measurement is a process of its own, one after the other, and all have as many threads
as the machine has cores. See ``docs/benchmarks-simulation.md``.
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.works import WORKS
from benchmarks.simulation_bars import OURS, bars, measured_row, missing_row, ratios

__all__ = ["SYSTEMS", "System", "main"]

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 600
THROUGHPUT = "throughput"
_ENVIRONMENTS = {"ray": "--ray-python", "pfl": "--peer-python"}


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One way to simulate.

    Attributes:
        script: Module below ``benchmarks.peers``.
        options: Of the script.
        works: That it does.
        shared: The cores are given to so many processes ("processes"), or threads of one ("threads"); "one": it has
            one thread.
        needs: Library that may live in another environment.
        device: Of torch.
    """

    script: str
    options: tuple[str, ...] = ()
    works: tuple[str, ...]
    shared: str = "processes"
    needs: str | None = None
    device: str = "cpu"


_TRAINED = ("lr-mnist", "cifar10", "cifar10-plain")
_CLIENT_APPS = ("overhead", "lr-mnist", "cifar10")
_ALL = ("overhead", *_TRAINED, "thousand", "million")
_GRID = "hedgerow_grid"

SYSTEMS: Mapping[str, System] = {
    OURS: System(script=_GRID, options=("--system", "auto"), works=_ALL),
    "flower-ray": System(script="ray_flower", works=(*_CLIENT_APPS, "thousand"), needs="ray"),
    "flower-ray, model kept": System(
        script="ray_flower", options=("--keep-model",), works=("lr-mnist", "cifar10", "thousand"), needs="ray"
    ),
    "pfl, 1 process": System(script="pfl_research", works=(*_CLIENT_APPS, *_ALL[-2:]), shared="threads", needs="pfl"),
    "pfl": System(script="pfl_research", works=_ALL, needs="pfl"),
    "hedgerow, every update": System(script=_GRID, options=("--system", "each"), works=(*_CLIENT_APPS, "thousand")),
    "hedgerow vectorized": System(
        script=_GRID,
        options=("--system", "vectorized"),
        works=("lr-mnist", "cifar10-plain", "thousand"),
        shared="threads",
    ),
    "hedgerow workers": System(script=_GRID, options=("--system", "workers"), works=("lr-mnist", "thousand")),
    "hedgerow sequential": System(
        script=_GRID, options=("--system", "sequential"), works=("lr-mnist", "cifar10", "thousand"), shared="threads"
    ),
    "hedgerow in-process": System(
        script=_GRID, options=("--system", "in-process"), works=_CLIENT_APPS, shared="threads"
    ),
    "hedgerow processes": System(script=_GRID, options=("--system", "processes"), works=_CLIENT_APPS),
    "plain loop, 1 thread": System(script=_GRID, options=("--system", "loop"), works=_CLIENT_APPS[1:], shared="one"),
    "plain loop": System(script=_GRID, options=("--system", "loop"), works=("cifar10",), shared="threads"),
    f"{OURS} cuda": System(script=_GRID, options=("--system", "auto"), works=_CLIENT_APPS[1:], device="cuda"),
    "flower-ray cuda": System(script="ray_flower", works=("cifar10",), needs="ray", device="cuda"),
    "pfl, 1 process cuda": System(script="pfl_research", works=("cifar10",), shared="one", needs="pfl", device="cuda"),
    "pfl cuda": System(script="pfl_research", works=("cifar10",), needs="pfl", device="cuda"),
}
"""Name -> how it is run. ``hedgerow`` chooses its engine by itself."""


def command_of(system: System, work: str, rounds: int | None, python: str, cores: int) -> tuple[list[str], int]:
    """Return the command line, and the threads that each of its processes may use."""
    processes = cores if system.shared == "processes" else 1
    # Our own choice of engine may be one process with threads, or single-threaded processes.
    chooses = system.script == _GRID and system.options[1] in {"auto", "each"}
    threads = cores if (system.shared == "threads" or chooses) and not WORKS[work].light else 1
    module = f"benchmarks.peers.{system.script}"
    start = [python, "-m", module]
    if system.script == "pfl_research" and processes > 1:
        launcher = ["torch.distributed.run", "--standalone", "--nnodes=1", f"--nproc_per_node={processes}"]
        start = [python, "-m", *launcher, "-m", module]
    options = [*system.options, "--work", work, "--processes", str(processes), "--threads", str(threads)]
    chosen = [*options, "--device", system.device, *(["--rounds", str(rounds)] if rounds else [])]
    return [*start, *chosen], threads


def measure(command: Sequence[str], threads: int, device: str) -> tuple[dict[str, Any] | None, str]:
    """Run one process; return what it reports, or None and the reason."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part),
        "PFL_PYTORCH_DEVICE": device,
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    try:
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except FileNotFoundError:
        return None, f"expected a Python at {command[0]}, found no such file"
    except subprocess.TimeoutExpired:
        return None, f"it took more than {TIMEOUT_S} s"
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
        errors = [line for line in said if "Error" in line]
        return None, f"it ended with {done.returncode}: {(errors or said)[-1].strip()[:300]}"
    found: dict[str, Any] = json.loads(lines[-1])
    return found, ""


def device_of() -> dict[str, Any]:
    """Return what the figures depend on."""
    import torch

    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": cores(),
        "load_before": round(os.getloadavg()[0], 2),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _python_of(system: System, chosen: argparse.Namespace) -> tuple[str | None, str]:
    """Return the Python that runs the system, or None and why there is none."""
    own: str | None = {"ray": chosen.ray_python, "pfl": chosen.peer_python}.get(system.needs or "", sys.executable)
    if own:
        return own, ""
    if system.needs is None or importlib.util.find_spec(system.needs) is not None:
        return sys.executable, ""
    option = _ENVIRONMENTS[system.needs]
    return (
        None,
        f"{system.needs} is not installed here; give {option}, as docs/benchmarks-simulation.md says",
    )


def rows_of(chosen: argparse.Namespace, *, has_cuda: bool) -> list[dict[str, Any]]:
    """Measure everything that was chosen, and say on the standard error what is done."""
    rows = []
    for work in WORKS:
        for name, system in SYSTEMS.items():
            if work not in system.works or work not in chosen.work or name not in chosen.system:
                continue
            python, reason = _python_of(system, chosen)
            figures = None
            if system.device == "cuda" and not has_cuda:
                reason = "there is no CUDA device"
            elif python is not None:
                command, threads = command_of(system, work, chosen.rounds, python, cores())
                figures, reason = measure(command, threads, system.device)
            if figures is None:
                rows.append(missing_row(work, name, reason))
                sys.stderr.write(f"{work:<20}{name:<24}not run: {reason}\n")
                continue
            row = measured_row(work, name, WORKS[work].cohort, figures)
            rows.append(row)
            sys.stderr.write(f"{line_of(row)}\n")
            sys.stderr.flush()
    return rows


def line_of(row: Mapping[str, Any]) -> str:
    """Return a row for people."""
    if "not_run" in row:
        return f"{row['work']:<20}{row['system']:<24}not run: {row['not_run']}"
    times = f"{row['round_ms']:>11.2f} ms a round {row['clients_per_s']:>10.1f} clients/s"
    return f"{row['work']:<20}{row['system']:<24}{times}  accuracy {row['accuracy']:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description="Compare simulators.")
    works = [*WORKS, THROUGHPUT]
    parser.add_argument("--json", action="store_true", help="print one JSON object, the last line of stdout")
    parser.add_argument("--work", action="append", choices=works, help="only this; may be given again")
    parser.add_argument("--system", action="append", choices=[*SYSTEMS], help="only this; may be given again")
    parser.add_argument("--rounds", type=int, help="instead of each work's own")
    parser.add_argument("--peer-python", help="Python of an environment with pfl and torch")
    parser.add_argument("--ray-python", help="Python of an environment with Hedgerow and ray")
    chosen = parser.parse_args(arguments)
    chosen.work, chosen.system = chosen.work or works, chosen.system or [*SYSTEMS]
    device = device_of()
    rows = rows_of(chosen, has_cuda=device["cuda"] is not None)
    result: dict[str, Any] = {"device": device, "rows": rows, "ratios": ratios(rows), "bars": bars(rows)}
    if THROUGHPUT in chosen.work:
        command = [sys.executable, "-m", "benchmarks.simulation_roofline", "--json"]
        roofline, reason = measure(command, cores(), "cpu")
        result["roofline"] = {"not_run": reason} if roofline is None else roofline
    device["load_after"] = round(os.getloadavg()[0], 2)
    if chosen.json:
        print(json.dumps(result))
        return 0
    print("\n".join(line_of(row) for row in rows))
    for name, bar in result["bars"].items():
        print(f"{name:<32}{bar['value']!s:>16}  {bar['bar']:<10}{'' if bar['met'] is None else bar['met']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
