"""What the units of one worker share: a task, its data, one checkpoint, and whatever was made of them already."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.checkpoint import load_checkpoint_of
from hedgerow.compile.arena import Arena
from hedgerow.compile.golden import NO_TOLERANCES, Tolerances
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.kinds import Pass
from hedgerow.compile.preparation.beside import Beside
from hedgerow.compile.preparation.halves import Halves, cut
from hedgerow.compile.profile.host import HostLatency
from hedgerow.compile.recipe import Recipe
from hedgerow.compile.stepwise import as_rows
from hedgerow.compile.verify import Oracle
from hedgerow.outputs import Outputs
from hedgerow.outputs.outputs import Arrays
from hedgerow.task import Dataset, Task, TaskData, load_task
from hedgerow.task_module import load_weights, predict, predict_sequences

if TYPE_CHECKING:
    from torch import nn

    from hedgerow.compile.train_graph.export import TrainFile

__all__ = ["Executed", "Foundation", "Made", "Workbench", "foundation_of"]

_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A recipe's file with everything that depends neither on the target nor on a runtime.

    Attributes:
        stage: The file.
        float_bytes: Of the float artifact in the same format.
        facts: Read from the file.
        all_integer: Whether it was made for a target that holds no float.
        beside: What prepares samples for a file that takes prepared ones; None: it takes the task's inputs.
    """

    stage: CompiledModel
    float_bytes: int
    facts: FileFacts
    all_integer: bool = False
    beside: Beside | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """What came of a file in one runtime; it is measured once for all targets of that runtime.

    Attributes:
        answers: Its answers to held-out data, by output; None where this host can neither run nor evaluate it.
        not_run: Why there are none.
        golden: Samples and this file's outputs, encoded; None as above.
        replay_difference, replay_tolerance: See :class:`hedgerow.compile.verify.Measured`; of the output that is
            farthest from its golden samples, in its own tolerances.
        tolerances: Of the golden samples.
        latency: On this machine; None where this host cannot run it, and for the runtime of microcontrollers, whose
            reference kernels were not made to be fast.
        executed_by: What really ran it: the runtime, with its version; empty where nothing did.
        evaluation: Per class and subgroup, see :func:`hedgerow.compile.evaluation.evaluate_parts`; None as above.
        arena: The smallest tensor arena that works; None: not known, or the runtime has none.
        oracle: What the runtime of microcontrollers has to say of the file; None for every other runtime.
    """

    answers: Arrays | None
    not_run: str = ""
    golden: bytes | None = None
    replay_difference: float | None = None
    replay_tolerance: float = 0.0
    tolerances: Tolerances = NO_TOLERANCES
    latency: HostLatency | None = None
    executed_by: str = ""
    evaluation: Mapping[str, Any] | None = None
    arena: Arena | None = None
    oracle: Oracle | None = None


@dataclass(frozen=True, slots=True)
class Foundation:
    """A task, its data and one checkpoint, with what several units of one worker share.

    Attributes:
        source: The float model.
        data: The task's data.
        float_answers: The float model's answers to held-out data, by output.
        wanted: The held-out target values by output, as far as they are known.
        outputs: What the task's outputs are for, with what was measured of the float model's answers.
        sources: Results of model passes by the passes that led to them; nothing leads to the float model itself.
        stages: Results of file passes by all the passes that led to them, so that one export serves two targets; apart
            for the task without pre-processing (True).
        made: Files of whole recipes, by whether they are for a target that holds no float.
        executed: What came of those files, by recipe, runtime, and the same.
        train_files: Train graphs by format and options. They hold no weights, so they outlive the checkpoint.
        halves: The task cut where its model begins; None: there is no cut.
        steps: How many rows of the held-out data are one sequence; 0: the task has no state, each row stands alone.
            With state all data are rows of single steps, and those to calibrate with have the state that the float
            model was in.
        unlike: Whether its features are too unlike for 8 bits (:mod:`hedgerow.compile.preparation.unlike`) or may be
            missing; empty until somebody asked.
    """

    source: FloatModel
    data: TaskData
    float_answers: Arrays
    wanted: Arrays
    outputs: Outputs
    sources: dict[tuple[Pass, ...], FloatModel] = field(default_factory=dict)
    stages: dict[bool, dict[tuple[Pass, ...], CompiledModel]] = field(default_factory=dict)
    made: dict[tuple[Recipe, bool], Made] = field(default_factory=dict)
    executed: dict[tuple[Recipe, str, bool], Executed] = field(default_factory=dict)
    train_files: "dict[tuple[str, ...], TrainFile]" = field(default_factory=dict)
    halves: Halves | None = None
    steps: int = 0
    unlike: list[bool] = field(default_factory=list)

    def prepared_beside(self) -> Halves | None:
        """Return the halves of the task where a file of integers takes prepared samples; None: it takes any."""
        if self.halves is None:
            return None
        if not self.unlike:
            from hedgerow.compile.preparation.unlike import are_unlike

            # No integer stands for a missing value.
            may_miss = any(spec.missing for spec in self.source.task.inputs)
            self.unlike.append(may_miss or are_unlike(self.halves, self.source.calibration.inputs))
        return self.halves if self.unlike[0] else None

    def given(self, made: Made, data: Dataset) -> Dataset:
        """Return *data* as the file takes it."""
        if made.beside is None or self.halves is None:
            return data
        return replace(data, inputs=self.halves.prepared(data.inputs))


