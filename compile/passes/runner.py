"""The one place where passes run: it checks what goes in and comes out, silences tools, and names who failed.

Whatever a library raises becomes a :class:`~hedgerow.compile.errors.PassError` of the pass. What stays what it is:
errors of Hedgerow's own tree that say more, mistakes in Hedgerow's own lines, what a task's own functions raise, and
what the system says of its disk.
"""

import contextlib
import errno
import io
import logging
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from hedgerow.blame import is_ours, is_raised_by_hedgerow
from hedgerow.compile.blame import is_raised_by_task
from hedgerow.compile.errors import CompileError, PassError, UnsuitableError
from hedgerow.compile.inspection.border import read_border
from hedgerow.compile.inspection.model import check_readable
from hedgerow.compile.pass_models import CompiledModel, FloatModel, ForeignModel, PassModel
from hedgerow.compile.passes.diagnosis import chain, diagnose
from hedgerow.compile.passes.kinds import MODEL, ExportPass, FilePass, ModelPass, Pass
from hedgerow.errors import DecodeError, HedgerowError
from hedgerow.installation import extra_of, install_command, is_installed
from hedgerow.manifest.content import Tensor
from hedgerow.task import Task

__all__ = ["own_errors", "run_file_pass", "run_model_pass", "tool_errors"]

_SYSTEM = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    }
)
"""What the system says of its disk and memory, whatever the model is."""
_PERMISSIONS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_LONGEST = 300


def run_model_pass(step: ModelPass, source: FloatModel) -> FloatModel:
    """Return *source* with the model that *step* makes of its model.

    Raises:
        PassError: The step failed, or gave no model.
        UnsuitableError: It needs something that the task does not have, or the task has state.
    """
    if source.task.state:
        found = f"the state {', '.join(source.task.state)} of {source.task.name!r}"
        raise UnsuitableError(
            step.name, "a model without state to change", found, "choose a recipe that exports the model as it is"
        )
    with tool_errors(step.name, source.task, own=_is_own(step)):
        model = step.apply(source)
    from torch import nn

    if not isinstance(model, nn.Module):
        raise PassError(step.name, f"it gave a {type(model).__name__} and no torch model")
    return replace(source, model=model)


def run_file_pass(
    step: ExportPass | FilePass, source: FloatModel | ForeignModel, stage: CompiledModel | None
) -> CompiledModel:
    """Return the file that *step* makes.

    Args:
        step: The pass.
        source: The float model, or what stands for it where the first file came from elsewhere.
        stage: The file so far; None for an export, which begins anew whatever there is.

    Raises:
        PassError: The step failed, was given another format or something unreadable, or gave one.
        UnsuitableError: It needs something that the task does not have.
    """
    if isinstance(source, ForeignModel):
        source = replace(source, step=step.name)
        if isinstance(step, ExportPass):
            expected, advice = "a torch model to export", "choose a recipe whose passes work on files"
            raise UnsuitableError(step.name, expected, "a file from elsewhere", advice)
        made: Any = _applied(step, source, stage)
    elif isinstance(step, ExportPass):
        with tool_errors(step.name, own=_is_own(step), exported=source):
            made = step.apply(source)
    else:
        made = _applied(step, source, stage)
    if not isinstance(made, CompiledModel):
        raise PassError(step.name, f"it gave a {type(made).__name__} and no file")
    if made.format != step.gives:
        raise PassError(step.name, f"it gives {step.gives} files, and gave a file in the format {made.format}")
    _check_given(step, made, source)
    return _with_state(step, made, source.schema.state)


def _with_state(step: ExportPass | FilePass, made: CompiledModel, state: Mapping[str, str]) -> CompiledModel:
    """Return a file that knows its state, stored alike at both ends.

    Raises:
        PassError: The ends have different types.
    """
    made = replace(made, state=state)
    if made.format != "tflite" or not state:
        return made
    from hedgerow.compile.passes.tflite.state_ends import with_equal_ends

    with tool_errors(step.name):
        return with_equal_ends(made)


def _applied(step: FilePass, source: PassModel, stage: CompiledModel | None) -> Any:
    given = _taken(step, stage)
    with tool_errors(step.name, own=_is_own(step)):
        return step.apply(given, source)


