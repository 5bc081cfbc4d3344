"""What is wrong with the data of a task: types, shapes, names, ranges. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hedgerow.input_values import value_mistakes
from hedgerow.task import Dataset, Task, TaskData

__all__ = ["data_mistakes"]


def data_mistakes(task: Task, data: object) -> list[str]:
    """Return one sentence for everything that is wrong with the data of a task."""
    found: list[str] = []
    if not isinstance(data, TaskData):
        return [f"data() must return a TaskData, found {type(data).__name__}"]
    parts = {"train": data.train, "held_out": data.held_out}
    if data.calibration is not None:
        parts["calibration"] = data.calibration
    for part, dataset in parts.items():
        found.extend(f"{part}: {mistake}" for mistake in _dataset_mistakes(task, dataset))
    return found


def _dataset_mistakes(task: Task, dataset: object) -> list[str]:
    if not isinstance(dataset, Dataset):
        return [f"expected a Dataset, found {type(dataset).__name__}"]
    parts: tuple[Any, ...] = (dataset.inputs, dataset.columns, {"labels": dataset.labels})
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
    found = [*_input_mistakes(task, dataset), *_label_mistakes(task, dataset)]
    for name, values in dataset.columns.items():
        if len(values) != len(dataset):
            found.append(f"the column {name!r} has {len(values)} values for {len(dataset)} samples")
    if task.subgroup is not None and task.subgroup not in dataset.columns:
        found.append(f"the subgroup column {task.subgroup!r} is absent; found {sorted(dataset.columns)}")
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
            found.append(f"{name} has {len(values)} samples, the labels {len(dataset)}")
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


def _label_mistakes(task: Task, dataset: Dataset) -> list[str]:
    found, labels = [], dataset.labels
    if task.state and (labels.dtype != np.int64 or labels.ndim != 2):
        found.append(
            "the labels of a task with state must be int64[n, steps], a class for each step, found "
            f"{labels.dtype}{list(labels.shape)}"
        )
    elif not task.state and (labels.dtype != np.int64 or labels.ndim != 1):
        found.append(f"the labels must be int64[n], found {labels.dtype}{list(labels.shape)}; use .astype('int64')")
    elif labels.size and not (labels.min() >= 0 and labels.max() < len(task.labels)):
        found.append(f"the labels must lie in 0..{len(task.labels) - 1}, found {labels.min()}..{labels.max()}")
    if task.state and labels.ndim == 2:
        steps = {name: values.shape[1] for name, values in dataset.inputs.items() if values.ndim > 1}
        found.extend(
            f"{name} has {count} steps, the labels {labels.shape[1]}"
            for name, count in steps.items()
            if count != labels.shape[1]
        )
        if labels.shape[1] == 0:
            found.append("its sequences hold no steps")
    return found
