"""The student of a task: a smaller model with the same arguments and outputs, and what its teacher says."""

import torch
from torch import nn

from hedgerow.compile.errors import PassError, UnsuitableError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.passes.model.training import input_tensors, training_data
from hedgerow.task_module import LogitsModule

__all__ = ["make_student", "teacher_logits"]

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
        wanted = LogitsModule(source.task, source.model.eval())(*inputs).shape
        try:
            found = LogitsModule(source.task, student.eval())(*inputs).shape
        # A student that does not take the task's arguments fails inside torch.
        except (RuntimeError, TypeError, ValueError) as exc:
            raise PassError(step, f"the student does not run on the task's inputs: {str(exc).splitlines()[0]}") from exc
    if wanted != found:
        raise PassError(step, f"the student's outputs are {list(found)}, the model's {list(wanted)}")
    return student


def teacher_logits(step: str, source: FloatModel) -> torch.Tensor:
    """Return the model's logits for all training samples, in their order.

    Raises:
        PassError: There is no training data.
    """
    inputs = input_tensors(source, training_data(step, source))
    module = LogitsModule(source.task, source.model).eval()
    with torch.no_grad():
        return torch.cat(
            [
                module(*(values[start : start + _BATCH] for values in inputs))
                for start in range(0, len(inputs[0]), _BATCH)
            ]
        )
