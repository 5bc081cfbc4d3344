"""Files from elsewhere, each look at them in a process of its own.

A runtime or a parser that meets bytes which it was not written for may abort, overwrite memory or never end. None of
that may reach who asked: every step on such a file runs in :mod:`hedgerow.compile.foreign_worker`, with bounds on time
and memory, and a process that dies is an error that names signal, runtime, file and step. Its answers are decoded as
strictly as anything from outside, because the bytes may have changed what it says.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hedgerow.children.child import numeric_threads
from hedgerow.children.conversation import converse
from hedgerow.children.ended import Ended
from hedgerow.children.module_child import ModuleChild
from hedgerow.children.output import OutputFile
from hedgerow.closing import Closing
from hedgerow.compile.arena import Arena
from hedgerow.compile.errors import ForeignFileError
from hedgerow.compile.failures import decode_failure
from hedgerow.compile.inspection.border import Border
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.profile.host import HostLatency
from hedgerow.compile.recipe import Recipe
from hedgerow.compile.toolchains import MICRO, PARSERS, RUNTIME_NAMES, check_installed
from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.scratch_folder import ScratchFolder
from hedgerow.weights import decode_arrays, encode_arrays

__all__ = ["TIMEOUT_S", "ForeignFile", "Outline", "Prediction", "Replay"]

TIMEOUT_S = 300.0
"""How long one step may take: a prediction of a large model on a busy machine is a matter of seconds."""
_MODULE = "hedgerow.compile.foreign_worker"
_MESSAGE_LIMIT_BYTES = 64 * 2**20
_OUTPUT_LIMIT_BYTES = 512 * 2**20
_FILE_LIMIT_BYTES = 2 * 2**30
_MAXIMUM_TENSORS = 64
_END_TIMEOUT_S = 10.0
_STEP = re.compile(r"[a-z][a-z ]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predictions of a file.

    Attributes:
        outputs: Schema name -> ``float32[n, ...]``.
        executed_by: What really ran it, with its version.
    """

    outputs: Mapping[str, NDArray[Any]]
    executed_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay(Prediction):
    """Predictions of a file, made twice, each time in a new session.

    Attributes:
        outputs: Of the first time.
        difference: The largest absolute difference between the two; infinity where one gave a NaN.
        latency: Of one prediction on this machine; None for the runtime of microcontrollers.
    """

    difference: float
    latency: HostLatency | None


class Outline(NamedTuple):
    """What a file says of its border.

    Attributes:
        border: Inputs and outputs.
        left_out: One sentence for each output that no schema holds.
    """

    border: Border
    left_out: tuple[str, ...] = ()


