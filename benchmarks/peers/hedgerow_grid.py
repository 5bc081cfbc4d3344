"""Hedgerow's simulator: Flower's FedAvg, unchanged, on our grids; or a plain loop over clients without any."""

import contextlib
import functools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord

from benchmarks.peers.flower_client import make_client_app
from benchmarks.peers.flower_strategy import TimedFedAvg
from benchmarks.peers.report import Clock, parser_of, peak_rss_bytes, work_of, write_report
from benchmarks.peers.works import (
    CLASSES,
    NETWORKS,
    Samples,
    Work,
    accuracy,
    load_samples,
    make_network,
    owned_by,
    shards,
)
from hedgerow.local_work import LocalWork
from hedgerow.schema import TensorSpec
from hedgerow.server.cohort.clients import ClientIndex, ClientSlices, DrawnClients
from hedgerow.server.cohort.engine import CohortEngine
from hedgerow.server.cohort.null import NullEngine
from hedgerow.server.flower import numpy_arrays
from hedgerow.server.grids.cohort import CohortGrid
from hedgerow.server.grids.in_process import InProcessGrid
from hedgerow.server.local_steps import LocalTrainer
from hedgerow.task import Dataset, LocalTraining, Task, TaskData

SYSTEMS = ("auto", "each", "vectorized", "workers", "sequential", "in-process", "processes", "loop")


def task_of(work: Work, train: Samples, held_out: Samples) -> Task:
    """Return the work as a task."""
    network, shape = NETWORKS[work.network]
    parts = [Dataset({"x": part.inputs}, part.labels) for part in (train, held_out)]
    return Task(
        name=work.name,
        inputs=[TensorSpec("x", shape)],
        labels=[str(label) for label in range(CLASSES)],
        model=network,
        data=lambda: TaskData(train=parts[0], held_out=parts[1]),
        local=LocalTraining(learning_rate=work.learning_rate, batch_size=work.batch_size, epochs=max(work.epochs, 1)),
    )


def clients_of(work: Work, train: Samples) -> ClientIndex:
    """Return who owns what."""
    if work.drawn:
        return DrawnClients(work.clients, len(train.labels), work.samples)
    dealt = shards(work, train.labels)
    return ClientSlices(dealt.reshape(-1), np.arange(0, dealt.size + 1, work.samples))


def _engine(
    name: str, work: Work, task: Task, train: Dataset, clients: ClientIndex, device: str, workers: int
) -> CohortEngine:
    if work.epochs == 0:
        return NullEngine(clients)
    from hedgerow.server.cohort.engines import build_engine

    return build_engine(name, task, train, clients, device=device, workers=workers)


@contextlib.contextmanager
def _grid(system: str, work: Work, samples: tuple[Samples, Samples], processes: int, device: str) -> Iterator[Any]:
    if system == "in-process":
        yield InProcessGrid(make_client_app(work.name, device), work.clients)
        return
    if system == "processes":
        from hedgerow.server.grids.processes import ProcessGrid

        client_app = functools.partial(make_client_app, work.name, device)
        with ProcessGrid(client_app, work.clients, workers=processes) as grid:
            yield grid
        return
    task, clients = task_of(work, *samples), clients_of(work, samples[0])
    data = task.data()
    name = "auto" if system == "each" else system
    with contextlib.closing(_engine(name, work, task, data.train, clients, device, processes)) as engine:
        yield CohortGrid(task, data, clients, engine, partial_sums=system != "each")


def run(work: Work, system: str, processes: int, device: str) -> dict[str, Any]:
    """Train on a grid."""
    samples = load_samples(work)
    network = make_network(work.network)
    random.seed(0)  # Flower draws cohorts from it
    clock = Clock(work)
    with _grid(system, work, samples, processes, device) as grid:
        made_s = clock.elapsed_s()
        strategy = TimedFedAvg(work, clock)
        result = strategy.start(grid, ArrayRecord(network.state_dict()), num_rounds=work.warm_up + work.rounds)
        peak = peak_rss_bytes()
        engine = getattr(getattr(grid, "engine", None), "name", grid.kind)
    arrays = numpy_arrays(result.arrays)
    network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    found = accuracy(network, samples[1])
    return {**clock.figures(), "accuracy": found, "engine": engine, "grid_made_s": made_s, "peak_rss_bytes": peak}


def run_loop(work: Work) -> dict[str, Any]:
    """Train clients one after the other, without grid and strategy: the loop that one would write by hand."""
    train, held_out = load_samples(work)
    task, owned, draws = task_of(work, train, held_out), owned_by(work, train.labels), random.Random(0)
    network = make_network(work.network)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    clock = Clock(work)
    trainer, data = LocalTrainer(task), task.data().train
    for number in range(1, work.warm_up + work.rounds + 1):
        sums = {name: np.zeros_like(array) for name, array in weights.items()}
        for client in draws.sample(range(work.clients), work.cohort):
            local = LocalWork(
                epochs=work.epochs,
                learning_rate=work.learning_rate,
                batch_size=work.batch_size,
                round=number,
                client=str(client),
            )
            trained = trainer.train(weights, data.take(owned(client)), local)[0] if work.epochs else weights
            for name, array in trained.items():
                sums[name] += array
        weights = {name: array / np.float32(work.cohort) for name, array in sums.items()}
        clock.lap()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return {**clock.figures(), "accuracy": accuracy(network, held_out)}


def main() -> None:
    """Measure."""
    parser = parser_of("hedgerow_grid", "Hedgerow's simulator")
    parser.add_argument("--system", required=True, choices=SYSTEMS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    work = work_of(chosen)
    loop = chosen.system == "loop"
    figures = run_loop(work) if loop else run(work, chosen.system, chosen.processes, chosen.device)
    write_report(figures, ("flwr",))


if __name__ == "__main__":
    main()
