"""Whose fault an unexpected exception is: ours, or that of the task's own code.

What a user gave is blamed only for what a parser or a runtime said of it, or for what the user's own functions raised.
Everything else that nobody expected is a bug of Hedgerow's, and is told as one.
"""

import sys

from hedgerow.blame import frames, is_library, is_ours
from hedgerow.compile.errors import internal_error
from hedgerow.errors import HedgerowError, TaskError
from hedgerow.task import Task

__all__ = ["blamed", "is_raised_by_task"]


def blamed(step: str, exc: Exception, task: str) -> HedgerowError:
    """Return the error that names whose code raised *exc*, an exception that no one in between expected.

    Of our code and the task's, the one that was called last raised it, or called what did.

    Args:
        step: What was being done.
        exc: The exception, with its traceback.
        task: The task's reference, for the message.
    """
    place = None
    for traceback in frames(exc.__traceback__):
        frame = traceback.tb_frame
        if is_ours(frame.f_globals.get("__name__", "")):
            place = None
        elif not is_library(frame.f_code.co_filename):
            place = f"{frame.f_code.co_name}() in {frame.f_code.co_filename}, line {traceback.tb_lineno}"
    if place is None:
        return internal_error(step, exc)
    said = " ".join(str(exc).split())[:300]
    return TaskError(repr(task), [f"{place}, raised {type(exc).__name__} in {step}: {said}"])


def is_raised_by_task(exc: BaseException, task: Task) -> bool:
    """Say whether the task's own functions raised *exc*, or called what did, and not a line of ours after them."""
    functions = (task.model, task.student, task.loss, task.preprocess)
    files = {getattr(sys.modules.get(getattr(function, "__module__", "")), "__file__", None) for function in functions}
    found = False
    for traceback in frames(exc.__traceback__):
        frame = traceback.tb_frame
        if is_ours(frame.f_globals.get("__name__", "")):
            found = False
        elif frame.f_code.co_filename in files and not is_library(frame.f_code.co_filename):
            found = True
    return found
