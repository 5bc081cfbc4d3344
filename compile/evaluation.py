"""How good a model is: its metrics, beside what never looks at the input; for each class and each subgroup."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.fairness import measure_fairness
from hedgerow.compile.scoring import chosen, finite_metrics, mean_score
from hedgerow.outputs import Classified, Outputs
from hedgerow.outputs.outputs import Arrays
from hedgerow.task import Dataset

__all__ = ["MAXIMUM_CLASSES", "baseline", "evaluate", "evaluate_parts"]

MAXIMUM_CLASSES = 100
"""A model of more classes gets no table of classes, which nobody could read."""
_MAXIMUM_GROUPS = 50


def evaluate(
    outputs: Outputs, answers: Arrays, wanted: Arrays, held_out: Dataset, subgroup: str | None
) -> dict[str, Any]:
    """Return a model's evaluation as plain JSON values.

    Args:
        outputs: What the model's outputs are for.
        answers: The model's, of each output ``(n, *shape)``.
        wanted: Target values, as far as they are known.
        held_out: The ``n`` samples.
        subgroup: Column of *held_out* whose values are the subgroups, if any.

    Returns:
        ``samples``; ``metrics``: what people expect to read of each kind of output, where target values are known;
        ``classes``: of outputs that name one class, for each its name, ``support``, ``precision`` (None where it was
        never predicted) and ``recall`` (None where there is no sample); ``confusion`` of such an output, where there
        is one: rows are target values, columns predictions; ``subgroups``: for each value its ``samples`` and mean
        score, called as in metrics; ``fairness``, see :mod:`hedgerow.compile.fairness`.
    """
    tables = _tables(outputs, answers, wanted)
    alone = next(iter(tables.values())) if len(tables) == 1 else None
    groups = _groups(held_out, subgroup)
    fairness = {}
    if groups is not None and alone is not None:
        [name] = tables
        known = groups[outputs[name].is_known(wanted[name])]
        fairness = measure_fairness(alone.names, alone.wanted, alone.given, known)
    return {
        "samples": len(held_out),
        "metrics": _metrics(outputs, answers, wanted),
        **evaluate_parts(outputs, answers, wanted, held_out, subgroup),
        "confusion": _confusion(alone).tolist() if alone is not None and len(alone.names) <= MAXIMUM_CLASSES else [],
        "fairness": fairness,
    }


def evaluate_parts(
    outputs: Outputs, answers: Arrays, wanted: Arrays, held_out: Dataset, subgroup: str | None
) -> dict[str, Any]:
    """Return the ``classes`` and ``subgroups`` of :func:`evaluate` alone, which cost next to nothing."""
    tables = _tables(outputs, answers, wanted)
    classes = [
        {**row, "name": row["name"] if len(tables) == 1 else f"{name}: {row['name']}"}
        for name, table in tables.items()
        if len(table.names) <= MAXIMUM_CLASSES
        for row in _class_rows(table)
    ]
    return {"classes": classes, "subgroups": _subgroups(outputs, answers, wanted, _groups(held_out, subgroup))}


def baseline(outputs: Outputs, trained_on: Arrays, wanted: Arrays) -> dict[str, Any] | None:
    """Return what answers best without looking at the input, in words (``said``), and its ``metrics``.

    Args:
        outputs: What the model's outputs are for.
        trained_on: Target values of the training data.
        wanted: Those of the held-out data.

    Returns:
        None where nobody knows the target values of either.
    """
    known = outputs.known(wanted)
    told = {name: trained_on[name][output.is_known(trained_on[name])] for name, output in outputs.items()}
    if not known.any() or not all(len(told[name]) or output.learns_alone for name, output in outputs.items()):
        return None
    said, answer = outputs.baseline(told)
    answers = {name: np.broadcast_to(value, (int(known.sum()), *value.shape)) for name, value in answer.items()}
    return {"said": said, "metrics": finite_metrics(outputs.metrics(answers, chosen(wanted, known)))}


def _metrics(outputs: Outputs, answers: Arrays, wanted: Arrays) -> Mapping[str, float]:
    known = outputs.known(wanted)
    if not known.any():
        return {}
    return finite_metrics(outputs.metrics(chosen(answers, known), chosen(wanted, known)))


def _tables(outputs: Outputs, answers: Arrays, wanted: Arrays) -> dict[str, Classified]:
    """Return what tables of classes are made of, by output, of the samples whose class is known."""
    found = {}
    for name, output in outputs.items():
        known = output.is_known(wanted[name])
        table = output.classified(answers[name][known], wanted[name][known])
        if table is not None:
            found[name] = table
    return found


def _class_rows(table: Classified) -> list[dict[str, Any]]:
    confusion = _confusion(table)
    return [
        {
            "name": name,
            "support": int((table.wanted == index).sum()),
            "precision": _share(confusion[index, index], confusion[:, index].sum()),
            "recall": _share(confusion[index, index], (table.wanted == index).sum()),
        }
        for index, name in enumerate(table.names)
    ]


def _subgroups(outputs: Outputs, answers: Arrays, wanted: Arrays, groups: NDArray[Any] | None) -> list[dict[str, Any]]:
    if groups is None:
        return []
    found = []
    for value in sorted(set(groups.tolist()))[:_MAXIMUM_GROUPS]:
        own = groups == value
        score = mean_score(outputs, chosen(answers, own), chosen(wanted, own))
        rounded = round(score, 6) if score is not None else None
        found.append({"name": value, "samples": int(own.sum()), outputs.score_key: rounded})
    return found


def _confusion(table: Classified) -> NDArray[np.int64]:
    """Return how often which class was answered with which; samples without an answer are in no column."""
    confusion = np.zeros((len(table.names), len(table.names)), dtype=np.int64)
    answered = table.given >= 0
    np.add.at(confusion, (table.wanted[answered], table.given[answered]), 1)
    return confusion


def _groups(held_out: Dataset, subgroup: str | None) -> NDArray[Any] | None:
    """Return the subgroup of each sample as text, or None."""
    groups = held_out.columns.get(subgroup) if subgroup is not None else None
    return np.asarray([str(value) for value in groups]) if groups is not None else None


def _share(part: Any, whole: Any) -> float | None:
    return round(float(part) / float(whole), 6) if whole else None
