"""The process in which one step on a file from elsewhere runs; see :mod:`hedgerow.compile.foreign`.

It takes one request from its channel, says each step before it begins, answers there, and ends. Whatever the runtime
prints goes to the standard output and error, which the parent keeps in a file.
"""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hedgerow.children.channel import MessageChannel
from hedgerow.children.limits import bound_process
from hedgerow.compile.errors import DiskError, RuntimeRefusedError, internal_error
from hedgerow.compile.failures import encode_failure
from hedgerow.compile.toolchains import MICRO, RUNTIME_NAMES
from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import HedgerowError
from hedgerow.manifest.content import Tensor
from hedgerow.weights import decode_arrays, encode_arrays

__all__ = ["MEMORY_BYTES", "serve"]

MEMORY_BYTES = 32 * 2**30
"""Address space of such a process; what asks for more gets none."""

_REQUEST_LIMIT_BYTES = 2**20
_INPUT_LIMIT_BYTES = 512 * 2**20
_TAIL_BYTES = 4000
_READING, _LOADING, _RUNNING = "reading", "loading", "running"
_SEARCHING = "searching the tensor arena of"

T = TypeVar("T")
Step = Callable[[str], None]
Predict = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[np.float32]]]


def _facts(fields: Fields, kind: str, content: bytes, step: Step) -> dict[str, Any]:
    from hedgerow.compile.inspection.model import read_facts

    def sizes(entry: Fields) -> tuple[int, ...]:
        found = entry.integers("sizes", minimum=1, maximum_items=8)
        entry.finish()
        return found

    shapes = fields.mapping("shapes", sizes)
    fields.finish()
    step(_READING)
    return {"facts": read_facts(kind, content, shapes).to_record()}


def _border(_fields: Fields, kind: str, content: bytes, step: Step) -> dict[str, Any]:
    from hedgerow.compile.inspection.border import read_border

    step(_READING)
    inputs, outputs = read_border(kind, content)
    return {
        "inputs": [tensor.to_record() for tensor in inputs],
        "outputs": [tensor.to_record() for tensor in outputs],
    }


def _arena(_fields: Fields, kind: str, content: bytes, step: Step) -> dict[str, Any]:
    from hedgerow.compile.inspection.border import read_border
    from hedgerow.compile.runners.tflite_micro import find_arena, predict_tflite_micro

    step(_READING)
    taken, given = read_border(kind, content)
    step(_SEARCHING)
    arena = find_arena(content)
    if arena is None:
        raise _refused_by_micro(content, "allocates")
    step(_RUNNING)
    zeros = {tensor.name: np.zeros((1, *tensor.shape[1:]), np.float64) for tensor in taken}
    try:
        predict_tflite_micro(content, arena.bytes, taken, given, zeros)
    except RuntimeError as exc:
        raise _refused_by_micro(content, "runs") from exc
    return {"arena": arena.to_record()}


def _predict(fields: Fields, _kind: str, content: bytes, step: Step) -> dict[str, Any]:
    folder, runtime = Path(fields.text("folder", maximum_chars=65536)), fields.text("runtime")
    taken = fields.sequence("inputs", Tensor.from_fields, maximum_items=64)
    given = fields.sequence("outputs", Tensor.from_fields, maximum_items=64)
    arena_bytes, times = fields.integer("arena_bytes"), fields.integer("times", minimum=1, maximum=2)
    fields.finish()
    inputs = decode_arrays((folder / "inputs").read_bytes(), "samples", limit_bytes=_INPUT_LIMIT_BYTES)
    rounds: list[dict[str, NDArray[np.float32]]] = []
    executed_by = ""
    for _round in range(times):
        step(_LOADING)
        executed_by, predict = _OPENERS[runtime](content, taken, given, arena_bytes)
        step(_RUNNING)
        rounds.append(predict(inputs))
        # The runtime lets go of its memory here, in the step that it belongs to.
        del predict
    first, last = rounds[0], rounds[-1]
    (folder / "outputs").write_bytes(encode_arrays(first))
    differences = [np.abs(first[name].astype(np.float64) - last[name]).max(initial=0.0) for name in first]
    largest = float(np.max(differences, initial=0.0))
    # NaN differs from everything, itself included; JSON holds neither it nor infinity.
    return {"difference": largest if np.isfinite(largest) else None, "executed_by": executed_by}


def _by(runtime: str, does: str, call: Callable[[], T]) -> T:
    """Return what *call* gives; it is the runtime's own code and nothing of ours."""
    try:
        return call()
    # Runtimes raise classes of their own that share no base but Exception.
    except Exception as exc:
        said = " ".join(str(exc).split())[:300]
        raise RuntimeRefusedError(RUNTIME_NAMES[runtime], does, said or type(exc).__name__) from exc


