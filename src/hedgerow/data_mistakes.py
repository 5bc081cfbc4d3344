"""What is wrong with the data of a task: types, shapes, names, ranges. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.input_values import value_mistakes
from hedgerow.outputs import Output
from hedgerow.schema import DTYPES, TensorSpec
from hedgerow.task import Dataset, Task, TaskData

__all__ = ["data_mistakes"]

_WHOLE = "; those of {} are whole numbers, use outputs=Values(...) for others"
_TO_ARRAY = {"Tensor": "; use .numpy()", "DataFrame": "; use .to_numpy()", "Series": "; use .to_numpy()"}
"""Names of types that people have data in -> how an array is made of one; of others numpy.asarray makes one."""


def data_mistakes(task: Task, data: object) -> list[str]:
    """Return one sentence for everything that is wrong with the data of a task."""
    if not isinstance(data, TaskData):
        return [f"data() must return a TaskData of two Datasets, train and held_out, found {type(data).__name__}"]
    found: dict[str, list[str]] = {}
    parts = {"train": data.train, "held_out": data.held_out}
    if data.calibration is not None:
        parts["calibration"] = data.calibration
    for part, dataset in parts.items():
        mistakes = _dataset_mistakes(task, dataset)
        if not mistakes:
            mistakes = _learning_mistakes(task, dataset, is_train=part == "train")
        for mistake in mistakes:
            found.setdefault(mistake, []).append(part)
    return [f"{_listed(parts)}: {mistake}" for mistake, parts in found.items()]


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def _dataset_mistakes(task: Task, dataset: object) -> list[str]:
    if not isinstance(dataset, Dataset):
        return [f"expected a Dataset, found {type(dataset).__name__}"]
    values: object = dataset.target_values
    if len(task.answers) > 1 and isinstance(values, tuple | list):
        told = ", ".join(f"{name!r}: ..." for name in task.answers)
        return [f"target_values of several outputs must be a mapping, {{{told}}}, found {type(values).__name__}"]
    wanted: Any = values if isinstance(values, Mapping) else {} if values is None else {"target_values": values}
    parts: tuple[Any, ...] = (dataset.inputs, dataset.columns, wanted)
    if not all(isinstance(part, Mapping) for part in parts):
        return ["inputs and columns must be mappings of names to arrays"]
    found = [
        f"{name} must be a numpy array, found {type(values).__name__}"
        + _TO_ARRAY.get(type(values).__name__, "; use numpy.asarray(...)")
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
                + _input_advice(spec, values, axes)
            )
        else:
            found.extend(value_mistakes(spec, values))
    return found


def _input_advice(spec: TensorSpec, values: NDArray[Any], axes: int) -> str:
    shape, dtype = values.shape[axes:], str(values.dtype)
    if len(spec.shape) and shape == spec.shape[1:]:
        return "; leave the batch out of the TensorSpec's shape"
    if math.prod(shape) == math.prod(spec.shape) and shape != spec.shape and values.ndim >= axes:
        return f"; reshape it to {_form(('n', 'steps')[:axes], spec.shape)}, or say {shape} in the TensorSpec"
    if shape != spec.shape:
        return ""
    loses = values.dtype.kind == "f" and spec.dtype != "float32" and not (values == np.rint(values)).all()
    if values.dtype.kind not in "fiub" or loses:
        return f"; say {dtype!r} in the TensorSpec" if dtype in DTYPES else ""
    return f"; use .astype({spec.dtype!r})"


def _form(before: Sequence[str], shape: Sequence[int]) -> str:
    sizes = [*before, *map(str, shape)]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _target_mistakes(task: Task, dataset: Dataset) -> list[str]:
    if dataset.target_values is None:
        return (
            []
            if task.answers.learns_alone
            else ["it has no target values; give them as Dataset(inputs, target_values)"]
        )
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
    given = [*before.split(", ")[: values.ndim], *map(str, values.shape[axes:])]
    found = f"{told} of {output.kind} must be {form}, found {values.dtype}[{', '.join(given)}]"
    if values.ndim != axes + len(output.target_shape) or values.shape[axes:] != output.target_shape:
        return [found + _shape_advice(output, values, axes)]
    if str(values.dtype) != output.target_dtype:
        return [found + _dtype_advice(output, values)]
    if len(values) != len(dataset):
        return [f"{told} are {len(values)} for {len(dataset)} samples"]
    wrong = []
    if task.state:
        steps = {name: given.shape[1] for name, given in dataset.inputs.items() if given.ndim > 1}
        wrong = [
            f"{given} has {count} steps, {told} {values.shape[1]}"
            for given, count in steps.items()
            if count != values.shape[1]
        ]
        if values.shape[1] == 0:
            wrong.append("its sequences hold no steps")
    rows = values.reshape(-1, *output.target_shape)
    is_unknown = values.dtype.kind == "f" and bool(np.isnan(values).any())
    advice = "; leave out the samples of which it is not known" if is_unknown else ""
    return [*wrong, *(f"{told}: {mistake}{advice}" for mistake in output.target_mistakes(rows))]


def _shape_advice(output: Output, values: NDArray[Any], axes: int) -> str:
    """Return what to do about target values of another shape, where that is known."""
    shape, wanted, names = values.shape[axes:], output.target_shape, output.part_names
    before = ("n", "steps")[:axes]
    if values.ndim < axes:
        return ""
    if math.prod(shape) == math.prod(wanted):
        return f"; reshape them to {_form(before, wanted)}"
    is_one_hot = (
        shape == (*wanted, len(names)) and output.target_dtype.startswith("int") and values.dtype.kind in "fiub"
    )
    if is_one_hot and ((values != 0).sum(axis=-1) == 1).all():
        return "; use .argmax(axis=-1)"
    return ""


def _dtype_advice(output: Output, values: NDArray[Any]) -> str:
    """Return what to do about target values of another type."""
    if output.target_dtype.startswith("float"):
        return f"; use .astype({output.target_dtype!r})" if values.dtype.kind in "fiub" else "; give numbers"
    if values.dtype.kind in "iub":
        return f"; use .astype({output.target_dtype!r})"
    if values.dtype.kind != "f":
        return "; give the place of each in the names, from 0" if output.part_names else "; give whole numbers"
    known = values[np.isfinite(values)]
    if (known != np.rint(known)).any():
        return _WHOLE.format(output.kind)
    if known.size == values.size:
        return f"; use .astype({output.target_dtype!r})"
    return "; leave out the samples of which none is known, and use .astype(...)"
