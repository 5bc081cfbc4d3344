"""Flower's simulation through Ray: ``run_simulation`` with actors of one CPU each. Needs flwr and the ray it wants."""

import os
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from benchmarks.peers.flower_client import make_client_app
from benchmarks.peers.flower_strategy import TimedFedAvg
from benchmarks.peers.report import Clock, parser_of, work_of, write_report
from benchmarks.peers.works import Work, accuracy, load_samples, make_network


def run(work: Work, actors: int, device: str, *, keeps_model: bool) -> dict[str, Any]:
    """Train with *actors* actors; they share one GPU when *device* is one."""
    _train, held_out = load_samples(work)
    network = make_network(work.network)
    found: dict[str, Any] = {}
    clock = Clock(work)
    server = ServerApp()

    @server.main()
    def main(grid: Grid, _context: Context) -> None:
        strategy = TimedFedAvg(work, clock)
        rounds = work.warm_up + work.rounds
        found["arrays"] = strategy.start(grid, ArrayRecord(network.state_dict()), num_rounds=rounds).arrays

    share = 0.9 / actors if device == "cuda" else 0.0
    run_simulation(
        server,
        make_client_app(work.name, device, keeps_model=keeps_model),
        work.clients,
        backend_config={
            "init_args": {"num_cpus": actors, "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": share},
        },
    )
    network.load_state_dict(found["arrays"].to_torch_state_dict())
    return {**clock.figures(), "accuracy": accuracy(network, held_out)}


def main() -> None:
    """Measure."""
    parser = parser_of("ray_flower", "Flower's Ray simulation")
    parser.add_argument("--keep-model", action="store_true", help="one model an actor, not one a message")
    chosen = parser.parse_args()
    # Ray pickles what is imported by name; its actors must find this checkout.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    torch.set_num_threads(chosen.threads)
    found = run(work_of(chosen), chosen.processes, chosen.device, keeps_model=chosen.keep_model)
    write_report(found, ("flwr", "ray"))


if __name__ == "__main__":
    main()
