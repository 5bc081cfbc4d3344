"""Files from elsewhere, each look at them in a process of its own.

A runtime or a parser that meets bytes which it was not written for may abort, overwrite memory or never end. None of
that may reach who asked: every step on such a file runs in :mod:`hedgerow.compile.foreign_worker`, with bounds on time
and memory, and a process that dies is an error that names signal, runtime, file and step. Its answers are decoded as
strictly as anything from outside, because the bytes may have changed what it says.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.arena import Arena
from hedgerow.compile.errors import ForeignFileError
from hedgerow.compile.failures import decode_failure
from hedgerow.compile.inspection.border import Border
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.toolchains import PARSERS, RUNTIME_NAMES, check_installed
from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import DecodeError
from hedgerow.interrupts import hold_interrupts
from hedgerow.manifest.content import Tensor
from hedgerow.weights import decode_arrays, encode_arrays

__all__ = ["MEMORY_BYTES", "TIMEOUT_S", "ForeignFile", "Replay"]

TIMEOUT_S = 300.0
"""How long one step may take: a prediction of a large model on a busy machine is a matter of seconds."""
MEMORY_BYTES = 32 * 2**30
"""Address space of such a process; what asks for more gets none."""
_MODULE = "hedgerow.compile.foreign_worker"
_ANSWER_LIMIT_BYTES = 64 * 2**20
_OUTPUT_LIMIT_BYTES = 512 * 2**20
_CHUNK_BYTES, _TAIL_BYTES = 2**16, 4000
_END_TIMEOUT_S = 10.0
_STEP = re.compile(r"[a-z][a-z ]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Predictions of a file, made twice, each time in a new session.

    Attributes:
        outputs: Schema name -> ``float32[n, ...]`` of the first time.
        difference: The largest absolute difference between the two; infinity where one gave a NaN.
        executed_by: What really ran it, with its version.
    """

    outputs: Mapping[str, NDArray[Any]]
    difference: float
    executed_by: str


