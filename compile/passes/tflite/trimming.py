"""Write a TFLite file anew without what no runtime reads."""

from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

__all__ = ["rewritten", "trimmed"]

_IDENTIFIER = b"TFL3"
_ALIGNMENT_BYTES = 16
# A flatbuffer holds 2 GiB; larger files keep their constants behind it.
_LIMIT_BYTES = 2**30


def trimmed(content: bytes) -> bytes:
    """Return a file with numbered tensors, each constant once, and no descriptions."""
    if len(content) > _LIMIT_BYTES:
        return content
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    if any(operator.largeCustomOptionsOffset > 1 for graph in model.subgraphs for operator in graph.operators):
        return content  # they stand behind the flatbuffer too, at a place that would change
    kept, places = [schema.BufferT()], dict[bytes, int]()
    for graph in model.subgraphs:
        graph.name = None
        for index, tensor in enumerate(graph.tensors):
            tensor.name = str(index).encode()
            if tensor.quantization is not None:
                # What the calibration saw; the scale says what is needed of it.
                tensor.quantization.min = tensor.quantization.max = None
            constant = _constant(model.buffers[tensor.buffer], content)
            if not constant:
                tensor.buffer = 0  # by the format's rule, the buffer of all that is computed
                continue
            if constant not in places:
                places[constant] = len(kept)
                kept.append(_AlignedBuffer(constant))
            tensor.buffer = places[constant]
    model.buffers, model.metadata, model.metadataBuffer, model.description = kept, None, None, None
    return _packed(model, len(content))


def rewritten(model: Any) -> bytes:
    """Return a file of flatc's object *model*, all of whose constants are in its buffers.

    Args:
        model: Its buffers are replaced.
    """
    constants = [bytes(bytearray(buffer.data)) if buffer.data is not None else b"" for buffer in model.buffers]
    model.buffers = [_AlignedBuffer(content) if content else schema.BufferT() for content in constants]
    return _packed(model, sum(map(len, constants)))


def _packed(model: Any, expected_bytes: int) -> bytes:
    builder = flatbuffers.Builder(expected_bytes)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _constant(buffer: Any, file: bytes) -> bytes:
    """Return the content of a buffer, which may stand behind the flatbuffer; empty: the tensor is computed."""
    if buffer.offset > 1:  # 1 stands for a place that is not known yet
        return file[buffer.offset : buffer.offset + buffer.size]
    return bytes(bytearray(buffer.data)) if buffer.data is not None else b""


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A constant that is written on a multiple of 16 bytes: the generated code does not know ``force_align``."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = content

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the generated code's name
        """Write the constant; return where it is."""
        size = len(self._content)
        builder.StartVector(1, size, _ALIGNMENT_BYTES)
        builder.head -= size
        builder.Bytes[builder.head : builder.head + size] = self._content
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)
