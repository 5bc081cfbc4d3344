"""Throughput of our engines against the size of cohort and model, and how far from the machine's limits it is.

``python -m benchmarks.simulation_roofline --json --plot docs/simulation-throughput.svg`` measures the limits (matrix
products, copies), then clients per second of each engine; ``--from FILE`` draws an earlier result without measuring.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers.hedgerow_grid import task_of
from benchmarks.peers.works import CLASSES, NETWORKS, Samples, Work, make_network
from benchmarks.simulation_plot import draw

__all__ = ["main"]

COHORTS = (1, 4, 16, 64, 256)
ENGINES = ("vectorized", "workers", "sequential")
BATCH, STEPS = 10, 5
STACK_LIMIT_BYTES, WORK_LIMIT_FLOPS = 2**30, 10**11
"""Of one cohort's weights and of its round: larger combinations are left out."""
LIGHT_STEP_FLOPS = 10**7
"""Up to here more threads of one process gain nothing, and lose much when anything else runs."""
_SECONDS, _REPEATS = 0.4, 3
_DRAM_FLOATS, _CACHE_FLOATS, _GEMM = 2**26, 2**15, 1536


def _seconds(call: Callable[[], object], at_least_s: float = _SECONDS) -> float:
    """Return the least time of a call over some seconds: others may use the machine meanwhile."""
    call()
    taken: list[float] = []
    while sum(taken) < at_least_s or len(taken) < _REPEATS:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def limits(threads: int) -> dict[str, float]:
    """Return FLOP/s of a large float32 matrix product, and bytes/s of copies in memory and in one core's cache."""
    torch.set_num_threads(threads)
    left, right = torch.randn(_GEMM, _GEMM), torch.randn(_GEMM, _GEMM)
    far, near = torch.zeros(_DRAM_FLOATS), torch.zeros(_CACHE_FLOATS)
    far_copy, near_copy = torch.zeros_like(far), torch.zeros_like(near)
    # Long enough that the call itself does not count; a copy this small is one thread's.
    repeats = 200

    def copy_near() -> None:
        for _ in range(repeats):
            near_copy.copy_(near)

    product_s = _seconds(lambda: torch.mm(left, right))
    return {
        "threads": threads,
        "flops_per_s": 2 * _GEMM**3 / product_s,
        "bytes_per_s": 8 * _DRAM_FLOATS / _seconds(lambda: far_copy.copy_(far)),
        "cache_bytes_per_s": threads * repeats * 8 * _CACHE_FLOATS / _seconds(copy_near),
    }


class _Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, as if each fetched its operands anew."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        """Count one operation; views move nothing."""
        del types
        result = function(*arguments, **(named or {}))
        if not function.is_view:
            for value in torch.utils._pytree.tree_leaves((arguments, result)):  # noqa: SLF001 - torch has no public one
                self.bytes += value.nbytes if isinstance(value, torch.Tensor) else 0
        return result


def step_cost(network: str) -> dict[str, float]:
    """Return FLOPs and bytes of one plain SGD step of one client, and the model's parameters."""
    model = make_network(network)
    inputs, labels = torch.randn(BATCH, *NETWORKS[network][1]), torch.zeros(BATCH, dtype=torch.int64)
    traffic = _Traffic()
    with FlopCounterMode(display=False) as flops, traffic:
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(parameter.grad, alpha=0.1)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "flops": flops.get_total_flops(), "bytes": traffic.bytes}


def _measure_engine(engine_name: str, network: str, cohorts: Sequence[int]) -> list[dict[str, Any]]:
    from hedgerow.local_work import LocalWork
    from hedgerow.server.cohort.clients import DrawnClients
    from hedgerow.server.cohort.engines import build_engine

    work = Work(
        name=network, about="", network=network, data="noise", clients=max(cohorts), cohort=0, samples=BATCH * STEPS,
        batch_size=BATCH, learning_rate=0.01, rounds=0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    count = 2000
    values = rng.normal(size=(count, *NETWORKS[network][1])).astype(np.float32)
    samples = Samples(values, rng.integers(0, CLASSES, count))
    task = task_of(work, samples, samples)
    weights = {name: tensor.detach() for name, tensor in make_network(network).state_dict().items()}
    local = LocalWork(round=1, seed=0, epochs=1, learning_rate=0.01, batch_size=BATCH)
    clients = DrawnClients(max(cohorts), count, work.samples)
    engine = build_engine(engine_name, task, task.data().train, clients, workers=len(os.sched_getaffinity(0)))
    found = []
    try:
        for cohort in cohorts:
            chosen = list(range(cohort))
            taken_s = _seconds(lambda chosen=chosen: list(engine.train(weights, chosen, local, each=False)))
            found.append(
                {"engine": engine_name, "network": network, "cohort": cohort, "clients_per_s": cohort / taken_s}
            )
    finally:
        engine.close()
    return found


def measure(networks: Sequence[str], engines: Sequence[str]) -> dict[str, Any]:
    """Return limits, costs and points, and say on the standard error what is done."""
    cores = len(os.sched_getaffinity(0))
    machine = [limits(1), limits(cores)]
    costs = {network: step_cost(network) for network in networks}
    points: list[dict[str, Any]] = []
    for network, cost in costs.items():
        torch.set_num_threads(cores if cost["flops"] > LIGHT_STEP_FLOPS else 1)
        most = min(STACK_LIMIT_BYTES / (4 * cost["parameters"]), WORK_LIMIT_FLOPS / (STEPS * cost["flops"]))
        cohorts = [cohort for cohort in COHORTS if cohort <= most]
        for engine in engines:
            for point in _measure_engine(engine, network, cohorts):
                point["flops_per_s"] = point["clients_per_s"] * STEPS * cost["flops"]
                point["flops_per_byte"] = cost["flops"] / cost["bytes"]
                points.append(point)
                rate = f"{point['clients_per_s']:>10.1f} clients/s {point['flops_per_s'] / 1e9:>8.2f} GFLOP/s"
                sys.stderr.write(f"{network:<16}{engine:<12}{point['cohort']:>5} {rate}\n")
    return {"limits": machine, "costs": costs, "points": points}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, draw, print."""
    names = [name for name in NETWORKS if name not in {"thousand", "cnn"}]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation_roofline", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object, the last line of stdout")
    parser.add_argument("--plot", type=Path, help="draw into this file (.svg or .png)")
    parser.add_argument("--from", dest="earlier", type=Path, help="a file with an earlier --json result")
    parser.add_argument("--network", action="append", choices=names, help="only this; may be given again")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="only this; may be given again")
    chosen = parser.parse_args(arguments)
    if chosen.earlier is not None:
        result = json.loads(chosen.earlier.read_text().splitlines()[-1])
        result = result.get("roofline", result)
    else:
        result = measure(chosen.network or names, chosen.engine or ENGINES)
    if chosen.plot is not None:
        draw(result, chosen.plot)
    if chosen.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
