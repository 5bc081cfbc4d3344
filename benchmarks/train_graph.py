"""Milliseconds of a training step, train graphs against torch eager, taking turns; and the zoo's steps against torch's.

python -m benchmarks.train_graph --json
python -m benchmarks.train_graph --network resnet8 --clock cpu
python -m benchmarks.train_graph --network resnet8 --profile

Prints ``{rows: [{network, batch, engine, threads, step_ms, torch_ms, ratio, step_mib, torch_mib}], parity: [{model,
format, one_step, many_steps, steps, bytes, export_s, refused, passed}]}``: medians, ours over torch's, and what opening
and three steps add to a process's resident memory; and how far the train graph of each model of the zoo is from torch.
``--network`` and ``--zoo`` choose: with one of them alone the other part is left out. ``--profile`` prints where the
TFLite step's time goes instead, ``{network, step_ms, partitions, operators: [{operator, by, count, ms}]}``.
"""

import copy
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from torch import nn

from benchmarks.tflite_profile import by_operator, operator_times, partitions
from benchmarks.zoo_parity import zoo_parity
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.train_graph.export import TrainFile, export_train_graph, open_step, start_values
from hedgerow.compile.train_graph.options import StepOptions
from hedgerow.compile.train_graph.torch_training import TorchTraining
from hedgerow.examples.zoo import ZOO
from hedgerow.schema import TensorSpec
from hedgerow.task import Dataset, LocalTraining, Task, TaskData
from hedgerow.task_module import model_weights, wanted_tensors

BATCH, CLASSES = 16, 10
TURNS, PAUSE_S = 20, 0.1
ENGINES = (("onnx", 1), ("onnx", 4), ("tflite", 1))
OPTIONS = StepOptions(batch_norm="train")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.thread_time}
"""Seconds; ``cpu``: those of the calling thread, for one thread on a machine that others use, too."""


class Block(nn.Module):
    """A residual block of ResNet-8."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.short = nn.Conv2d(before, after, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return torch.relu(self.main(values) + self.short(values))


def resnet8() -> nn.Module:
    """Return MLPerf Tiny's ResNet-8."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES),
    )  # fmt: skip


