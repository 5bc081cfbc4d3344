"""Read a file of any format, and say what a target is asked to hold."""

from collections.abc import Callable, Mapping

from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.errors import DecodeError
from hedgerow.hardware.fit import ModelFacts

__all__ = ["check_readable", "fix_shapes", "format_of", "model_facts", "read_facts"]

_LARGEST = 2**53 - 1


def format_of(content: bytes) -> str:
    """Return the format that a file's first bytes show: ``tflite``, ``mlpackage`` (a zip) or else ``onnx``."""
    if content[4:8] == b"TFL3":
        return "tflite"
    return "mlpackage" if content[:4] == b"PK\x03\x04" else "onnx"


def check_readable(kind: str, content: bytes) -> None:
    """Refuse bytes that are no file of a format, without working out what it holds.

    Raises:
        DecodeError: They are none, or there is no such format.
    """
    if kind == "mlpackage":
        from hedgerow.compile.inspection.coreml import specification_version

        specification_version(content)
    elif kind in {"onnx", "tflite"}:
        from hedgerow.compile.inspection.border import read_border

        read_border(kind, content)
    else:
        raise DecodeError("model", "the format onnx, tflite or mlpackage", repr(kind))


def read_facts(kind: str, content: bytes, shapes: Mapping[str, tuple[int, ...]] | None = None) -> FileFacts:
    """Return the facts of a file.

    The bytes are parsed by native code of the formats' libraries: read a file from elsewhere in a process of its own
    (:mod:`hedgerow.compile.foreign`).

    Args:
        kind: ``onnx``, ``tflite`` or ``mlpackage``.
        content: The file.
        shapes: Input -> its shape for one prediction, for sizes that the file leaves open; None: they are unknown, and
            so is what follows from them (:attr:`FileFacts.open_sizes`).

    Raises:
        DecodeError: The bytes are no such file, or there is no such format.
        InputShapeError: *shapes* does not fit the file's inputs.
    """
    facts = _reader(kind)(content, shapes or {})
    counts = (
        *facts.tensor_bytes.values(),
        facts.weights_bytes,
        facts.parameters,
        *(op.macs or 0 for op in facts.graph),
    )
    if max(counts, default=0) > _LARGEST:
        raise DecodeError(kind, f"tensors of at most {_LARGEST} bytes", str(max(counts)))
    return facts


def fix_shapes(kind: str, content: bytes, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return a file with these sizes of its inputs in the place of those that it leaves open.

    Args:
        kind: ``onnx`` or ``tflite``.
        content: The file.
        shapes: Input -> its whole shape.

    Raises:
        DecodeError: The bytes are no such file, or the file cannot be written with these sizes.
        InputShapeError: *shapes* does not fit the file's inputs.
    """
    if kind == "onnx":
        from hedgerow.compile.inspection.onnx.shapes import fixed_onnx

        return fixed_onnx(content, shapes)
    if kind == "tflite":
        from hedgerow.compile.inspection.tflite.shapes import fixed_tflite

        return fixed_tflite(content, shapes)
    raise DecodeError("model", "the format onnx or tflite where sizes are to be fixed", repr(kind))


def _reader(kind: str) -> Callable[[bytes, Mapping[str, tuple[int, ...]]], FileFacts]:
    if kind == "onnx":
        from hedgerow.compile.inspection.onnx.facts import read_onnx

        return read_onnx
    if kind == "tflite":
        from hedgerow.compile.inspection.tflite.facts import read_tflite

        return read_tflite
    if kind == "mlpackage":
        from hedgerow.compile.inspection.coreml import read_coreml

        return read_coreml
    raise DecodeError("model", "the format onnx, tflite or mlpackage", repr(kind))


def model_facts(
    kind: str,
    size_bytes: int,
    facts: FileFacts,
    *,
    activation_bytes: int | None = None,
    latency_ms: float | None = None,
) -> ModelFacts:
    """Return what :func:`hedgerow.hardware.fit.fit` compares with a target.

    Args:
        kind: The file's format.
        size_bytes: Of the file.
        facts: Read from it.
        activation_bytes: What lives at once during a prediction, without weights; None: not known.
        latency_ms: Modelled time of a prediction on the target; None: not known.
    """
    return ModelFacts(
        format=kind,
        size_bytes=size_bytes,
        operators={name: facts.operator_versions.get(name, 0) for name in facts.operators},
        number_types=facts.number_types,
        uses=facts.uses,
        border_types=facts.border_types,
        dynamic_shapes=facts.dynamic_shapes,
        asymmetric_tensors=facts.asymmetric_tensors,
        outside_constants=facts.outside_constants,
        activation_bytes=activation_bytes,
        latency_ms=latency_ms,
    )
