"""Samples to measure a file from elsewhere with: from a file of arrays, or from a task.

They are matched with the file's inputs by name, else by order. What recurrent state is starts at zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.errors import DataFileError
from hedgerow.compile.model_file import ModelFile
from hedgerow.compile.sample_arrays import LABELS, read_arrays, read_table
from hedgerow.compile.stepwise import as_rows
from hedgerow.outputs import NO_OUTPUTS, Outputs
from hedgerow.schema import TensorSpec
from hedgerow.task import Dataset, Metric, Task, TaskData

__all__ = ["HeldOutSamples", "SampleFile", "SampleOrigin", "SampleSet", "fitted"]

_CALIBRATION = 256
_CALIBRATION_SHARE = 4
_NO_LABEL = -1
_OUTSIDE_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
    """Samples in a file's own shapes.

    Attributes:
        held_out: What is measured on. Sequences lie one after the other, one row a step; a step without a label has -1.
        calibration: What quantizers look at; never the held-out samples. It has no state: whoever runs the file
            records it.
        known: What the reference of drift is cut from.
        steps, calibration_steps: How many rows are one sequence; 1: every row stands alone.
        outputs: What the target values are for; none: each is a class, whose name is not known.
        metrics: What is measured beside the score.
        subgroup: Column of *held_out* whose values are subgroups.
        train_samples: How many samples the model was trained on; None: not known.
        fingerprint_of: What identifies the data, in order.
    """

    held_out: Dataset
    calibration: Dataset
    known: Dataset
    fingerprint_of: tuple[Dataset, ...]
    steps: int = 1
    calibration_steps: int = 1
    outputs: Outputs = NO_OUTPUTS
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    subgroup: str | None = None
    train_samples: int | None = None

    @property
    def classes(self) -> NDArray[np.int64] | None:
        """The class of each row, -1 where none is known; None where the target values are no classes."""
        values = self.held_out.target_values
        if not self.outputs:
            return values if isinstance(values, np.ndarray) else None
        return self.outputs.strata(self.wanted) if self.outputs.alone is not None else None

    @property
    def wanted(self) -> dict[str, NDArray[Any]]:
        """Target values by output, of each row."""
        return self.outputs.named(self.held_out.target_values, len(self.held_out))

    @property
    def scored(self) -> NDArray[np.int64]:
        """Places of the rows that are measured: all but steps without a class."""
        labels = self.classes
        return np.arange(len(self.held_out)) if labels is None else np.flatnonzero(labels != _NO_LABEL)


class SampleOrigin(Protocol):
    """Where samples come from."""

    def inputs_for(self, model: ModelFile) -> tuple[TensorSpec, ...]:
        """Return the specifications of a file's inputs, with whatever this source knows of them."""

    def samples_for(self, model: ModelFile) -> SampleSet:
        """Return samples for a file.

        Raises:
            DataFileError: They do not fit it.
        """


@dataclass(frozen=True, slots=True)
class SampleFile:
    """Arrays in a ``.npz`` file by the names of a model's inputs, and ``labels``; or a ``.csv`` file with a header.

    Every fourth sample, at most 256, is for calibration, so that all of a sorted file is in both parts.

    Attributes:
        path: The file.
    """

    path: Path

    def inputs_for(self, model: ModelFile) -> tuple[TensorSpec, ...]:
        """Return the inputs as they are: arrays say nothing about units."""
        return model.schema.inputs

    def samples_for(self, model: ModelFile) -> SampleSet:
        """Read the samples.

        Raises:
            DataFileError: There are none, or they do not fit the file.
        """
        place = str(self.path)
        names = [{t.name, t.tensor} for t in model.inputs if t.name not in model.state]
        arrays = read_table(self.path, names) if self.path.suffix == ".csv" else read_arrays(self.path)
        labels = arrays.pop(LABELS, None)
        if labels is None:
            raise DataFileError(place, f"an array {LABELS!r} with the class of each sample", _listed(arrays))
        labels = _whole_numbers(place, labels)
        matched = _matched(place, model, arrays)
        inputs = {
            spec.name: _within(place, spec, fitted(place, spec, matched[spec.name], bool(model.state)), model)
            for spec in _data_inputs(model)
        }
        sequences = _sequences(place, model, inputs, labels)
        count = len(sequences.labels)
        if count < 2:
            raise DataFileError(place, "at least two samples: one to calibrate with, one to measure", str(count))
        is_calibration = np.arange(count) % _CALIBRATION_SHARE == 0
        is_calibration &= np.cumsum(is_calibration) <= _CALIBRATION
        calibration, held_out = (
            sequences.take(np.flatnonzero(is_calibration)),
            sequences.take(np.flatnonzero(~is_calibration)),
        )
        return SampleSet(
            held_out=held_out.rows(model),
            calibration=calibration.rows(model),
            known=sequences.rows(model),
            fingerprint_of=(calibration.rows(model), held_out.rows(model), calibration.rows(model)),
            steps=sequences.steps,
            calibration_steps=sequences.steps,
        )