class Workbench:
    """Keeps the last foundation, and a task's data, from one unit to the next."""

    def __init__(self) -> None:
        self._data: dict[str, TaskData] = {}
        self._train_files: dict[tuple[str, ...], TrainFile] = {}
        self._last: tuple[tuple[str, str], Foundation] | None = None

    def foundation(self, task_reference: str, checkpoint_folder: Path, weights_sha256: str) -> Foundation:
        """Return the foundation of a task and a checkpoint.

        Args:
            task_reference: Names the task.
            checkpoint_folder: Holds the checkpoint.
            weights_sha256: Hash of its weights, which tells two checkpoints apart.

        Raises:
            CheckpointError: The checkpoint cannot be read.
            CheckpointMismatchError: It belongs to another task or model.
            TaskError: The task cannot be imported, or its data is wrong.
        """
        key = (task_reference, weights_sha256)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        task = load_task(task_reference)
        checkpoint = load_checkpoint_of(task.name, checkpoint_folder)
        model = load_weights(task, checkpoint.weights)
        if task_reference not in self._data:
            self._data, self._train_files = {task_reference: task.load_data()}, {}
        data = self._data[task_reference]
        foundation = foundation_of(task, model, data, self._train_files)
        self._last = (key, foundation)
        return foundation


def foundation_of(
    task: Task,
    model: "nn.Module",
    data: TaskData,
    train_files: "dict[tuple[str, ...], TrainFile] | None" = None,
) -> Foundation:
    """Return the foundation of a task and a model: the float model answers all that is measured.

    Args:
        task: It.
        model: Its model, in evaluation mode.
        data: The task's.
        train_files: Those that are made already.

    Raises:
        InputError: The held-out data do not tell what a kind of output needs to know, such as what is normal.
    """
    make = _foundation_of_sequences if task.state else _foundation_of_samples
    return make(task, model, data, train_files if train_files is not None else {})


def _foundation_of_samples(
    task: Task, model: "nn.Module", data: TaskData, train_files: "dict[tuple[str, ...], TrainFile]"
) -> Foundation:
    held_out = data.held_out
    rows = [
        predict(task, model, {name: values[start : start + _BATCH] for name, values in held_out.inputs.items()})
        for start in range(0, len(held_out), _BATCH)
    ]
    answers = {name: np.concatenate([row[name] for row in rows]) for name in task.answers}
    wanted = task.wanted(held_out)
    return Foundation(
        FloatModel(task=task, model=model, calibration=task.calibration(data), train=data.train),
        data,
        answers,
        wanted,
        task.answers.measured(answers, wanted),
        train_files=train_files,
        halves=cut(task),
    )


def _foundation_of_sequences(
    task: Task, model: "nn.Module", data: TaskData, train_files: "dict[tuple[str, ...], TrainFile]"
) -> Foundation:
    calibration = task.calibration(data)
    calibrated = predict_sequences(task, model, calibration.inputs)
    measured = predict_sequences(task, model, data.held_out.inputs)
    held_out, steps_seen = as_rows(task, data.held_out, measured.state), as_rows(task, calibration, calibrated.state)
    rows = TaskData(train=as_rows(task, data.train), held_out=held_out, calibration=steps_seen)
    answers, wanted = task.rows(measured.answers), task.rows(task.wanted(data.held_out))
    return Foundation(
        FloatModel(task=task, model=model, calibration=steps_seen),
        rows,
        answers,
        wanted,
        task.answers.measured(answers, wanted),
        train_files=train_files,
        halves=cut(task),
        steps=int(next(iter(data.held_out.inputs.values())).shape[1]),
    )