class ForeignFile:
    """A file whose bytes are not ours; a context manager.

    Args:
        name: Of the file, for messages.
        kind: Its format.
        content: The bytes.
        timeout_s: How long one step may take.
    """

    def __init__(self, name: str, kind: str, content: bytes, *, timeout_s: float = TIMEOUT_S) -> None:
        self.name, self.kind, self.content = name, kind, content
        self._timeout_s = timeout_s
        self._opened = contextlib.ExitStack()
        self._folder = Path()

    def __enter__(self) -> Self:
        """Write the bytes where the processes find them."""
        with contextlib.ExitStack() as stack:
            made = tempfile.TemporaryDirectory(prefix="hedgerow-foreign-", ignore_cleanup_errors=True)
            self._folder = Path(stack.enter_context(made))
            (self._folder / "model").write_bytes(self.content)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        """Remove them."""
        self._opened.close()

    def facts(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> FileFacts:
        """Read what the file holds; see :func:`hedgerow.compile.inspection.model.read_facts`.

        Raises:
            DecodeError: The bytes are no file of this format.
            ExtraNotInstalledError: The package that reads the format is absent.
            ForeignFileError: The parser died or hung.
            InputShapeError: *shapes* does not fit the file's inputs.
        """
        request = {"shapes": {name: {"sizes": list(shape)} for name, shape in (shapes or {}).items()}}
        fields = self._ask("facts", request, f"the {self.kind} parser")
        facts = FileFacts.from_fields(fields.nested("facts"))
        fields.finish()
        return facts

    def border(self) -> Border:
        """Read inputs and outputs; see :func:`hedgerow.compile.inspection.border.read_border`.

        Raises:
            DecodeError: The bytes are no file of this format, or its tensors have no border that can be named.
            ForeignFileError: The parser died or hung.
        """
        fields = self._ask("border", {}, f"the {self.kind} parser")
        border = (
            fields.sequence("inputs", Tensor.from_fields, maximum_items=64),
            fields.sequence("outputs", Tensor.from_fields, maximum_items=64),
        )
        fields.finish()
        return border

    def arena(self) -> Arena:
        """Search the smallest arena of TensorFlow Lite Micro, and run the file in it once.

        Raises:
            ForeignFileError: TensorFlow Lite Micro died or hung.
            RuntimeRefusedError: It does not take the file.
        """
        fields = self._ask("arena", {}, RUNTIME_NAMES["tflite-micro"])
        arena = Arena.from_fields(fields.nested("arena"))
        fields.finish()
        return arena

    def replay(
        self,
        runtime: str,
        inputs: Mapping[str, NDArray[Any]],
        border: Border,
        *,
        arena_bytes: int = 0,
    ) -> Replay:
        """Predict samples twice.

        Args:
            runtime: Key of :data:`hedgerow.compile.toolchains.RUNTIME_NAMES`.
            inputs: Schema name -> ``(n, *shape)``, in real numbers.
            border: The file's inputs and outputs, with the schema's names.
            arena_bytes: For ``tflite-micro``.

        Raises:
            ForeignFileError: The runtime died or hung.
            RuntimeRefusedError: It does not take the file.
        """
        folder = self._folder
        (folder / "inputs").write_bytes(encode_arrays(inputs))
        request = {
            "runtime": runtime,
            "arena_bytes": arena_bytes,
            "inputs": [tensor.to_record() for tensor in border[0]],
            "outputs": [tensor.to_record() for tensor in border[1]],
        }
        fields = self._ask("replay", request, RUNTIME_NAMES[runtime])
        difference = fields.optional_number("difference", minimum=0)
        executed_by = fields.text("executed_by", maximum_chars=256)
        fields.finish()
        samples = len(next(iter(inputs.values())))
        outputs = _read_outputs(folder / "outputs", border[1], samples)
        return Replay(outputs=outputs, difference=np.inf if difference is None else difference, executed_by=executed_by)

    def _ask(self, work: str, request: Mapping[str, Any], runtime: str) -> Fields:
        """Do one piece of work in a process of its own and return its answer."""
        if self.kind in PARSERS:
            check_installed(self.kind, (PARSERS[self.kind],))
        payload = encode_json({"work": work, "kind": self.kind, "folder": str(self._folder), **request})
        with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:
            # An interrupt between the start of the process and what ends it would leave it to nobody.
            with hold_interrupts():
                process, answers = _start(payload, log)
                stack.callback(_end, process, answers)
            taken = _Taken(self.name, runtime)
            try:
                taken.read(answers, time.monotonic() + self._timeout_s, self._timeout_s)
                # The end belongs to the step: a runtime whose memory is in ruins often dies when it lets go of it.
                code = process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired as exc:
                raise taken.failed(f"no end within {_END_TIMEOUT_S:g} s of its answer") from exc
            return taken.result(code, _last_output(log))


class _Taken:
    """What came from one process so far."""

    def __init__(self, name: str, runtime: str) -> None:
        self._name, self._runtime = name, runtime
        self._step = "starting to look at"
        self._buffer = b""
        self._answer: tuple[str, Fields] | None = None

    def read(self, descriptor: int, deadline_s: float, timeout_s: float) -> None:
        """Take whole lines until the process closes its end.

        Raises:
            DecodeError: They are no messages.
            ForeignFileError: The time is over.
        """
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while True:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise self.failed(f"no end within {timeout_s:g} s")
            if not poll.poll(min(left_s, 1.0) * 1000):
                continue
            chunk = os.read(descriptor, _CHUNK_BYTES)
            if not chunk:
                return
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            if len(self._buffer) > _ANSWER_LIMIT_BYTES:
                raise DecodeError("message", f"at most {_ANSWER_LIMIT_BYTES} bytes", f"{len(self._buffer)} bytes")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        fields = decode_json(line, "message", limit_bytes=_ANSWER_LIMIT_BYTES)
        names = fields.names()
        if names == ("step",):
            self._step = fields.text("step", pattern=_STEP)
        elif names in {("answer",), ("failed",)}:
            self._answer = (names[0], fields.nested(names[0]))
        else:
            raise DecodeError("message", "a step, an answer or a failure", ", ".join(names)[:80])

    def failed(self, found: str, signal_name: str = "") -> ForeignFileError:
        """Return the error of a process that did not end as it should."""
        return ForeignFileError(self._name, self._runtime, self._step, found, signal_name=signal_name)

    def result(self, code: int, said: str) -> Fields:
        """Return the answer of a process that has ended.

        Raises:
            ForeignFileError: A signal ended it, or it gave no answer.
            HedgerowError: It answered with a failure.
        """
        last = f" (last output: {said})" if said else ""
        if code < 0:
            name = _signal_name(-code)
            raise self.failed(f"the signal {name}{last}", name)
        if self._answer is None:
            raise self.failed(f"exit code {code} and no answer{last}")
        kind, fields = self._answer
        if kind == "failed":
            raise decode_failure(fields)
        return fields


def _start(payload: bytes, log: IO[bytes]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process, hand it its work, and return it with the end of the pipe that it answers on."""
    answers, answer_end = os.pipe()
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONHASHSEED": "0"}
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE, str(answer_end), str(os.getpid()), str(MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(answer_end,),
            env={**os.environ, **single, **quiet},
        )
    except BaseException:
        os.close(answers)
        raise
    finally:
        os.close(answer_end)
    if process.stdin is not None:
        # A process that is gone already is told of by its exit code.
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(payload)
    return process, answers


def _end(process: subprocess.Popen[bytes], answers: int) -> None:
    """Stop a process that still runs, and close our end of its pipe."""
    os.close(answers)
    if process.poll() is None:
        process.kill()
        process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"number {number}"


def _last_output(log: IO[bytes]) -> str:
    """Return the last line that a process printed, for messages."""
    size = os.fstat(log.fileno()).st_size
    text = os.pread(log.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode("utf-8", "replace")
    return (text.strip().splitlines() or [""])[-1][:300]


def _read_outputs(path: Path, tensors: Sequence[Tensor], samples: int) -> Mapping[str, NDArray[Any]]:
    """Return predictions that a process has written.

    Raises:
        DecodeError: They are not float32 of these names, for so many samples.
    """
    if not path.is_file() or path.stat().st_size > _OUTPUT_LIMIT_BYTES:
        raise DecodeError("predictions", f"a file of at most {_OUTPUT_LIMIT_BYTES} bytes", "none or a larger one")
    arrays = decode_arrays(path.read_bytes(), "predictions", limit_bytes=_OUTPUT_LIMIT_BYTES)
    if sorted(arrays) != sorted(tensor.name for tensor in tensors):
        raise DecodeError("predictions", "the file's outputs", ", ".join(sorted(arrays))[:200])
    for name, values in arrays.items():
        if values.dtype != np.float32 or values.ndim < 1 or len(values) != samples:
            raise DecodeError(f"predictions.{name}", f"float32 for {samples} samples", f"{values.dtype}{values.shape}")
    return arrays