@dataclass(frozen=True, slots=True)
class HeldOutSamples:
    """The held-out and calibration data of a task.

    Attributes:
        task: It.
        data: Its data.
    """

    task: Task
    data: TaskData

    def inputs_for(self, model: ModelFile) -> tuple[TensorSpec, ...]:
        """Return the inputs with the task's names, units and valid ranges.

        Raises:
            DataFileError: They do not fit the file.
        """
        own = {spec.name: spec for spec in self.task.inputs}
        matched = _matched(self._place, model, own)
        found = []
        for spec in model.schema.inputs:
            wanted = matched.get(spec.name)
            if wanted is None:
                found.append(spec)
                continue
            if not _is_same(wanted.shape, spec.shape):
                raise DataFileError(
                    self._place,
                    f"samples of {list(spec.shape)} for the file's input {spec.name!r}",
                    f"the task's {wanted.name!r} of {list(wanted.shape)}",
                    "give a file for this task, or its samples in the file's layout with --data",
                )
            missing = wanted.missing and spec.dtype == wanted.dtype
            found.append(replace(wanted, shape=spec.shape, dtype=spec.dtype, missing=missing))
        return tuple(found)

    def samples_for(self, model: ModelFile) -> SampleSet:
        """Return the samples.

        Raises:
            DataFileError: They do not fit the file.
        """
        if bool(model.state) != bool(self.task.state):
            expected = "a file with --state for a task with state, and one without for any other"
            found = "--state and samples that are no sequences" if model.state else "sequences, and no --state"
            raise DataFileError(self._place, expected, found, "say which inputs are state, or give samples with --data")
        parts = (self.data.held_out, self.task.calibration(self.data), self.data.train)
        held_out, calibration, train = (self._fitted(model, part) for part in parts)
        steps = [_steps(part) if model.state else 1 for part in parts]
        return SampleSet(
            held_out=held_out,
            calibration=calibration,
            known=train,
            fingerprint_of=(self.data.train, self.data.held_out, self.task.calibration(self.data)),
            steps=steps[0],
            calibration_steps=steps[1],
            outputs=self.task.answers,
            metrics=self.task.metrics,
            subgroup=self.task.subgroup,
            train_samples=len(self.data.train),
        )

    @property
    def _place(self) -> str:
        return f"the task {self.task.name!r}"

    def _fitted(self, model: ModelFile, data: Dataset) -> Dataset:
        matched = _matched(self._place, model, data.inputs)
        inputs = {
            spec.name: fitted(self._place, spec, matched[spec.name], bool(model.state)) for spec in _data_inputs(model)
        }
        if not model.state:
            return Dataset(inputs, data.target_values, data.columns)
        columns = {name: np.repeat(values, _steps(data), axis=0) for name, values in data.columns.items()}
        return Dataset(_rows(inputs, model), as_rows(self.task, data).target_values, columns)


def _data_inputs(model: ModelFile) -> tuple[TensorSpec, ...]:
    return tuple(spec for spec in model.schema.inputs if spec.name not in model.state)


