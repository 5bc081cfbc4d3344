"""Make the file of a recipe, and measure everything of it that does not depend on a target."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.evaluation import evaluate_parts
from hedgerow.compile.foundation import Foundation, Made
from hedgerow.compile.golden import choose_samples, encode_golden, replay_tolerance
from hedgerow.compile.inspection.model import read_facts
from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.kinds import ModelPass, Pass
from hedgerow.compile.passes.runner import own_errors, run_file_pass, run_model_pass
from hedgerow.compile.profile.host import HostLatency, measure_latency
from hedgerow.compile.recipe import FilePasses, Recipe
from hedgerow.progress import Progress, Report
from hedgerow.task import Dataset
from hedgerow.tensor_border import to_stored

if TYPE_CHECKING:
    from hedgerow.compile.coreml_evaluation.evaluate import UnknownOperator

__all__ = ["Steps", "make"]


class Steps:
    """Counts an artifact's passes for its progress bar.

    Args:
        work: What is being made.
        total: How many steps that takes.
        report: Takes the progress.
    """

    def __init__(self, work: str, total: int, report: Report) -> None:
        self._work, self._done, self._total, self._report = work, 0, total, report

    def __call__(self, note: str) -> None:
        """Tell that a step is done."""
        self._done += 1
        self._report(Progress(self._work, self._done, self._total, note))


def _run_model_passes(foundation: Foundation, steps: Sequence[ModelPass], done: Steps) -> FloatModel:
    source, path = foundation.source, tuple[Pass, ...]()
    for step in steps:
        path = (*path, step)
        if path not in foundation.sources:
            foundation.sources[path] = run_model_pass(step, source)
        source = foundation.sources[path]
        done(step.name)
    return source


def _run_file_passes(
    foundation: Foundation, source: FloatModel, before: Sequence[ModelPass], steps: FilePasses, done: Steps | None
) -> CompiledModel:
    """Return the file that *steps* make of *source*, which the model passes *before* made."""
    stage: CompiledModel | None = None
    path: tuple[Pass, ...] = tuple(before)
    for step in steps:
        path = (*path, step)
        if path not in foundation.stages:
            foundation.stages[path] = run_file_pass(step, source, stage)
        stage = foundation.stages[path]
        if done is not None:
            done(step.name)
    if stage is None:
        raise ValueError("a recipe has no passes")
    return stage


def make(foundation: Foundation, recipe: Recipe, done: Steps) -> Made:
    """Return the file of *recipe*, made and measured.

    Raises:
        PassError: A pass failed.
        UnsuitableError: A pass needs something that the task does not have.
    """
    floating = _run_file_passes(foundation, foundation.source, (), recipe.float_passes, None)
    source = _run_model_passes(foundation, recipe.model_passes, done)
    stage = _run_file_passes(foundation, source, recipe.model_passes, recipe.passes, done)
    with own_errors((*recipe.float_passes, *recipe.model_passes, *recipe.passes)):
        return _measured(foundation, stage, len(floating.content))


def _measured(foundation: Foundation, stage: CompiledModel, float_bytes: int) -> Made:
    held_out = foundation.data.held_out
    predicted = _predict(stage, held_out.inputs)
    probabilities = predicted if isinstance(predicted, np.ndarray) else None
    golden, difference, tolerance, latency, evaluation = None, None, 0.0, None, None
    if probabilities is not None:
        largest = float(np.abs(probabilities.astype(np.float64) - foundation.float_probabilities).max())
        tolerance = replay_tolerance(largest) if np.isfinite(largest) else 0.0
        golden, difference = _golden(foundation, stage)
        latency = _latency(stage, held_out) if stage.format != "mlpackage" else None
        task = foundation.source.task
        evaluation = evaluate_parts(task.schema.labels, probabilities, held_out, task.subgroup)
    return Made(
        stage=stage,
        float_bytes=float_bytes,
        facts=read_facts(stage.format, stage.content, _one_sample(foundation, stage)),
        probabilities=probabilities,
        not_run="" if isinstance(predicted, np.ndarray) else predicted.reason,
        golden=golden,
        replay_difference=difference,
        replay_tolerance=tolerance,
        latency=latency,
        executed_by=_executed_by(stage) if probabilities is not None else "",
        evaluation=evaluation,
    )


def _one_sample(foundation: Foundation, stage: CompiledModel) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of one prediction for an ONNX file, which leaves the batch open."""
    if stage.format != "onnx":
        return None
    specs = {spec.name: spec.shape for spec in foundation.source.task.schema.inputs}
    return {tensor.tensor: (1, *specs[tensor.name]) for tensor in stage.inputs}


def _executed_by(stage: CompiledModel) -> str:
    if stage.format == "onnx":
        from hedgerow.compile.runners.onnx import executed_by as of_onnx
        from hedgerow.compile.runners.onnx import open_session

        return of_onnx(open_session(stage.content))
    if stage.format == "tflite":
        from hedgerow.compile.runners.tflite import executed_by as of_tflite

        return of_tflite(stage.content)
    return "Hedgerow's reference evaluation of Core ML's operators"


def _predict(stage: CompiledModel, inputs: Mapping[str, NDArray[Any]]) -> "NDArray[np.float32] | UnknownOperator":
    if stage.format == "onnx":
        from hedgerow.compile.runners.onnx import predict_onnx

        return predict_onnx(stage, inputs)
    if stage.format == "tflite":
        from hedgerow.compile.runners.tflite import predict_tflite

        return predict_tflite(stage, inputs)
    # Core ML itself predicts on Apple's systems only.
    from hedgerow.compile.coreml_evaluation.evaluate import predict_coreml

    return predict_coreml(stage.content, {t.tensor: to_stored(inputs[t.name], t) for t in stage.inputs})


def _latency(stage: CompiledModel, held_out: Dataset) -> HostLatency:
    """Time single predictions of a file that this host runs."""
    values = {t.tensor: to_stored(held_out.inputs[t.name][:1], t) for t in stage.inputs}
    if stage.format == "onnx":
        from hedgerow.compile.runners.onnx import open_session

        session = open_session(stage.content)
        return measure_latency(lambda: session.run(None, values), time.perf_counter)
    from hedgerow.compile.runners.tflite import open_signature

    run = open_signature(stage.content)
    return measure_latency(lambda: run(values), time.perf_counter)


def _golden(foundation: Foundation, stage: CompiledModel) -> tuple[bytes, float]:
    """Return the golden samples, and how far a replay sample by sample is from them."""
    samples = choose_samples(foundation.data.held_out)
    outputs = _predict(stage, samples.inputs)
    replayed = [
        _predict(stage, {name: values[index : index + 1] for name, values in samples.inputs.items()})
        for index in range(len(samples))
    ]
    rows = [row for row in replayed if isinstance(row, np.ndarray)]
    if not isinstance(outputs, np.ndarray) or len(rows) != len(samples):
        raise ValueError("golden samples need a file that this host runs or evaluates")
    difference = float(np.abs(np.concatenate(rows) - outputs).max())
    return encode_golden(samples.inputs, {stage.outputs[0].name: outputs}), difference