def _open_onnx(content: bytes, taken: Any, given: Any, _arena_bytes: int) -> tuple[str, Predict]:
    from hedgerow.compile.runners.onnx import executed_by, open_session

    name, names = "onnxruntime", [tensor.tensor for tensor in given]
    session = _by(name, "loads", lambda: open_session(content))

    def run(values: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        return dict(zip(names, _by(name, "runs", lambda: session.run(names, dict(values))), strict=True))

    return executed_by(session), _by_sample(run, taken, given)


def _open_litert(content: bytes, taken: Any, given: Any, _arena_bytes: int) -> tuple[str, Predict]:
    from hedgerow.compile.runners.tflite import executed_by, open_signature

    name = "litert"
    opened = _by(name, "loads", lambda: open_signature(content))

    def run(values: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        return _by(name, "runs", lambda: opened(values))

    return _by(name, "loads", lambda: executed_by(content)), _by_sample(run, taken, given)


def _open_tflite_micro(content: bytes, taken: Any, given: Any, arena_bytes: int) -> tuple[str, Predict]:
    from hedgerow.compile.arena import KERNELS, installed_version
    from hedgerow.compile.runners.tflite_micro import predict_tflite_micro

    def predict(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        try:
            return predict_tflite_micro(content, arena_bytes, taken, given, inputs)
        except RuntimeError as exc:
            raise _refused_by_micro(content, "runs") from exc

    return f"{KERNELS} {installed_version()}", predict


_OPENERS: Mapping[str, Callable[[bytes, Any, Any, int], tuple[str, Predict]]] = {
    "onnxruntime": _open_onnx,
    "litert": _open_litert,
    MICRO: _open_tflite_micro,
}


def _by_sample(
    run: Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]], taken: Any, given: Any
) -> Predict:
    """Return what predicts one sample after the other, from and to real numbers."""
    from hedgerow.tensor_border import from_stored, to_stored

    def predict(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        rows: dict[str, list[NDArray[np.float32]]] = {tensor.name: [] for tensor in given}
        for index in range(len(next(iter(inputs.values())))):
            found = run({t.tensor: to_stored(inputs[t.name][index : index + 1], t) for t in taken})
            for tensor in given:
                rows[tensor.name].append(from_stored(found[tensor.tensor], tensor).astype(np.float32))
        return {name: np.concatenate(parts) for name, parts in rows.items()}

    return predict


def _refused_by_micro(content: bytes, does: str) -> RuntimeRefusedError:
    """Return the error that says what TensorFlow Lite Micro has printed of a file that it does not take."""
    from hedgerow.compile.inspection.border import custom_operators, given_by
    from hedgerow.compile.micro_objection import read_objection

    objection = read_objection(_printed())
    layer = "" if objection.number is None else given_by(content, objection.number, objection.operator)
    found = objection.sentence(custom_operators(content), layer)
    does = "has" if objection.is_absent else "computes" if objection.operator else does
    return RuntimeRefusedError(RUNTIME_NAMES[MICRO], does, found, operator=objection.operator)


def _printed() -> str:
    """Return the end of what the runtime printed, from the file behind our standard error."""
    size = os.fstat(2).st_size
    return os.pread(2, _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode("utf-8", "replace")


_WORK: Mapping[str, Callable[[Fields, str, bytes, Step], dict[str, Any]]] = {
    "facts": _facts,
    "border": _border,
    "arena": _arena,
    "predict": _predict,
}


def serve(channel: MessageChannel) -> None:
    """Do one piece of work."""
    bound_process(address_space_bytes=MEMORY_BYTES)
    logging.basicConfig(level=logging.ERROR)

    def send(message: Mapping[str, Any]) -> None:
        channel.send(encode_json(message))

    fields = decode_json(channel.receive() or b"", "request", limit_bytes=_REQUEST_LIMIT_BYTES)
    work, kind = fields.text("work"), fields.text("kind")
    current = ["starting"]

    def step(name: str) -> None:
        current.append(name)
        send({"step": name})

    try:
        content = (Path(fields.text("folder", maximum_chars=65536)) / "model").read_bytes()
        answer = _WORK[work](fields, kind, content, step)
    except HedgerowError as exc:
        send({"failed": encode_failure(exc)})
    except OSError as exc:
        send({"failed": encode_failure(DiskError(exc.strerror or str(exc)))})
    # The outermost step of this process: what nobody expected is a bug of ours, and told as one.
    except Exception as exc:  # noqa: BLE001 - see above
        send({"failed": encode_failure(internal_error(f"{current[-1]} a {kind} file", exc))})
    else:
        send({"answer": answer})
