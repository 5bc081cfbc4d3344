"""What a model's outputs say of each sample, and how good that was. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Output, Outputs
from hedgerow.outputs.outputs import Arrays
from hedgerow.task import Task

__all__ = ["ToldSamples", "tell"]

_OWN_WORDS = frozenset({"sample", "step", "wanted", "outputs"})
"""What stands beside the answers to a sample in a file of them; a value may be called so, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldSamples:
    """What was said of each sample; with state of each step, one row after the other.

    Attributes:
        rows: How many.
        steps: How many rows are one sequence; 1: each stands alone.
        answers: What people read -> one value a row, as :meth:`hedgerow.outputs.Outputs.told` has it (``label``,
            ``index`` and ``confidence`` of classes), with several outputs as ``NAME.label`` and so on, as those of
            one are whose values are called as what stands beside them; and ``wanted`` where target values were given.
        outputs: Output name -> ``float32[rows, *shape]``.
        metrics: Of the rows whose target values are known.
        scored: How many those are.
    """

    rows: int
    steps: int
    answers: Mapping[str, list[Any]]
    outputs: Mapping[str, NDArray[Any]]
    metrics: Mapping[str, float]
    scored: int


def tell(
    schema: ModelSchema,
    outputs: Arrays,
    wanted: Arrays | None,
    *,
    steps: int = 1,
    task: Task | None = None,
) -> ToldSamples:
    """Return what outputs say.

    Args:
        schema: Of the model.
        outputs: What it gave, without state, each ``(rows, *shape)``.
        wanted: Target values by output, each ``(rows, ...)``; None: none is known.
        steps: How many rows are one sequence.
        task: Whose metrics are measured, too, and whose scores where the schema's outputs cannot score.
    """
    kinds = schema.answers if schema.answers.can_score or task is None else task.answers
    rows = len(next(iter(outputs.values())))
    answers: dict[str, list[Any]] = {}
    metrics: dict[str, float] = {}
    scored = 0
    for name, output in kinds.items():
        told = [output.told(row) for row in outputs[name]]
        is_plain = len(kinds) == 1 and not (told and _OWN_WORDS & told[0].keys())
        prefix = "" if is_plain else f"{name}."
        answers |= {prefix + key: [each[key] for each in told] for key in (told[0] if told else ())}
        if wanted is not None:
            answers[f"{prefix}wanted"] = _wanted(output, wanted[name])
    if wanted is not None:
        metrics, scored = _measured(kinds, outputs, wanted, task)
    return ToldSamples(
        rows=rows,
        steps=steps,
        answers=answers,
        outputs=dict(outputs),
        metrics={name: value for name, value in metrics.items() if np.isfinite(value)},
        scored=scored if metrics else 0,
    )


def _measured(kinds: Outputs, outputs: Arrays, wanted: Arrays, task: Task | None) -> tuple[dict[str, float], int]:
    known = kinds.known(wanted)
    if not known.any():
        return {}, 0
    given, right = ({name: values[known] for name, values in arrays.items()} for arrays in (outputs, wanted))
    found = kinds.metrics(given, right)
    # Rows are what they are: a step of a sequence, too, is a sample by itself here.
    for name, metric in task.metrics.items() if task is not None else ():
        parts = (arrays if len(kinds) > 1 else next(iter(arrays.values())) for arrays in (given, right))
        found[name] = float(metric(*parts))
    return found, int(known.sum())


def _wanted(output: Output, values: NDArray[Any]) -> list[Any]:
    """Return target values as people read them: one of several by its name, numbers as they are, None where unknown."""
    names, known = output.part_names, output.is_known(values).tolist()
    if names and values.dtype.kind == "i" and not output.target_shape:
        return [names[value] if is_known else None for value, is_known in zip(values.tolist(), known, strict=True)]
    return [value if is_known else None for value, is_known in zip(values.tolist(), known, strict=True)]
