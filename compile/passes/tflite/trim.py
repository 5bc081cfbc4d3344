"""Take out of a TFLite file what no runtime reads: for a small model that can be a third of it.

litert-torch writes the path through the Python modules into the name of every tensor, and the quantizer writes some
constants twice. Signatures have names of their own, so callers see no difference; tensors are numbered instead, because
tools tell them apart by name. The quantizer also moves constants of a larger model behind the flatbuffer and leaves
them on any address; here they come back into it, on multiples of 16 as the format asks, for runtimes that read them
in place.
"""

from dataclasses import replace
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from hedgerow.compile.passes.settings import NoSettings, read_settings
from hedgerow.compile.stage import Settings, Source, Stage

__all__ = ["trim_tflite"]

_IDENTIFIER = b"TFL3"
_ALIGNMENT_BYTES = 16
# A flatbuffer holds 2 GiB; larger files keep their constants behind it.
_LIMIT_BYTES = 2**30


def trim_tflite(_source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Number the tensors, keep each constant once, and drop descriptions; every result stays the same.

    Raises:
        PassSettingsError: A setting is given.
        ValueError: No TFLite stage is given.
    """
    read_settings("trim-tflite", NoSettings, settings)
    if stage is None or stage.format != "tflite":
        raise ValueError("expected a TFLite file to trim")
    if len(stage.content) > _LIMIT_BYTES:
        return stage
    model = schema.ModelT.InitFromPackedBuf(stage.content, 0)
    if any(operator.largeCustomOptionsOffset > 1 for graph in model.subgraphs for operator in graph.operators):
        return stage  # they stand behind the flatbuffer too, at a place that would change
    kept, places = [schema.BufferT()], dict[bytes, int]()
    for graph in model.subgraphs:
        graph.name = None
        for index, tensor in enumerate(graph.tensors):
            tensor.name = str(index).encode()
            if tensor.quantization is not None:
                # What the calibration saw; the scale says what is needed of it.
                tensor.quantization.min = tensor.quantization.max = None
            content = _constant(model.buffers[tensor.buffer], stage.content)
            if not content:
                tensor.buffer = 0  # by the format's rule, the buffer of all that is computed
                continue
            if content not in places:
                places[content] = len(kept)
                kept.append(_AlignedBuffer(content))
            tensor.buffer = places[content]
    model.buffers, model.metadata, model.metadataBuffer, model.description = kept, None, None, None
    builder = flatbuffers.Builder(len(stage.content))
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return replace(stage, content=bytes(builder.Output()))


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