class ForeignFile(Closing):
    """A file whose bytes are not ours. It lies in a folder of its own until it is closed.

    Args:
        name: Of the file, for messages.
        kind: Its format.
        content: The bytes.
        timeout_s: How long one step may take.
    """

    def __init__(self, name: str, kind: str, content: bytes, *, timeout_s: float = TIMEOUT_S) -> None:
        self.name, self.kind, self.content = name, kind, content
        self._timeout_s = timeout_s
        self._made = ScratchFolder()
        self._folder = self._made.path
        try:
            (self._folder / "model").write_bytes(content)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the folder."""
        self._made.close()

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

    def outline(self) -> Outline:
        """Read inputs and outputs; see :func:`hedgerow.compile.inspection.border.read_outline`.

        Raises:
            DecodeError: The bytes are no file of this format, or its tensors have no border that can be named.
            ForeignFileError: The parser died or hung.
        """
        fields = self._ask("border", {}, f"the {self.kind} parser")
        border = (
            fields.sequence("inputs", Tensor.from_fields, maximum_items=_MAXIMUM_TENSORS),
            fields.sequence("outputs", Tensor.from_fields, maximum_items=_MAXIMUM_TENSORS),
        )
        outline = Outline(border, fields.texts("left_out", maximum_items=_MAXIMUM_TENSORS, maximum_chars=4096))
        fields.finish()
        return outline

    def fixed(self, shapes: Mapping[str, tuple[int, ...]]) -> "ForeignFile":
        """Return the file with these sizes of its inputs; see :func:`hedgerow.compile.inspection.model.fix_shapes`.

        Raises:
            DecodeError: The bytes are no file of this format, or the file cannot be written with these sizes.
            ForeignFileError: The parser died or hung.
            InputShapeError: *shapes* does not fit the file's inputs.
        """
        request = {"shapes": {name: {"sizes": list(shape)} for name, shape in shapes.items()}}
        self._ask("fix", request, f"the {self.kind} parser").finish()
        return ForeignFile(self.name, self.kind, self._made_file(), timeout_s=self._timeout_s)

    def inlined(self, beside: Path) -> "ForeignFile":
        """Return an ONNX file with the weights that stand in other files.

        It is :func:`hedgerow.compile.inspection.onnx.outside.inlined` in a process of its own.

        Args:
            beside: The folder of those files.

        Raises:
            DecodeError: The bytes are no ONNX file, or its weights are not there.
            ForeignFileError: The parser died or hung.
        """
        self._ask("inline", {"beside": str(beside.absolute())}, f"the {self.kind} parser").finish()
        return ForeignFile(self.name, self.kind, self._made_file(), timeout_s=self._timeout_s)

    def converted(
        self,
        recipe: Recipe,
        schema: ModelSchema,
        border: Border,
        calibration: Mapping[str, NDArray[Any]],
        *,
        timeout_s: float,
    ) -> tuple["ForeignFile", Border]:
        """Return what a recipe's file passes make of the file, in the place of what its export would give.

        Args:
            recipe: It begins with the plain export of this format.
            schema: Of the file.
            border: Its inputs and outputs, with the schema's names.
            calibration: Schema name -> ``(n, *shape)``.
            timeout_s: How long all passes may take together.

        Returns:
            The new file, and its border with the same names.

        Raises:
            ForeignFileError: The process died or hung.
            PassError: A pass failed.
            UnsuitableError: A pass needs a task or a torch model.
        """
        (self._folder / "inputs").write_bytes(encode_arrays(calibration))
        request = {
            "recipe": recipe.to_record(),
            "schema": schema.to_record(),
            "inputs": [tensor.to_record() for tensor in border[0]],
            "outputs": [tensor.to_record() for tensor in border[1]],
            "seed": 0,
        }
        fields = self._ask("convert", request, f"the recipe {recipe.name}", timeout_s=timeout_s)
        made = (
            fields.sequence("inputs", Tensor.from_fields, maximum_items=_MAXIMUM_TENSORS),
            fields.sequence("outputs", Tensor.from_fields, maximum_items=_MAXIMUM_TENSORS),
        )
        fields.finish()
        return ForeignFile(self.name, self.kind, self._made_file(), timeout_s=self._timeout_s), made

    def _made_file(self) -> bytes:
        """Return the file that a process has made.

        Raises:
            DecodeError: There is none, or it is too large.
        """
        path = self._folder / "made"
        if not path.is_file() or path.stat().st_size > _FILE_LIMIT_BYTES:
            raise DecodeError("file", f"a file of at most {_FILE_LIMIT_BYTES} bytes", "none or a larger one")
        return path.read_bytes()

    def arena(self) -> Arena:
        """Search the smallest arena of TensorFlow Lite Micro, and run the file in it once.

        Raises:
            ForeignFileError: TensorFlow Lite Micro died or hung.
            RuntimeRefusedError: It does not take the file.
        """
        fields = self._ask("arena", {}, RUNTIME_NAMES[MICRO])
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
        state: Mapping[str, str] | None = None,
        steps: int = 1,
    ) -> Replay:
        """Predict samples twice, and time one prediction; see :meth:`predict`."""
        return self._predict(2, runtime, inputs, border, arena_bytes, state or {}, steps)

    def predict(
        self,
        runtime: str,
        inputs: Mapping[str, NDArray[Any]],
        border: Border,
        *,
        arena_bytes: int = 0,
        state: Mapping[str, str] | None = None,
        steps: int = 1,
    ) -> Prediction:
        """Predict samples, one after the other.

        Args:
            runtime: Key of :data:`hedgerow.compile.toolchains.RUNTIME_NAMES`.
            inputs: Schema name -> ``(n, *shape)``, in real numbers.
            border: The file's inputs and outputs, with the schema's names.
            arena_bytes: For ``tflite-micro``.
            state: Input -> the output of the call before that it takes; see
                :func:`hedgerow.compile.runners.samples.predict_samples`.
            steps: How many samples after one another are a sequence.

        Raises:
            ForeignFileError: The runtime died or hung.
            ModelFileError: An output has another size for one sample than for another.
            RuntimeRefusedError: It does not take the file.
        """
        return self._predict(1, runtime, inputs, border, arena_bytes, state or {}, steps)

    def _predict(
        self,
        times: int,
        runtime: str,
        inputs: Mapping[str, NDArray[Any]],
        border: Border,
        arena_bytes: int,
        state: Mapping[str, str],
        steps: int,
    ) -> Replay:
        (self._folder / "inputs").write_bytes(encode_arrays(inputs))
        request = {
            "runtime": runtime,
            "times": times,
            "arena_bytes": arena_bytes,
            "state": {into: {"output": out} for into, out in state.items()},
            "steps": steps,
            "inputs": [tensor.to_record() for tensor in border[0]],
            "outputs": [tensor.to_record() for tensor in border[1]],
        }
        fields = self._ask("predict", request, RUNTIME_NAMES[runtime])
        difference = fields.optional_number("difference", minimum=0)
        executed_by = fields.text("executed_by", maximum_chars=256)
        timed = fields.optional("latency")
        latency = HostLatency.from_fields(timed) if timed is not None else None
        fields.finish()
        samples = len(next(iter(inputs.values())))
        return Replay(
            outputs=_read_outputs(self._folder / "outputs", border[1], samples),
            difference=np.inf if difference is None else difference,
            executed_by=executed_by,
            latency=latency,
        )

    def _ask(self, work: str, request: Mapping[str, Any], runtime: str, *, timeout_s: float | None = None) -> Fields:
        """Do one piece of work in a process of its own and return its answer."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        if self.kind in PARSERS:
            check_installed(self.kind, (PARSERS[self.kind],))
        payload = encode_json({"work": work, "kind": self.kind, "folder": str(self._folder), **request})
        child = ModuleChild(
            _MODULE,
            limit_bytes=_MESSAGE_LIMIT_BYTES,
            name=f"{runtime} on {self.name}",
            # A file: the process reads there what its runtime printed.
            output=OutputFile(),
            environment={**numeric_threads(1), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONHASHSEED": "0"},
            scratch=True,
        )
        answer = _Answer(child)
        ended = converse(child, payload, answer.take, timeout_s=limit_s, end_timeout_s=_END_TIMEOUT_S)
        return answer.result(ended, partial(ForeignFileError, self.name, runtime, ended.doing), limit_s)


class _Answer:
    """What came from one process so far."""

    def __init__(self, child: ModuleChild) -> None:
        self._child = child
        child.doing = "starting to look at"
        self._answer: tuple[str, Fields] | None = None

    def take(self, message: bytes) -> None:
        """Take a message.

        Raises:
            DecodeError: It is none.
        """
        fields = decode_json(message, "message", limit_bytes=_MESSAGE_LIMIT_BYTES)
        names = fields.names()
        if names == ("step",):
            self._child.doing = fields.text("step", pattern=_STEP)
        elif names in {("answer",), ("failed",)}:
            self._answer = (names[0], fields.nested(names[0]))
        else:
            raise DecodeError("message", "a step, an answer or a failure", ", ".join(names)[:80])

    def result(self, ended: Ended, failed: Callable[..., ForeignFileError], timeout_s: float) -> Fields:
        """Return the answer of a process that has ended.

        Raises:
            DecodeError: What it said is no message.
            ForeignFileError: A signal ended it, it gave no answer, or its time was over.
            HedgerowError: It answered with a failure.
        """
        if ended.timed_out:
            # The end belongs to the step: a runtime whose memory is in ruins often hangs when it lets go of it.
            limit = f"{_END_TIMEOUT_S:g} s of its answer" if ended.had_closed else f"{timeout_s:g} s"
            raise failed(f"no end within {limit}")
        if ended.nonsense:
            raise DecodeError("message", "messages", ended.nonsense)
        last = f" (last output: {ended.last_line})" if ended.last_line else ""
        if ended.signal_name:
            raise failed(f"the signal {ended.signal_name}{last}", signal_name=ended.signal_name)
        if self._answer is None:
            raise failed(f"exit code {ended.code} and no answer{last}")
        kind, fields = self._answer
        if kind == "failed":
            raise decode_failure(fields)
        return fields


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