def mlp() -> nn.Module:
    """Return a network of two layers."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def cnn1d() -> nn.Module:
    """Return a network for signals of three axes."""
    return nn.Sequential(
        nn.Conv1d(3, 16, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(16, 32, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, CLASSES),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "mlp": (mlp, (64,), 1000),
    "cnn1d": (cnn1d, (3, 128), 400),
    "resnet8": (resnet8, (3, 32, 32), 160),
}


def make_source(name: str) -> FloatModel:
    """Return a network with random weights and one batch of noise."""
    model, shape, _repeats = NETWORKS[name]
    rng = np.random.default_rng(0)
    values = rng.normal(size=(BATCH, *shape)).astype(np.float32)
    data = Dataset({"x": values}, rng.integers(0, CLASSES, BATCH, dtype=np.int64))
    task = Task(
        name=name,
        inputs=[TensorSpec("x", shape)],
        labels=[str(label) for label in range(CLASSES)],
        model=model,
        data=lambda: TaskData(train=data, held_out=data),
        local=LocalTraining(learning_rate=0.01, batch_size=BATCH),
    )
    torch.manual_seed(0)
    return FloatModel(task=task, model=model().eval(), calibration=data)


def median_ms(
    steps: tuple[Callable[[], object], Callable[[], object]], repeats: int, now_s: Callable[[], float]
) -> tuple[float, float]:
    """Return the medians of two steps that take turns, some steps at a time.

    The threads of either library go on spinning for some milliseconds after a step and would take the other's cores, so
    each turn begins with a pause and with a step that does not count.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for step, taken in zip(steps, seconds, strict=True):
            time.sleep(PAUSE_S)
            step()
            for _ in range(repeats // TURNS):
                started = now_s()
                step()
                taken.append(now_s() - started)
    return float(np.median(seconds[0])) * 1000, float(np.median(seconds[1])) * 1000


def our_step(source: FloatModel, file: TrainFile, threads: int) -> Callable[[], object]:
    """Open a file, and return what takes a step with it."""
    values = start_values(file, model_weights(source.model), 0.01)
    values[file.inputs[0].tensor] = source.calibration.inputs["x"]
    wanted = source.task.wanted(source.calibration)
    values |= {t.tensor: wanted[t.name].astype(t.dtype) for t in file.targets}
    step = open_step(file, threads)
    return lambda: step(values)


def torch_step(source: FloatModel) -> Callable[[], object]:
    """Return what takes a step with torch eager."""
    training = TorchTraining(source.task, copy.deepcopy(source.model), OPTIONS, 0.01)
    inputs, wanted = torch.from_numpy(source.calibration.inputs["x"]), wanted_tensors(source.task, source.calibration)
    return lambda: training.step([inputs], wanted)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _added_mib(name: str, file: TrainFile | None, threads: int) -> float:
    """Return what opening and three steps add to this process's memory; without a file, torch's."""
    torch.set_num_threads(threads)
    source = make_source(name)
    if file is not None and file.format == "tflite":
        import hedgerow.compile.runners.tflite
    elif file is not None:
        import hedgerow.compile.runners.onnx  # noqa: F401 - what is loaded once is not counted
    before = _resident_bytes()
    step = torch_step(source) if file is None else our_step(source, file, threads)
    for _ in range(3):
        step()
    return (_resident_bytes() - before) / 2**20


def added_mib(name: str, file: TrainFile | None, threads: int) -> float:
    """Return that of a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_added_mib, (name, file, threads))


def measure(name: str, clock: str = "wall") -> list[dict[str, object]]:
    """Return a row for each engine; by the calling thread's time only those of one thread."""
    source, rows = make_source(name), []
    for kind, threads in ENGINES:
        if clock == "cpu" and threads > 1:
            continue
        file = export_train_graph(source, kind, OPTIONS)
        torch.set_num_threads(threads)
        both = (our_step(source, file, threads), torch_step(source))
        ours, torchs = median_ms(both, NETWORKS[name][2], CLOCKS[clock])
        rows.append(
            {
                "network": name,
                "batch": BATCH,
                "engine": kind,
                "threads": threads,
                "step_ms": round(ours, 4),
                "torch_ms": round(torchs, 4),
                "ratio": round(ours / torchs, 3),
                "step_mib": round(added_mib(name, file, threads), 1),
                "torch_mib": round(added_mib(name, None, threads), 1),
            }
        )
    return rows


def profile(name: str) -> dict[str, object]:
    """Return where the TFLite step's time goes, by operator."""
    source = make_source(name)
    file = export_train_graph(source, "tflite", OPTIONS)
    step, _torch = median_ms((our_step(source, file, 1), lambda: None), NETWORKS[name][2], time.thread_time)
    found = by_operator(operator_times(file.content))
    return {"network": name, "step_ms": round(step, 4), "partitions": partitions(file.content), "operators": found}


def _print_profile(found: dict[str, object]) -> None:
    click.echo(f"{found['network']}: a step takes {found['step_ms']} ms, in {found['partitions']} parts of XNNPACK's\n")
    click.echo("| operator | kernel | count | ms |\n|---|---|---|---|")
    rows: list[dict[str, object]] = found["operators"]  # type: ignore[assignment]
    for row in rows:
        click.echo(f"| {row['operator']} | {row['by']} | {row['count']} | {row['ms']} |")


@click.command()
@click.option("--network", "names", multiple=True, type=click.Choice(sorted(NETWORKS)), help="Time only this.")
@click.option("--clock", type=click.Choice(sorted(CLOCKS)), default="wall", show_default=True, help="What is measured.")
@click.option("--profile", "profiled", is_flag=True, help="Print the TFLite step by operator instead.")
@click.option("--zoo", "models", multiple=True, type=click.Choice(list(ZOO)), help="Compare only this one with torch.")
@click.option("--steps", type=click.IntRange(1), default=100, show_default=True, help="Of each model of the zoo.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    names: tuple[str, ...], clock: str, profiled: bool, models: tuple[str, ...], steps: int, as_json: bool
) -> None:
    """Compare train graphs with torch: milliseconds of a step, and the steps of the zoo's models."""
    if profiled and models:
        raise click.UsageError("--profile is of the networks that are timed; leave out --zoo, or --profile")
    if profiled:
        profiles = [profile(name) for name in names or NETWORKS]
        if as_json:
            click.echo(json.dumps({"profiles": profiles}))
            return
        for each in profiles:
            _print_profile(each)
        return
    everything = not (names or models)
    found: dict[str, list[dict[str, object]]] = {
        "rows": [row for name in names or (NETWORKS if everything else ()) for row in measure(name, clock)]
    }
    torch.set_num_threads(1)
    found["parity"] = list(zoo_parity(models or (tuple(ZOO) if everything else ()), steps=steps))
    if as_json:
        click.echo(json.dumps(found))
        return
    for row in (*found["rows"], *found["parity"]):
        click.echo("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
