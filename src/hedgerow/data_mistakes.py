"""What is wrong with the data of a task: types, shapes, names, ranges. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.input_values import value_mistakes
from hedgerow.task import Dataset, Task, TaskData

__all__ = ["data_mistakes"]

_WHOLE = "; those of {} are whole numbers, use outputs=Values(...) for others"


def data_mistakes(task: Task, data: object) -> list[str]:
    """Return one sentence for everything that is wrong with the data of a task."""
    found: list[str] = []
    if not isinstance(data, TaskData):
        return [f"data() must return a TaskData, found {type(data).__name__}"]
    parts = {"train": data.train, "held_out": data.held_out}
    if data.calibration is not None:
        parts["calibration"] = data.calibration
    for part, dataset in parts.items():
        mistakes = _dataset_mistakes(task, dataset)
        if not mistakes:
            mistakes = _learning_mistakes(task, dataset, is_train=part == "train")
        found.extend(f"{part}: {mistake}" for mistake in mistakes)
    return found


def _dataset_mistakes(task: Task, dataset: object) -> list[str]:
    if not isinstance(dataset, Dataset):
        return [f"expected a Dataset, found {type(dataset).__name__}"]
    values = dataset.target_values
    wanted: Any = values if isinstance(values, Mapping) else {} if values is None else {"target_values": values}
    parts: tuple[Any, ...] = (dataset.inputs, dataset.columns, wanted)
    if not all(isinstance(part, Mapping) for part in parts):
        return ["inputs and columns must be mappings of names to arrays"]
    found = [
        f"{name} must be a numpy array, found {type(values).__name__}"
        for part in parts
        for name, values in part.items()
        if not isinstance(values, np.ndarray)
    ]
    if found:
        return found
    found = [
        f"{name} must have its samples as the first dimension, found none"
        for part in parts
        for name, values in part.items()
        if not values.ndim
    ]
    if found:
        return found
    found = [*_input_mistakes(task, dataset), *_target_mistakes(task, dataset)]
    for name, values in dataset.columns.items():
        if len(values) != len(dataset):
            found.append(f"the column {name!r} has {len(values)} values for {len(dataset)} samples")
    if task.subgroup is not None and task.subgroup not in dataset.columns:
        found.append(f"the subgroup column {task.subgroup!r} is absent; found {sorted(dataset.columns)}")
    return found


def _learning_mistakes(task: Task, dataset: Dataset, *, is_train: bool) -> list[str]:
    """Return what is wrong with samples that an output does not learn from; in sound data."""
    found = []
    for name, wanted in task.rows(task.wanted(dataset)).items():
        output = task.answers[name]
        left_out = int((~output.learnable(wanted)).sum())
        if is_train and left_out:
            found.append(
                f"{left_out} of {len(wanted)} samples are {output.not_learned}, from which a {output.kind} does not "
                "learn; leave them out"
            )
        elif left_out == len(wanted):
            found.append(f"all its samples are {output.not_learned}; add others, which a {output.kind} is measured on")
    return found


def _input_mistakes(task: Task, dataset: Dataset) -> list[str]:
    found = []
    wanted = {spec.name: spec for spec in task.inputs}
    if set(dataset.inputs) != set(wanted):
        found.append(f"expected the inputs {sorted(wanted)}, found {sorted(dataset.inputs)}")
    if len(dataset) == 0:
        found.append("it holds no samples")
    for name, values in dataset.inputs.items():
        spec = wanted.get(name)
        if spec is None:
            continue
        if len(values) != len(dataset):
            found.append(f"{name} has {len(values)} samples, {next(iter(dataset.inputs))} {len(dataset)}")
        axes = 2 if task.state else 1
        if values.shape[axes:] != spec.shape or values.ndim < axes or str(values.dtype) != spec.dtype:
            found.append(
                f"{name} is {values.dtype}{list(values.shape[axes:])} a {'step' if task.state else 'sample'}, "
                f"the task says {spec.dtype}{list(spec.shape)}"
                + (", and sequences are (n, steps, ...)" if task.state else "")
            )
        else:
            found.extend(value_mistakes(spec, values))
    return found


def _target_mistakes(task: Task, dataset: Dataset) -> list[str]:
    if dataset.target_values is None:
        return [] if task.answers.learns_alone else ["it has no target values, which its outputs are trained with"]
    try:
        wanted = task.wanted(dataset)
    except ValueError as exc:
        return [str(exc)]
    found: list[str] = []
    for name, values in wanted.items():
        told = f"the target values of {name!r}" if len(wanted) > 1 else "the target values"
        found.extend(_form_mistakes(task, name, values, told, dataset))
    return found


def _form_mistakes(task: Task, name: str, values: NDArray[Any], told: str, dataset: Dataset) -> list[str]:
    output, axes = task.answers[name], 2 if task.state else 1
    before = "n, steps" if task.state else "n"
    form = f"{output.target_dtype}[{', '.join((before, *map(str, output.target_shape)))}]"
    if values.ndim != axes + len(output.target_shape) or values.shape[axes:] != output.target_shape:
        advice = "; reshape them to one row a sample" if values.ndim != axes + len(output.target_shape) else ""
        return [f"{told} of {output.kind} must be {form}, found {values.dtype}{list(values.shape)}{advice}"]
    if str(values.dtype) != output.target_dtype:
        fits = values.dtype.kind in ("fiub" if output.target_dtype.startswith("float") else "iub")
        whole = values.dtype.kind == "f" and bool((values == np.rint(values)).all())
        advice = f"; use .astype({output.target_dtype!r})" if fits or whole else _WHOLE.format(output.kind)
        return [f"{told} of {output.kind} must be {form}, found {values.dtype}{list(values.shape)}{advice}"]
    if len(values) != len(dataset):
        return [f"{told} are {len(values)} for {len(dataset)} samples"]
    found = []
    if task.state:
        steps = {name: given.shape[1] for name, given in dataset.inputs.items() if given.ndim > 1}
        found = [
            f"{given} has {count} steps, {told} {values.shape[1]}"
            for given, count in steps.items()
            if count != values.shape[1]
        ]
        if values.shape[1] == 0:
            found.append("its sequences hold no steps")
    rows = values.reshape(-1, *output.target_shape)
    return [*found, *(f"{told}: {mistake}" for mistake in output.target_mistakes(rows))]
