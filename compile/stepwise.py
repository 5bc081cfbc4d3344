"""Sequences of a task with state as rows of single steps, in which each step has the state that the model was in.

Passes, quantizers and gates work on rows. A row of calibration has a real state, so that ranges of state come from what
the model really remembers and not from zeros; whoever measures a file carries the file's own state instead.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.golden import GOLDEN_SAMPLES
from hedgerow.compile.pass_models import CompiledModel
from hedgerow.manifest.content import Tensor
from hedgerow.task import Dataset, Task

__all__ = ["as_rows", "golden_steps", "state_ends", "with_state"]

_GOLDEN_STEPS = 8


def as_rows(task: Task, data: Dataset, state: Mapping[str, NDArray[np.float32]] | None = None) -> Dataset:
    """Return the steps of sequences one after the other.

    Args:
        task: Has state.
        data: Sequences ``(n, steps, *shape)``.
        state: Name -> what the model took at each step, ``(n, steps, *shape)``; None: the rows have no state.
    """
    steps, wanted = next(iter(data.inputs.values())).shape[1], task.rows(task.wanted(data))
    return Dataset(
        task.rows({**data.inputs, **(state or {})}),
        wanted if len(wanted) > 1 else next(iter(wanted.values())),
        {name: np.repeat(values, steps, axis=0) for name, values in data.columns.items()},
    )


def golden_steps(rows: int, steps: int) -> tuple[NDArray[np.int64], int]:
    """Return the places of the rows that golden samples are made of, and how many after one another are a sequence.

    They are the first steps of sequences that are spread evenly.

    Args:
        rows: How many there are.
        steps: Rows of one sequence.
    """
    length = min(steps, _GOLDEN_STEPS)
    sequences = rows // steps
    count = max(1, min(sequences, GOLDEN_SAMPLES // length))
    begins = np.arange(count) * sequences // count * steps
    return (begins[:, None] + np.arange(length)).reshape(-1), length


def with_state(
    inputs: Mapping[str, NDArray[np.generic]],
    outputs: Mapping[str, NDArray[np.generic]],
    state: Mapping[str, str],
    steps: int,
) -> dict[str, NDArray[np.generic]]:
    """Return inputs in which state is what it was: zero at the start of each sequence, then the output before.

    So each row stands alone, too.

    Args:
        inputs: Schema name -> ``(n, *shape)``.
        outputs: What the file gave for them.
        state: Input -> the output that it takes.
        steps: How many rows are a sequence.
    """
    found = dict(inputs)
    for into, out in state.items():
        carried = np.array(inputs[into])
        begins = np.arange(len(carried)) % steps == 0
        carried[1:][~begins[1:]] = outputs[out].reshape(carried.shape)[:-1][~begins[1:]].astype(carried.dtype)
        found[into] = carried
    return found


def state_ends(stage: CompiledModel) -> dict[str, tuple[str, str]]:
    """Return how a file stores each state where it goes in and where it comes out, in words."""
    taken = {tensor.name: tensor for tensor in stage.inputs}
    given = {tensor.name: tensor for tensor in stage.outputs}
    return {into: (_stored(taken[into]), _stored(given[out])) for into, out in stage.state.items()}


def _stored(tensor: Tensor) -> str:
    scale = "" if tensor.scale is None else f" x {tensor.scale:g} from {tensor.zero_point}"
    return f"{tensor.dtype}{list(tensor.shape)}{scale}"
