"""Make the file of a recipe, and read what it holds."""

from collections.abc import Sequence
from dataclasses import replace

from hedgerow.compile.errors import UnsuitableError
from hedgerow.compile.foundation import Foundation, Made
from hedgerow.compile.inspection.model import read_facts
from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.examples import file_shape
from hedgerow.compile.passes.kinds import ModelPass, Pass
from hedgerow.compile.passes.runner import own_errors, run_file_pass, run_model_pass, tool_errors
from hedgerow.compile.preparation.beside import make_beside
from hedgerow.compile.preparation.c_interface import PREPARE
from hedgerow.compile.preparation.halves import Halves
from hedgerow.compile.recipe import FilePasses, Recipe, plain_export
from hedgerow.progress import Progress, Report

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
    stages = foundation.stages.setdefault(source.task.preprocess is None, {})
    for step in steps:
        path = (*path, step)
        if path not in stages:
            stages[path] = run_file_pass(step, source, stage)
        stage = stages[path]
        if done is not None:
            done(step.name)
    if stage is None:
        raise ValueError("a recipe has no passes")
    return stage


def make(foundation: Foundation, recipe: Recipe, done: Steps, *, all_integer: bool = False) -> Made:
    """Return the file of *recipe*.

    Pre-processing is never quantized together with what is unlike. Where floats run it is float: the passes that make
    the file work on the model's half of the task, and the other half is put before it. Where they do not, and 8 bits
    would lose what the model needs, the file takes prepared samples, and the other half goes beside it. Core ML's
    activations are never quantized.

    Args:
        foundation: Of the task and the checkpoint.
        recipe: How the file is made.
        done: Told each pass.
        all_integer: Whether it is for a target that holds no float.

    Raises:
        PassError: A pass failed.
        UnsuitableError: A pass needs something that the task does not have, or what prepares samples has no C.
    """
    _check_missing(foundation)
    steps = (*recipe.float_passes, *recipe.model_passes, *recipe.passes)
    beside = foundation.prepared_beside() if all_integer else None
    inside = foundation.halves if recipe.format != "mlpackage" and not all_integer else None
    source = _run_model_passes(foundation, recipe.model_passes, done)
    untouched, changed = foundation.source, source
    if (halves := beside or inside) is not None:
        untouched, changed = halves.second(untouched), halves.second(changed)
    floating = _run_file_passes(foundation, untouched, (), recipe.float_passes, None)
    stage = _run_file_passes(foundation, changed, recipe.model_passes, recipe.passes, done)
    with own_errors(steps):
        facts = read_facts(stage.format, stage.content, _one_sample(changed, stage))
    if inside is not None:
        floating, stage = _joined(inside, floating, steps), _joined(inside, stage, steps)
        own = facts
        with own_errors(steps):
            facts = read_facts(stage.format, stage.content, _one_sample(source, stage))
        # What a recipe promises, it promises of the model's own weights.
        facts = replace(facts, quantized_weights=own.quantized_weights, float_weights=own.float_weights)
    elif foundation.halves is not None and stage.format == "mlpackage":
        with own_errors(steps):
            # What prepares samples is in float32, and nothing else is.
            facts = replace(facts, float_weights=facts.float_weights - _float32_weights(stage.content))
    made = Made(stage=stage, float_bytes=len(floating.content), facts=facts, all_integer=all_integer)
    if beside is None:
        return made
    name, inputs = foundation.source.task.name, foundation.data.held_out.inputs
    with tool_errors(plain_export(stage.format).name):
        return replace(made, beside=make_beside(name, beside, stage, inputs))


def _float32_weights(content: bytes) -> int:
    from hedgerow.compile.inspection.coreml import float32_weights

    return float32_weights(content)


def _check_missing(foundation: Foundation) -> None:
    """Refuse missing values that no float half would take care of."""
    missing = [spec.name for spec in foundation.source.task.inputs if spec.missing]
    if missing and foundation.halves is None:
        raise UnsuitableError(
            PREPARE,
            f"a preprocess from a batch of samples to batches of tensors, as {missing[0]} may be missing",
            "one that cannot be cut off from the model",
            "return tensors that begin with the batch; a NaN has no place in integers",
        )


def _joined(halves: Halves, second: CompiledModel, steps: Sequence[Pass]) -> CompiledModel:
    """Return the whole file: what prepares a sample, in float, and then *second*, which *steps* made.

    Raises:
        PassError: The first half cannot be written in the format, or not be put before *second*.
    """
    # It fails as any export of the task to this format does.
    with tool_errors(plain_export(second.format).name):
        first = halves.first(second.format)
    with tool_errors("join-prepare"), own_errors(steps):
        if second.format == "onnx":
            from hedgerow.compile.preparation.joint_onnx import joined_onnx

            return joined_onnx(first, second)
        from hedgerow.compile.preparation.joint_tflite import joined_tflite

        return joined_tflite(first, second)


def _one_sample(source: FloatModel, stage: CompiledModel) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of one prediction for an ONNX file, which leaves the batch open."""
    if stage.format != "onnx":
        return None
    schema = source.task.schema
    shapes = {spec.name: file_shape(schema, spec, 1) for spec in schema.inputs}
    return {tensor.tensor: shapes[tensor.name] for tensor in stage.inputs}
