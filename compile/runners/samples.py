"""Predict samples one after the other through whatever runs a file, from and to real numbers. Pure.

Every runtime is fed here, so that all of them are asked in the same way: one sample a call, in the file's own
dimensions, and with state carried from call to call where the file has any.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.errors import ModelFileError
from hedgerow.compile.pass_models import CompiledModel
from hedgerow.manifest.content import Tensor
from hedgerow.tensor_border import from_stored, is_whole, one_sample, to_stored

__all__ = ["Run", "Values", "predict_samples", "rows_of"]

Values = NDArray[np.generic]
Run = Callable[[Mapping[str, Values]], Mapping[str, Values]]
"""From inputs by the file's names, stored, to outputs likewise."""


def rows_of(stage: CompiledModel) -> dict[str, Any]:
    """Return how the rows of a file are run one by one, each with the state that it has itself."""
    return {"state": stage.state, "carries": False}


def predict_samples(
    run: Run,
    taken: Sequence[Tensor],
    given: Sequence[Tensor],
    inputs: Mapping[str, Values],
    *,
    state: Mapping[str, str] | None = None,
    steps: int = 1,
    carries: bool = True,
) -> dict[str, NDArray[np.float32]]:
    """Return all outputs for all samples.

    Args:
        run: Makes one prediction.
        taken: The file's inputs.
        given: Its outputs, or some of them.
        inputs: Schema name -> ``(n, *shape)``, in real numbers.
        state: Input -> the output of the call before that it takes; at the start of each sequence it takes what
            *inputs* has.
        steps: How many samples after one another are a sequence.
        carries: Whether each step takes the state of the call before; else the one that *inputs* has for it.

    Returns:
        Schema name -> ``float32[n, ...]``.

    Raises:
        ModelFileError: An output has another size for one sample than for another.
    """
    pairs = dict(state or {})
    # State has its batch where the model wants it; the other tensors have it in front, or not at all.
    whole = is_whole([tensor for tensor in taken if tensor.name not in pairs], inputs)
    is_row = {tensor.name: not whole for tensor in given}
    is_row |= {pairs[t.name]: not is_whole([t], inputs) for t in taken if t.name in pairs}
    rows: dict[str, list[NDArray[np.float32]]] = {tensor.name: [] for tensor in given}
    carried: dict[str, Values] = {}
    for place in range(len(next(iter(inputs.values())))):
        if place % steps == 0:
            carried = {}
        samples = {t.name: carried.get(t.name, one_sample(inputs[t.name], place, t)) for t in taken}
        found = run({t.tensor: to_stored(samples[t.name], t) for t in taken})
        real = {t.name: np.asarray(from_stored(found[t.tensor], t)) for t in given}
        if carries:
            carried = {into: real[out] for into, out in pairs.items()}
        for name, values in real.items():
            row = values.astype(np.float32)
            rows[name].append(row if is_row[name] else row[None])
    return {name: _joined(name, parts) for name, parts in rows.items()}


def _joined(name: str, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    shapes = sorted({part.shape for part in parts})
    if len(shapes) > 1 or len(parts[0]) != 1:
        found = " and ".join(map(str, shapes[:2])) if len(shapes) > 1 else f"{shapes[0]} for one"
        raise ModelFileError(name, "an output of one size for every sample", found)
    return np.concatenate(parts)
