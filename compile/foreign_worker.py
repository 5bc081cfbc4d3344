"""The process in which one step on a file from elsewhere runs; see :mod:`hedgerow.compile.foreign`.

It takes one request from its channel, says each step before it begins, answers there, and ends. Whatever the runtime
prints goes to the standard output and error, which the parent keeps in a file.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hedgerow.children.channel import MessageChannel
from hedgerow.children.limits import bound_process
from hedgerow.compile.errors import DiskError, RuntimeRefusedError, internal_error
from hedgerow.compile.failures import encode_failure
from hedgerow.compile.profile.host import HostLatency, measure_latency
from hedgerow.compile.runners.samples import Run, Values, predict_samples
from hedgerow.compile.toolchains import MICRO, RUNTIME_NAMES
from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import HedgerowError
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.task import Dataset
from hedgerow.tensor_border import one_sample, to_stored
from hedgerow.weights import decode_arrays, encode_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MEMORY_BYTES", "serve"]

MEMORY_BYTES = 32 * 2**30
"""Address space of such a process; what asks for more gets none."""

_REQUEST_LIMIT_BYTES = 2**20
_INPUT_LIMIT_BYTES = 512 * 2**20
_TAIL_BYTES = 4000
_READING, _LOADING, _RUNNING = "reading", "loading", "running"
_CONVERTING = "converting"
_FIXING = "fixing the sizes of"
_GATHERING = "gathering the weights of"
_SEARCHING = "searching the tensor arena of"

T = TypeVar("T")
Step = Callable[[str], None]


def _facts(fields: Fields, kind: str, content: bytes, step: Step) -> dict[str, Any]:
    from hedgerow.compile.inspection.model import read_facts

    shapes = fields.mapping("shapes", _sizes)
    fields.finish()
    step(_READING)
    return {"facts": read_facts(kind, content, shapes).to_record()}


def _sizes(entry: Fields) -> tuple[int, ...]:
    found = entry.integers("sizes", minimum=1, maximum_items=8)
    entry.finish()
    return found


def _border(_fields: Fields, kind: str, content: bytes, step: Step) -> dict[str, Any]:
    from hedgerow.compile.inspection.border import read_outline

    step(_READING)
    (inputs, outputs), left_out = read_outline(kind, content)
    return {
        "inputs": [tensor.to_record() for tensor in inputs],
        "outputs": [tensor.to_record() for tensor in outputs],
        "left_out": list(left_out),
    }


def _fix(fields: Fields, kind: str, content: bytes, step: Step) -> dict[str, Any]:
    from hedgerow.compile.inspection.model import fix_shapes

    folder, shapes = Path(fields.text("folder", maximum_chars=65536)), fields.mapping("shapes", _sizes)
    fields.finish()
    step(_FIXING)
    (folder / "made").write_bytes(fix_shapes(kind, content, shapes))
    return {}


def _inline(fields: Fields, _kind: str, content: bytes, step: Step) -> dict[str, Any]:
    folder = Path(fields.text("folder", maximum_chars=65536))
    beside = Path(fields.text("beside", maximum_chars=65536))
    fields.finish()
    step(_GATHERING)
    from hedgerow.compile.inspection.onnx.outside import inlined  # onnx: the request is judged without it

    (folder / "made").write_bytes(inlined(content, beside))
    return {}


def _convert(fields: Fields, kind: str, content: bytes, step: Step) -> dict[str, Any]:
    from hedgerow.compile.pass_models import CompiledModel, ForeignModel
    from hedgerow.compile.passes.runner import run_file_pass
    from hedgerow.compile.recipe import read_recipe

    folder, recipe = Path(fields.text("folder", maximum_chars=65536)), read_recipe(fields.nested("recipe"))
    schema = ModelSchema.from_fields(fields.nested("schema"))
    taken = fields.sequence("inputs", Tensor.from_fields, maximum_items=64)
    given = fields.sequence("outputs", Tensor.from_fields, maximum_items=64)
    seed = fields.integer("seed")
    fields.finish()
    step(_CONVERTING)
    calibration = decode_arrays((folder / "inputs").read_bytes(), "samples", limit_bytes=_INPUT_LIMIT_BYTES)
    labels = np.zeros(len(next(iter(calibration.values()))), np.int64)
    source = ForeignModel(schema=schema, calibration=Dataset(calibration, labels), seed=seed)
    if kind == "tflite":
        from hedgerow.compile.passes.tflite.signing import signed

        content = signed(content)
    stage = CompiledModel(format=kind, content=content, inputs=taken, outputs=given, state=schema.state)
    # The file itself stands in the place of the export.
    for each in recipe.passes[1:]:
        stage = run_file_pass(each, source, stage)
    (folder / "made").write_bytes(stage.content)
    return {
        "inputs": [tensor.to_record() for tensor in stage.inputs],
        "outputs": [tensor.to_record() for tensor in stage.outputs],
    }


def _arena(_fields: Fields, kind: str, content: bytes, step: Step) -> dict[str, Any]:
    from hedgerow.compile.inspection.border import read_border
    from hedgerow.compile.runners.tflite_micro import find_arena, open_micro

    step(_READING)
    taken, given = read_border(kind, content)
    step(_SEARCHING)
    arena = find_arena(content)
    if arena is None:
        raise _refused_by_micro(content, "allocates")
    step(_RUNNING)
    # A size that is open stands for 1.
    zeros = {tensor.tensor: np.zeros([max(1, size) for size in tensor.shape], tensor.dtype) for tensor in taken}
    try:
        open_micro(content, arena.bytes, taken, given)(zeros)
    except RuntimeError as exc:
        raise _refused_by_micro(content, "runs") from exc
    return {"arena": arena.to_record()}


def _predict(fields: Fields, _kind: str, content: bytes, step: Step) -> dict[str, Any]:
    folder, runtime = Path(fields.text("folder", maximum_chars=65536)), fields.text("runtime")
    state = fields.mapping("state", _output_of)
    steps = fields.integer("steps", minimum=1)
    taken = fields.sequence("inputs", Tensor.from_fields, maximum_items=64)
    given = fields.sequence("outputs", Tensor.from_fields, maximum_items=64)
    arena_bytes, times = fields.integer("arena_bytes"), fields.integer("times", minimum=1, maximum=2)
    fields.finish()
    inputs = decode_arrays((folder / "inputs").read_bytes(), "samples", limit_bytes=_INPUT_LIMIT_BYTES)
    rounds: list[dict[str, NDArray[np.float32]]] = []
    executed_by, latency = "", None
    for _round in range(times):
        step(_LOADING)
        executed_by, run = _OPENERS[runtime](content, taken, given, arena_bytes)
        step(_RUNNING)
        rounds.append(predict_samples(run, taken, given, inputs, state=state, steps=steps))
        # Reference kernels were not made to be fast: their time says nothing.
        if times > 1 and latency is None and runtime != MICRO:
            first_sample = {t.tensor: to_stored(one_sample(inputs[t.name], 0, t), t) for t in taken}
            latency = _timed(run, first_sample)
        # The runtime lets go of its memory here, in the step that it belongs to.
        del run
    first, last = rounds[0], rounds[-1]
    (folder / "outputs").write_bytes(encode_arrays(first))
    differences = [np.abs(first[name].astype(np.float64) - last[name]).max(initial=0.0) for name in first]
    largest = float(np.max(differences, initial=0.0))
    return {
        # NaN differs from everything, itself included; JSON holds neither it nor infinity.
        "difference": largest if np.isfinite(largest) else None,
        "executed_by": executed_by,
        "latency": latency.to_record() if latency is not None else None,
    }


def _timed(run: Run, values: Mapping[str, Values]) -> HostLatency:
    return measure_latency(lambda: run(values), time.perf_counter)


def _output_of(entry: Fields) -> str:
    found = entry.text("output", maximum_chars=256)
    entry.finish()
    return found


def _by(runtime: str, does: str, call: Callable[[], T]) -> T:
    """Return what *call* gives; it is the runtime's own code and nothing of ours."""
    try:
        return call()
    # Runtimes raise classes of their own that share no base but Exception.
    except Exception as exc:
        said = " ".join(str(exc).split())[:300]
        raise RuntimeRefusedError(RUNTIME_NAMES[runtime], does, said or type(exc).__name__) from exc


