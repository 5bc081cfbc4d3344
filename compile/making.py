"""Make the file of a recipe, and read what it holds."""

from collections.abc import Sequence

from hedgerow.compile.foundation import Foundation, Made
from hedgerow.compile.inspection.model import read_facts
from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.kinds import ModelPass, Pass
from hedgerow.compile.passes.runner import own_errors, run_file_pass, run_model_pass
from hedgerow.compile.recipe import FilePasses, Recipe
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
    """Return the file of *recipe*.

    Raises:
        PassError: A pass failed.
        UnsuitableError: A pass needs something that the task does not have.
    """
    floating = _run_file_passes(foundation, foundation.source, (), recipe.float_passes, None)
    source = _run_model_passes(foundation, recipe.model_passes, done)
    stage = _run_file_passes(foundation, source, recipe.model_passes, recipe.passes, done)
    with own_errors((*recipe.float_passes, *recipe.model_passes, *recipe.passes)):
        facts = read_facts(stage.format, stage.content, _one_sample(foundation, stage))
    return Made(stage=stage, float_bytes=len(floating.content), facts=facts)


def _one_sample(foundation: Foundation, stage: CompiledModel) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of one prediction for an ONNX file, which leaves the batch open."""
    if stage.format != "onnx":
        return None
    specs = {spec.name: spec.shape for spec in foundation.source.task.schema.inputs}
    return {tensor.tensor: (1, *specs[tensor.name]) for tensor in stage.inputs}
