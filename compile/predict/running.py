"""Samples through an artifact, in a process of its own, or through the float model of a task."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.errors import NotRunnableError
from hedgerow.compile.foreign import ForeignFile, Prediction
from hedgerow.compile.inspection.border import Border
from hedgerow.compile.portions import portions
from hedgerow.compile.toolchains import MICRO, RUNTIME_NAMES
from hedgerow.errors import TaskError
from hedgerow.installation import require
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob
from hedgerow.model_schema import ModelSchema
from hedgerow.progress import Progress, Report, silent
from hedgerow.task import Task
from hedgerow.weights import Arrays

__all__ = ["RunArtifact", "measured_schema", "run_float_model"]

_BATCH = 256
_LEAST_ROW_BYTES = 2**15
"""So that a portion has some two thousand rows at most: a step that runs it is bounded in time."""
_PACKAGES = {"litert": ("litert", "ai_edge_litert"), MICRO: ("mcu", "tflite_micro")}


@dataclass(frozen=True, slots=True)
class RunArtifact:
    """Runs an artifact as a device does, on this machine.

    Attributes:
        artifact: It.
        schema: Of its model.
        content: Gives the bytes of its files.
        report: Takes progress.
    """

    artifact: Artifact
    schema: ModelSchema
    content: Callable[[Blob], bytes]
    report: Report = silent

    def check(self) -> None:
        """Refuse an artifact that this machine cannot run, before any work.

        Raises:
            NotRunnableError: Its runtime does not exist here.
            ExtraNotInstalledError: Its runtime is not installed.
        """
        runtime = self.artifact.runtime
        if runtime not in RUNTIME_NAMES:
            raise NotRunnableError(self.artifact.target, runtime, sorted(RUNTIME_NAMES.values()))
        if runtime in _PACKAGES:
            extra, package = _PACKAGES[runtime]
            require(f"running an artifact in {RUNTIME_NAMES[runtime]}", extra, (package,))

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Prediction:
        """Return the outputs for samples, those of state left out.

        Args:
            inputs: Name -> ``(n, *shape)``; of a model with state ``(n, steps, *shape)``.

        Raises:
            NotRunnableError, ExtraNotInstalledError: As :meth:`check`.
            ForeignFileError: The runtime died or hung.
            RuntimeRefusedError: It does not take the file.
        """
        self.check()
        artifact, state = self.artifact, self.schema.state
        first = next(iter(inputs.values()))
        steps = first.shape[1] if state else 1
        rows = {name: values.reshape(-1, *values.shape[2:]) if state else values for name, values in inputs.items()}
        count = len(next(iter(rows.values())))
        zeros = {
            spec.name: np.zeros((count, *spec.shape), spec.dtype) for spec in self.schema.inputs if spec.name in state
        }
        with ExitStack() as stack:
            if artifact.prepare is not None:
                before = artifact.prepare
                file = stack.enter_context(self._file(before.blob))
                # It is a float file, which microcontrollers have as C.
                runtime = "litert" if artifact.runtime == MICRO else artifact.runtime
                rows = dict(self._run(file, runtime, rows, (before.inputs, before.outputs), 0, 1, {}).outputs)
            file = stack.enter_context(self._file(artifact.blob))
            arena_bytes = file.arena().bytes if artifact.runtime == MICRO else 0
            border = (artifact.inputs, artifact.outputs)
            found = self._run(file, artifact.runtime, {**rows, **zeros}, border, arena_bytes, steps, state)
        given = {spec.name for spec in self.schema.given.outputs}
        outputs = {name: values for name, values in found.outputs.items() if name in given}
        return Prediction(outputs=outputs, executed_by=found.executed_by)

    def _file(self, blob: Blob) -> ForeignFile:
        return ForeignFile(f"the artifact for {self.artifact.target}", self.artifact.format, self.content(blob))

    def _run(
        self,
        file: ForeignFile,
        runtime: str,
        rows: Mapping[str, NDArray[Any]],
        border: Border,
        arena_bytes: int,
        steps: int,
        state: Mapping[str, str],
    ) -> Prediction:
        """Run rows in portions; a sequence is never cut."""
        count = len(next(iter(rows.values())))
        row_bytes = max(_LEAST_ROW_BYTES, sum(values[:1].nbytes for values in rows.values()))
        parts: list[Prediction] = []
        for begin, end in portions(count // steps, 0, row_bytes * steps):
            portion = {name: values[begin * steps : end * steps] for name, values in rows.items()}
            parts.append(
                file.predict(runtime, portion, border, arena_bytes=arena_bytes, state=dict(state), steps=steps)
            )
            self.report(Progress(f"predict by {self.artifact.target}", end * steps, count))
        outputs = {name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs}
        return Prediction(outputs=outputs, executed_by=parts[0].executed_by)


def run_float_model(
    task: Task, weights: Arrays, inputs: Mapping[str, NDArray[Any]], report: Report = silent
) -> Prediction:
    """Return the float model's outputs for samples.

    Args:
        task: It.
        weights: Of its model.
        inputs: As for :class:`RunArtifact`.
        report: Takes progress.

    Raises:
        CheckpointMismatchError: The weights are another model's.
        TaskError: The model cannot be made, or does not take the samples.
    """
    import torch

    from hedgerow.task_module import load_weights, predict

    model = load_weights(task, weights)
    count, parts = len(next(iter(inputs.values()))), []
    for begin in range(0, count, _BATCH):
        batch = {name: values[begin : begin + _BATCH] for name, values in inputs.items()}
        try:
            parts.append(predict(task, model, batch))
        # The user's code may raise anything; the report must name it all the same.
        except Exception as exc:
            said = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
            raise TaskError(repr(task.name), [f"predicting raised {said}"]) from exc
        report(Progress("predict", min(count, begin + _BATCH), count))
    found = {name: np.concatenate([part[name] for part in parts]) for name in task.answers}
    return Prediction(outputs=task.rows(found), executed_by=f"torch {torch.__version__}, float32")


def measured_schema(task: Task, weights: Arrays, report: Report = silent) -> ModelSchema:
    """Return the task's schema with what only the float model's answers to held-out samples tell, such as a threshold.

    Raises:
        CheckpointMismatchError: The weights are another model's.
        TaskError: The data or the model cannot be used.
        InputError: No held-out sample says it.
    """
    if not any(output.learns_alone and not output.can_score for output in task.answers.values()):
        return task.schema
    held_out = task.load_data().held_out
    given = run_float_model(task, weights, held_out.inputs, report).outputs
    return replace(task.schema, answers=task.answers.measured(given, task.rows(task.wanted(held_out))))