def _open_onnx(content: bytes, _taken: Any, given: Any, _arena_bytes: int) -> tuple[str, Run]:
    from hedgerow.compile.runners.onnx import executed_by, open_session

    name, names = "onnxruntime", [tensor.tensor for tensor in given]
    session = _by(name, "loads", lambda: open_session(content))

    def run(values: Mapping[str, Values]) -> Mapping[str, Values]:
        return dict(zip(names, _by(name, "runs", lambda: session.run(names, dict(values))), strict=True))

    return executed_by(session), run


def _open_litert(content: bytes, _taken: Any, _given: Any, _arena_bytes: int) -> tuple[str, Run]:
    from hedgerow.compile.runners.tflite import executed_by, open_signature

    name = "litert"
    opened = _by(name, "loads", lambda: open_signature(content))

    def run(values: Mapping[str, Values]) -> Mapping[str, Values]:
        return _by(name, "runs", lambda: opened(values))

    return _by(name, "loads", lambda: executed_by(content)), run


def _open_tflite_micro(content: bytes, taken: Any, given: Any, arena_bytes: int) -> tuple[str, Run]:
    from hedgerow.compile.arena import KERNELS, installed_version
    from hedgerow.compile.runners.tflite_micro import open_micro

    def by_micro(does: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except RuntimeError as exc:
            raise _refused_by_micro(content, does) from exc

    opened = by_micro("runs", lambda: open_micro(content, arena_bytes, taken, given))
    return f"{KERNELS} {installed_version()}", lambda values: by_micro("runs", lambda: opened(values))


_OPENERS: Mapping[str, Callable[[bytes, Any, Any, int], tuple[str, Run]]] = {
    "onnxruntime": _open_onnx,
    "litert": _open_litert,
    MICRO: _open_tflite_micro,
}


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
    "fix": _fix,
    "inline": _inline,
    "convert": _convert,
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