def _matched(place: str, model: ModelFile, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was found for each input that is no state: by its name in the file or the schema, else by order.

    Raises:
        DataFileError: It is more or less than the file takes.
    """
    names = {t.name: t.tensor for t in model.inputs if t.name not in model.state}
    if all(name in found or tensor in found for name, tensor in names.items()) and len(found) == len(names):
        return {name: found[tensor] if tensor in found else found[name] for name, tensor in names.items()}
    if len(found) != len(names) or len(names) > 1:
        expected = f"arrays called {', '.join(repr(tensor) for tensor in names.values())}"
        missing = [tensor for name, tensor in names.items() if not {name, tensor} & found.keys()]
        advice = "correct the data"
        if missing and len(missing) < len(names) and len(found) < len(names):
            advice += f", or say with --state IN=OUT which output {_listed(dict.fromkeys(missing))} carries on"
        raise DataFileError(place, expected, _listed(found), advice)
    return dict(zip(names, found.values(), strict=True))


def _listed(found: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in list(found)[:8]) or "none"


def _is_same(one: Sequence[int], other: Sequence[int]) -> bool:
    """Say whether two shapes differ in nothing but sizes of 1."""
    return [size for size in one if size != 1] == [size for size in other if size != 1]


def fitted(place: str, spec: TensorSpec, values: NDArray[Any], is_sequence: bool) -> NDArray[Any]:
    """Return samples in the shape and the type of an input: ``(n, *shape)``, or ``(n, steps, *shape)``.

    Raises:
        DataFileError: They have other shapes, or numbers that the type does not hold.
    """
    if values.dtype.kind not in "fiub" or values.ndim < 1:
        raise DataFileError(place, f"numbers for {spec.name!r}", f"{values.dtype}{list(values.shape)}")
    for axes in (1, 2) if is_sequence else (1,):
        if _is_same(values.shape[axes:], spec.shape):
            shaped = values.reshape(*values.shape[:axes], *spec.shape)
            break
        # A row of a table, in the order of the input's memory.
        if values.ndim == axes + 1 and values.shape[axes] == np.prod(spec.shape, dtype=np.int64):
            shaped = values.reshape(*values.shape[:axes], *spec.shape)
            break
    else:
        listed = ", ".join(map(str, spec.shape))
        also = f" or (sequences, steps, {listed})" if is_sequence else ""
        expected = f"samples of (n, {listed}){also} for {spec.name!r}"
        raise DataFileError(place, expected, f"({', '.join(map(str, values.shape))})")
    # What is cut or wraps round is found out by the comparison.
    with np.errstate(invalid="ignore", over="ignore"):
        cast = shaped.astype(spec.dtype)
    if np.dtype(spec.dtype).kind != "f" and not np.array_equal(cast, shaped):
        raise DataFileError(place, f"whole numbers that {spec.dtype} holds for {spec.name!r}", f"{values.dtype} others")
    if cast.dtype.kind == "f" and not (np.isfinite(cast) | (spec.missing & np.isnan(cast))).all():
        raise DataFileError(place, f"finite numbers for {spec.name!r}", "NaN or infinity")
    return cast


def _within(place: str, spec: TensorSpec, values: NDArray[Any], model: ModelFile) -> NDArray[Any]:
    """Return samples of an input that is stored in integers, if it can hold most of them.

    Raises:
        DataFileError: It cannot: they are stored integers, or not prepared as the model wants them.
    """
    [tensor] = [each for each in model.inputs if each.name == spec.name]
    low, high = spec.minimum, spec.maximum
    if tensor.scale is None or low is None or high is None:
        return values
    margin = 0.1 * (high - low)
    outside = float(np.mean((values < low - margin) | (values > high + margin)))
    if outside > _OUTSIDE_SHARE:
        expected = f"real numbers within {low:.4g} and {high:.4g} for {spec.name!r}, all that its {tensor.dtype} holds"
        found = f"{outside:.0%} of the numbers outside, from {values.min():.4g} to {values.max():.4g}"
        advice = "prepare them as for the float model, and give no stored integers: they are made with the file's scale"
        raise DataFileError(place, expected, found, advice)
    return values


@dataclass(frozen=True, slots=True)
class _Sequences:
    """Sequences of steps: ``(sequences, steps, *shape)``, with a label for each step."""

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64]

    @property
    def steps(self) -> int:
        """How many steps each has."""
        return int(self.labels.shape[1])

    def take(self, places: NDArray[np.int64]) -> "_Sequences":
        """Return some of them."""
        return _Sequences({name: values[places] for name, values in self.inputs.items()}, self.labels[places])

    def rows(self, model: ModelFile) -> Dataset:
        """Return all steps one after the other, with state of zeros."""
        return Dataset(_rows(self.inputs, model), self.labels.reshape(self.labels.size))


def _steps(data: Dataset) -> int:
    """Return how many steps each sequence has."""
    return int(next(iter(data.inputs.values())).shape[1])


def _rows(sequences: Mapping[str, NDArray[Any]], model: ModelFile) -> dict[str, NDArray[Any]]:
    """Return all steps of ``(sequences, steps, *shape)`` one after the other, with state of zeros."""
    inputs = {name: values.reshape(-1, *values.shape[2:]) for name, values in sequences.items()}
    count = len(next(iter(inputs.values())))
    return inputs | {
        spec.name: np.zeros((count, *spec.shape), spec.dtype)
        for spec in model.schema.inputs
        if spec.name in model.state
    }


def _sequences(
    place: str, model: ModelFile, inputs: Mapping[str, NDArray[Any]], labels: NDArray[np.int64]
) -> _Sequences:
    """Return samples as sequences; without state each is one of a single step.

    Raises:
        DataFileError: Lengths differ, or a file with state got no sequences.
    """
    counts = sorted({len(values) for values in inputs.values()} | {len(labels)})
    if len(counts) > 1:
        raise DataFileError(place, "as many labels as samples of every input", " and ".join(map(str, counts)))
    if not model.state:
        if labels.ndim != 1:
            raise DataFileError(place, "one label for each sample", f"labels of {list(labels.shape)}")
        return _Sequences({name: values[:, None] for name, values in inputs.items()}, labels[:, None])
    ranks = {spec.name: len(spec.shape) for spec in _data_inputs(model)}
    steps = {values.shape[1] if values.ndim == ranks[name] + 2 else 0 for name, values in inputs.items()}
    if len(steps) > 1 or 0 in steps:
        expected = "sequences of one number of steps, (sequences, steps, ...), for a file with state"
        raise DataFileError(place, expected, "samples without steps, or of different ones")
    length = steps.pop()
    if labels.ndim == 1:
        # One label for a sequence is that of its last step.
        spread = np.full((len(labels), length), _NO_LABEL, np.int64)
        spread[:, -1] = labels
        labels = spread
    if labels.shape[1:] != (length,):
        expected = f"a label for each sequence, or for each of its {length} steps"
        raise DataFileError(place, expected, f"labels of {list(labels.shape)}")
    return _Sequences(inputs, labels)


def _whole_numbers(place: str, labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return labels.

    Raises:
        DataFileError: They are no whole numbers from 0.
    """
    if labels.dtype.kind in "fiub" and labels.ndim >= 1 and labels.size:
        with np.errstate(invalid="ignore"):
            cast = labels.astype(np.int64)
        if np.array_equal(cast, labels) and cast.min() >= 0 and cast.max() < 100_000:
            return cast
    expected = f"whole numbers from 0 as {LABELS!r}, the place of the class among the output's scores"
    shape = list(labels.shape)
    if labels.dtype.kind in "US" and labels.size:
        found = f"text, such as {str(labels.flat[0])[:40]!r}"
    else:
        found = f"{labels.dtype}{shape}" + (f", such as {labels.flat[0]!s:.40}" if labels.size else "")
    raise DataFileError(place, expected, found)
