"""The student of a task: a smaller model with the same arguments and outputs, and what its teacher says."""

from typing import Any

import torch
from torch import nn

from hedgerow.compile.errors import PassError, UnsuitableError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.passes.model.training import input_tensors, training_data
from hedgerow.task_module import LogitsModule

__all__ = ["given_shapes", "make_student", "teacher_outputs"]

_BATCH = 256


def make_student(step: str, source: FloatModel) -> nn.Module:
    """Return a new student with weights drawn from the source's seed.

    Raises:
        UnsuitableError: The task names none.
        PassError: It cannot be made, or its outputs have another shape than the model's.
    """
    make = source.task.student
    if make is None:
        raise UnsuitableError(
            step, "a task with a student", f"{source.task.name!r}, which names none", "give it student="
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.seed)
        # The user's code may raise anything; the message must name the step.
        try:
            student = make()
        except Exception as exc:
            raise PassError(step, f"student() raised {type(exc).__name__}: {exc}") from exc
    inputs = example_inputs(source.task.schema, 1)
    with torch.no_grad():
        wanted = given_shapes(LogitsModule(source.task, source.model.eval())(*inputs))
        try:
            found = given_shapes(LogitsModule(source.task, student.eval())(*inputs))
        # A student that does not take the task's arguments fails inside torch.
        except (RuntimeError, TypeError, ValueError) as exc:
            raise PassError(step, f"the student does not run on the task's inputs: {str(exc).splitlines()[0]}") from exc
    if wanted != found:
        raise PassError(step, f"the student's outputs are {_told(found)}, the model's {_told(wanted)}")
    return student


def given_shapes(given: Any) -> tuple[tuple[int, ...], ...]:
    """Return the shape of what a model gives: of a tensor, or with several outputs of each of them."""
    return tuple(tuple(part.shape) for part in (given if isinstance(given, tuple) else (given,)))


def _told(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join(str(list(shape)) for shape in shapes)


def teacher_outputs(step: str, source: FloatModel) -> tuple[torch.Tensor, ...]:
    """Return what the model gives for all training samples, in their order, by output.

    Raises:
        PassError: There is no training data.
    """
    inputs = input_tensors(source, training_data(step, source))
    module = LogitsModule(source.task, source.model).eval()
    with torch.no_grad():
        rows = [
            module(*(values[start : start + _BATCH] for values in inputs)) for start in range(0, len(inputs[0]), _BATCH)
        ]
    columns = zip(*(row if isinstance(row, tuple) else (row,) for row in rows), strict=True)
    return tuple(torch.cat(column) for column in columns)
