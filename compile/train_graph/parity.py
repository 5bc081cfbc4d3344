"""Compare train graphs with torch, step by step, over every layer, loss and optimizer.

::

    python -m hedgerow.compile.train_graph.parity                   # a table of all cases in both formats
    python -m hedgerow.compile.train_graph.parity --case gru --json
"""

import contextlib
import copy
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.compile.errors import PassError, UntranslatableError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.train_graph.cases import CASES, make_source
from hedgerow.compile.train_graph.export import TrainFile, as_loss_takes, export_train_graph, open_step, start_values
from hedgerow.compile.train_graph.options import StepOptions
from hedgerow.compile.train_graph.torch_training import TorchTraining
from hedgerow.task_module import model_weights

__all__ = ["FORMATS", "Parity", "compare", "measure", "rounding_growth"]

FORMATS = ("onnx", "tflite")
STEPS = 100
ONE_STEP_LIMIT, MANY_STEPS_LIMIT = 1e-5, 1e-3
# A tensor whose numbers are all smaller is compared in this unit: nothing is lost by a relative error in a bias of 0.
_FLOOR = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far one train graph is from torch.

    Attributes:
        case, kind, format: What was compared.
        one_step: Largest absolute difference of loss, weights and state after one step.
        many_steps: After 100 steps: a tensor's largest difference over its largest number, the worst of all tensors.
        size_bytes: Length of the file.
        step_ms: Median time of a step on one thread.
        refused: Why there is no such file, or None.
    """

    case: str
    kind: str
    format: str
    one_step: float | None = None
    many_steps: float | None = None
    size_bytes: int | None = None
    step_ms: float | None = None
    refused: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the graph is there and near enough."""
        if self.one_step is None or self.many_steps is None:
            return False
        return self.one_step <= ONE_STEP_LIMIT and self.many_steps <= MANY_STEPS_LIMIT


def compare(
    source: FloatModel, file: TrainFile, options: StepOptions, steps: int = STEPS
) -> tuple[float, float, float]:
    """Train with the file and with torch side by side.

    Args:
        source: The model, which is not changed, with its samples.
        file: Its train graph.
        options: What the graph was exported with.
        steps: How many to take.

    Returns:
        The difference after one step (absolute), after all (relative), and the median milliseconds of a step.
    """
    rng = np.random.default_rng(1)
    task, model, rate = source.task, copy.deepcopy(source.model), source.task.local.learning_rate
    weights = model_weights(model)
    control = {e.parameter: _draw(rng, e.tensor.shape) for e in file.extras if e.kind == "control" and e.parameter}
    mu = 0.3 if options.proximal else 0.0
    torch_side = TorchTraining(task, model, options, rate, proximal_mu=mu, control=control)
    step, values = open_step(file), start_values(file, weights, rate, proximal_mu=mu, control=control)
    outputs = [(t.tensor, u.tensor) for u in file.updated for t in file.parameters if t.name == u.name]
    outputs += [(extra.tensor.tensor, extra.updated) for extra in file.extras if extra.updated is not None]
    first, seconds = float("inf"), []
    for index, (inputs, wanted) in enumerate(_batches(source, file, options, steps)):
        values |= {t.tensor: inputs[t.name].astype(t.dtype) for t in file.inputs}
        values |= {t.tensor: wanted[t.name].astype(t.dtype) for t in file.targets}
        masks = [extra for extra in file.extras if extra.kind == "mask"]
        for mask in masks:
            values[mask.tensor.tensor] = (rng.random(mask.tensor.shape) < mask.keep).astype(np.float32)
        started = time.perf_counter()
        found = step(values)
        seconds.append(time.perf_counter() - started)
        values |= {before: found[after] for before, after in outputs}
        given = [torch.from_numpy(inputs[spec.name]) for spec in task.inputs]
        kept = [torch.from_numpy(values[mask.tensor.tensor]) for mask in masks]
        loss = torch_side.step(given, as_loss_takes(wanted), kept)
        if index == 0:
            pairs = [*_pairs(file, values, torch_side), (np.asarray(found[file.loss.tensor]), np.asarray(loss))]
            first = _largest(np.abs(one.reshape(-1) - other.reshape(-1)).max() for one, other in pairs)
    last = _largest(
        np.abs(one.reshape(-1) - other.reshape(-1)).max() / max(float(np.abs(other).max()), _FLOOR)
        for one, other in _pairs(file, values, torch_side)
    )
    return first, last, float(np.median(seconds)) * 1000


