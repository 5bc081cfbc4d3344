"""Train graphs of the zoo against torch: the largest differences after one step and after many."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch

from hedgerow.compile.errors import CompileError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.train_graph.export import export_train_graph
from hedgerow.compile.train_graph.options import StepOptions
from hedgerow.compile.train_graph.parity import (
    FORMATS,
    MANY_STEPS_LIMIT,
    ONE_STEP_LIMIT,
    compare,
    rounding_growth,
)
from hedgerow.examples.zoo import ZOO
from hedgerow.task import load_task

__all__ = ["ZooParity", "zoo_parity"]

_BATCHES = 4
_AS_TORCH_ITSELF = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooParity:
    """One train graph of the zoo.

    Attributes:
        model, format: Which.
        one_step: Largest absolute difference of loss and weights from torch after one step; None: there is no graph.
        many_steps: After *steps*, a tensor's largest difference over its largest number, the worst of all tensors.
        torch_alone: So far torch ends from itself when each weight begins at the next number above or below it.
        steps: How many were taken.
        bytes: Of the file.
        export_s: Seconds that making it took.
        refused: Why there is none.
        passed: Whether both differences are within the limits of docs/train-graph.md; the second may be ten times
            *torch_alone*, where training blows rounding up so much.
    """

    model: str
    format: str
    one_step: float | None = None
    many_steps: float | None = None
    torch_alone: float | None = None
    steps: int = 0
    bytes: int | None = None
    export_s: float | None = None
    refused: str | None = None
    passed: bool = False


def zoo_parity(names: Sequence[str], formats: Sequence[str] = FORMATS, steps: int = 100) -> Iterator[dict[str, object]]:
    """Yield a row for each model and format; a model begins with random weights, as in its first round.

    Args:
        names: Of models of the zoo.
        formats: ``onnx``, ``tflite``.
        steps: How many are taken with each.
    """
    for name in names:
        task = load_task(ZOO[name].task)
        data = task.load_data().train.take(range(_BATCHES * task.local.batch_size))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            source = FloatModel(task=task, model=task.model().eval(), calibration=data)
        for kind in formats:
            yield asdict(_row(name, source, kind, steps))


def _row(name: str, source: FloatModel, kind: str, steps: int) -> ZooParity:
    begun = time.perf_counter()
    try:
        # LiteRT's converter tells its progress on the standard output.
        with contextlib.redirect_stdout(sys.stderr):
            file = export_train_graph(source, kind)
    except CompileError as exc:
        return ZooParity(model=name, format=kind, refused=" ".join(str(exc).split())[:300])
    export_s = time.perf_counter() - begun
    one, many, _step_ms = compare(source, file, StepOptions(), steps)
    alone = rounding_growth(source, file, StepOptions(), steps)
    return ZooParity(
        model=name,
        format=kind,
        one_step=one,
        many_steps=many,
        torch_alone=alone,
        steps=steps,
        bytes=len(file.content),
        export_s=round(export_s, 1),
        passed=one <= ONE_STEP_LIMIT and many <= max(MANY_STEPS_LIMIT, _AS_TORCH_ITSELF * alone),
    )