def _check_given(step: ExportPass | FilePass, made: CompiledModel, source: PassModel) -> None:
    """Refuse what no later step could read; of a user's own pass also tensors that the file or the task does not have.

    Raises:
        PassError: It is such a file.
    """
    content: object = made.content
    if not isinstance(content, bytes):
        raise PassError(step.name, f"it gave a {type(content).__name__} as the file's content and no bytes")
    with tool_errors(step.name):
        check_readable(made.format, content)
    if not _is_own(step):
        return
    schema = source.schema
    border: Any = ([], [])
    if made.format != "mlpackage":
        border = read_border(made.format, content)
    for what, named, specs, there in (
        ("inputs", made.inputs, schema.inputs, border[0]),
        ("outputs", made.outputs, schema.outputs, border[1]),
    ):
        tensors: Any = named
        if not isinstance(tensors, tuple) or not all(isinstance(tensor, Tensor) for tensor in tensors):
            raise PassError(step.name, f"it gave something else than a tuple of Tensor as {what}")
        found, wanted = sorted(tensor.name for tensor in tensors), sorted(spec.name for spec in specs)
        if found != wanted:
            raise PassError(step.name, f"it names the {what} {found} and the task {wanted}")
        inside = {tensor.tensor for tensor in there}
        absent = sorted(tensor.tensor for tensor in tensors if inside and tensor.tensor not in inside)
        if absent:
            raise PassError(step.name, f"it names {absent[0]!r} among the {what}, and its file has {sorted(inside)}")


def _is_own(step: Pass) -> bool:
    """Say whether a pass is a user's own."""
    return not is_ours(type(step).__module__)


@contextlib.contextmanager
def own_errors(steps: Iterable[Pass]) -> Iterator[None]:
    """Name the last of a user's own *steps* in what goes wrong with the file that they made; none: do nothing.

    Raises:
        PassError: A runtime or a parser failed on the file.
    """
    own = [step for step in steps if _is_own(step)]
    with tool_errors(own[-1].name, own=True) if own else contextlib.nullcontext():
        yield


def _taken(step: FilePass, stage: CompiledModel | None) -> CompiledModel:
    """Return *stage*, which is a file that *step* takes."""
    found = MODEL if stage is None else stage.format
    if stage is None or found != step.takes:
        raise PassError(step.name, f"it takes {step.takes} files, and was given a {found}")
    with tool_errors(step.name):
        check_readable(stage.format, stage.content)
    return stage


@contextlib.contextmanager
def tool_errors(
    name: str, task: Task | None = None, *, own: bool = False, exported: FloatModel | None = None
) -> Iterator[None]:
    """Keep libraries quiet, and name the step in whatever they raise.

    Args:
        name: Of the step.
        task: Whose own functions are called as they are: what they raise stays what it is. None: a library reads
            them, and says what it cannot read.
        own: It is a user's own, so that its own files and the errors of our tree that it raises are its matter.
        exported: The model that it exports, to find in there what it met.

    Raises:
        PassError: A library failed, or could not read what it was given.
    """
    logged = logging.root.manager.disable
    # Converters warn of each other's deprecated parts and of every number that is too small for float16; the parity
    # check sees what that costs. Some print their progress.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(max(logged, logging.WARNING))
        try:
            yield
        except DecodeError as exc:
            raise PassError(name, str(exc)) from exc
        except HedgerowError as exc:
            if own and not isinstance(exc, CompileError):
                raise PassError(name, _said(exc)) from exc
            raise
        # Libraries raise what they like, and some leave the process; the message must name the step all the same.
        except (Exception, SystemExit) as exc:
            if is_raised_by_hedgerow(exc) or _misses_ours(exc) or (task is not None and is_raised_by_task(exc, task)):
                raise
            if isinstance(exc, OSError) and exc.errno in (_SYSTEM - _PERMISSIONS if own else _SYSTEM):
                raise
            said = _said(exc)
            cause, advice = (diagnose(exc, exported, said) if exported is not None else None) or (said, "")
            _let_go(exc)
            raise PassError(name, cause, advice) from exc
        finally:
            logging.disable(logged)


def _let_go(exc: BaseException) -> None:
    """Give back what the frames that *exc* went through hold: a converter's temporary folder, several models.

    As long as the error is kept they would be, too, and some of them complain when the collector finds them.
    """
    for one in chain(exc):
        traceback.clear_frames(one.__traceback__)
        for frame, _line in traceback.walk_tb(one.__traceback__):
            # Whoever looked at them has left a copy in the frame, which is brought up to date by looking again.
            _ = frame.f_locals


def _misses_ours(exc: BaseException) -> bool:
    """Say whether a module of Hedgerow's own could not be imported."""
    return isinstance(exc, ModuleNotFoundError) and is_ours(exc.name or "")


def _said(exc: BaseException) -> str:
    """Return what went wrong in the first place, in one line, and what to install where that is it."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    if isinstance(exc, ModuleNotFoundError) and not is_installed(str(exc.name)) and (extra := extra_of(exc.name)):
        return f"the module {exc.name!r} is not installed; run: {install_command(extra)}"
    said = (str(exc).strip().splitlines() or [""])[0][:_LONGEST]
    return f"{type(exc).__name__}: {said}"
