"""A compile worker: a process that imports one toolchain, takes jobs from its channel and answers there.

Everything that converters print goes to the standard output, which the parent keeps in a file.
"""

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from hedgerow.children.channel import MessageChannel
from hedgerow.compile.blame import blamed
from hedgerow.compile.errors import CompileError, DiskError
from hedgerow.compile.failures import encode_failure
from hedgerow.compile.messages import Job, Unit, decode_job, decode_message, progress_record
from hedgerow.compile.toolchains import TOOLCHAINS, UNWANTED, check_installed
from hedgerow.decode import encode_json
from hedgerow.errors import HedgerowError, UnknownNameError
from hedgerow.progress import Progress
from hedgerow.task import load_task

__all__ = ["serve"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_COREML_WRITER = "[MIL FileWriter]"
_LOG = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def _hidden(names: Sequence[str]) -> Iterator[None]:
    """Make modules look absent; a task may import them afterwards."""
    modules: dict[str, Any] = sys.modules
    before = {name: modules[name] for name in names if name in modules}
    # None is the import system's mark of a module that is known to be absent.
    modules.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names:
            del modules[name]
        modules.update(before)


def _import_toolchain(name: str) -> None:
    import warnings

    check_installed(name, ("torch", *TOOLCHAINS[name]))
    with warnings.catch_warnings(), _hidden(UNWANTED.get(name, ())):
        warnings.simplefilter("ignore")
        for module in TOOLCHAINS[name]:
            import_module(module)
    from hedgerow.compile.units import settle_threads

    settle_threads()


def _work_through(job: Job, workbench: Any, send: Send) -> None:
    """Do every unit of a job; each answer is sent as soon as it is there, and a refusal stops nothing but its unit."""
    from hedgerow.compile.units import artifact_steps, do_unit

    def report(progress: Progress) -> None:
        send({"progress": progress_record(progress)})

    for target, recipe in job.artifacts.items():
        report(Progress(f"compile {target}", 0, artifact_steps(recipe), "load"))
    for kind in job.train_formats:
        report(Progress(f"train graph {kind}", 0, 2, "load"))
    foundation = workbench.foundation(job.task, Path(job.checkpoint), job.weights_sha256)
    # Until here an error concerns every job of this task and checkpoint; from here on, one unit.
    send({"ready": {}})
    for unit in job.units:
        try:
            answer = do_unit(foundation, unit, job, report)
        except (CompileError, UnknownNameError, OSError) as exc:
            send({"refused": {**asdict(unit), "failure": encode_failure(_explained(exc))}})
        # The outermost step of one unit: what nobody expected is a bug of ours, and costs this unit alone.
        except Exception as exc:  # noqa: BLE001 - see above
            _LOG.exception("compile worker")
            send({"refused": {**asdict(unit), "failure": encode_failure(blamed(_doing(unit), exc, job.task))}})
        else:
            send({unit.kind: answer})


def _doing(unit: Unit) -> str:
    return f"compiling {unit.subject}" + (f" by {unit.recipe}" if unit.recipe else "")


def _explained(error: HedgerowError | OSError) -> HedgerowError:
    """Return *error*, or that the disk is full where that is what a library stumbled over."""
    if isinstance(error, OSError):
        return _disk_error(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            return _disk_error(cause)
        cause = cause.__cause__ or cause.__context__
    # Native code has no errno to give; it prints what the system says, or who failed to write.
    writers = (*map(os.strerror, _NO_ROOM), _COREML_WRITER)
    return DiskError(str(error)) if any(text in str(error) for text in writers) else error


def _disk_error(error: OSError) -> DiskError:
    return DiskError(f"{error.strerror or error}" + (f" at {error.filename}" if error.filename else ""))


def _answer(message: bytes, workbench: list[Any], task: list[str], send: Send) -> None:
    kind, fields = decode_message(message)
    if kind == "warm":
        _import_toolchain(fields.text("toolchain"))
        send({"warmed": {}})
        return
    job = decode_job(fields)
    task.append(job.task)
    sys.path[:] = job.search_path
    # Before the slow imports: a task that cannot be imported is told at once.
    load_task(job.task)
    _import_toolchain(job.toolchain)
    from hedgerow.compile.foundation import Workbench

    if not workbench:
        workbench.append(Workbench())
    _work_through(job, workbench[0], send)
    send({"finished": {}})


def serve(channel: MessageChannel) -> None:
    """Do jobs until the parent closes the channel."""
    logging.basicConfig(level=logging.WARNING)
    workbench: list[Any] = []
    task = ["?"]

    def send(message: dict[str, Any]) -> None:
        channel.send(encode_json(message))

    while (message := channel.receive()) is not None:
        try:
            _answer(message, workbench, task, send)
        except HedgerowError as exc:
            send({"failed": encode_failure(exc)})
        except OSError as exc:
            send({"failed": encode_failure(_disk_error(exc))})
        # The outermost loop of this process: an unexpected error is logged, and told to whoever waits.
        except Exception as exc:  # noqa: BLE001 - see above
            _LOG.exception("compile worker")
            send({"failed": encode_failure(blamed("compiling", exc, task[-1]))})