def rounding_growth(source: FloatModel, file: TrainFile, options: StepOptions, steps: int = STEPS) -> float:
    """Return how far torch ends from itself when each weight begins at the next number above or below it.

    Training can blow rounding up: two engines that round differently then part, and neither is wrong.

    Args:
        source: The model, which is not changed, with its samples.
        file: Its train graph, whose batches and updated tensors are compared.
        options: What the graph was exported with.
        steps: How many to take.

    Returns:
        A tensor's largest difference over its largest number, the worst of all tensors.
    """
    rng, rate = np.random.default_rng(2), source.task.local.learning_rate
    plain, moved = copy.deepcopy(source.model), copy.deepcopy(source.model)
    with torch.no_grad():
        for parameter in moved.parameters():
            towards = rng.choice(np.array([-np.inf, np.inf], dtype=np.float32), size=tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(np.asarray(np.nextafter(parameter.numpy(), towards))))
    both = [TorchTraining(source.task, model, options, rate) for model in (plain, moved)]
    for inputs, wanted in _batches(source, file, options, steps):
        given = [torch.from_numpy(inputs[spec.name]) for spec in source.task.inputs]
        for side in both:
            side.step(given, as_loss_takes(wanted))
    one, other = (side.weights() for side in both)
    return _largest(
        np.abs(one[t.name] - other[t.name]).max() / max(float(np.abs(one[t.name]).max()), _FLOOR) for t in file.updated
    )


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return (0.05 * rng.normal(size=shape)).astype(np.float32)


def _batches(
    source: FloatModel, file: TrainFile, options: StepOptions, steps: int
) -> Iterator[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]:
    data, size = source.calibration, file.batch_size
    for index in range(steps):
        chosen = data.take((np.arange(size) + index * size) % len(data))
        wanted = source.task.wanted(chosen)
        if options.targets == "values":
            rng = np.random.default_rng(index)
            wanted |= {t.name: rng.normal(size=t.shape).astype(np.float32) for t in file.targets}
        yield dict(chosen.inputs), wanted


def _pairs(
    file: TrainFile, values: dict[str, NDArray[Any]], torch_side: TorchTraining
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    wanted = torch_side.weights()
    places = {tensor.name: tensor.tensor for tensor in file.parameters}
    return [
        (values[places[tensor.name]].astype(np.float64), wanted[tensor.name].astype(np.float64))
        for tensor in file.updated
    ]


def _largest(differences: Iterable[Any]) -> float:
    found = [float(difference) for difference in differences]
    # A NaN must not pass as the smallest difference.
    return max(found) if np.isfinite(found).all() else float("inf")


def measure(name: str, kind: str, steps: int = STEPS) -> Parity:
    """Export the case *name* as *kind* and compare it with torch."""
    case = CASES[name]
    source = make_source(case)
    try:
        # LiteRT's converter tells its progress on the standard output.
        with contextlib.redirect_stdout(sys.stderr):
            file = export_train_graph(source, kind, case.options)
    except (PassError, UntranslatableError) as exc:
        return Parity(case=name, kind=case.kind, format=kind, refused=" ".join(str(exc).split())[:300])
    one, many, step_ms = compare(source, file, case.options, steps)
    return Parity(
        case=name,
        kind=case.kind,
        format=kind,
        one_step=one,
        many_steps=many,
        size_bytes=len(file.content),
        step_ms=step_ms,
    )


def _line(parity: Parity) -> str:
    if parity.refused is not None:
        return f"| {parity.case} | {parity.format} | refused | {parity.refused} | | |"
    return (
        f"| {parity.case} | {parity.format} | {parity.one_step:.1e} | {parity.many_steps:.1e} | {parity.size_bytes} | "
        f"{parity.step_ms:.3f} |"
    )


@click.command()
@click.option("--case", "names", multiple=True, type=click.Choice(sorted(CASES)), help="Only this; may be repeated.")
@click.option("--format", "formats", multiple=True, type=click.Choice(FORMATS), help="Only this; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the table.")
def command(names: tuple[str, ...], formats: tuple[str, ...], as_json: bool) -> None:
    """Compare train graphs with torch after 1 and after 100 steps."""
    torch.set_num_threads(1)
    rows = []
    if not as_json:
        click.echo("| case | format | 1 step | 100 steps | bytes | ms a step |\n|---|---|---|---|---|---|")
    for name in names or CASES:
        for kind in formats or FORMATS:
            rows.append(measure(name, kind))
            if not as_json:
                click.echo(_line(rows[-1]))
    if as_json:
        click.echo(json.dumps({"rows": [{**asdict(row), "passed": row.passed} for row in rows]}))
    if not all(row.passed for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    command()
