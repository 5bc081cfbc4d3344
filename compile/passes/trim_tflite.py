"""Take out of a TFLite file what no runtime reads: for a small model that can be a third of it.

litert-torch writes the path through the Python modules into the name of every tensor, and the quantizer writes some
constants twice. Signatures have names of their own, so callers see no difference; tensors are numbered instead, because
tools tell them apart by name.
"""

from dataclasses import replace

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from hedgerow.compile.passes.settings import NoSettings, read_settings
from hedgerow.compile.stage import Settings, Source, Stage

__all__ = ["trim_tflite"]

_IDENTIFIER = b"TFL3"


def trim_tflite(_source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Number the tensors, keep each constant once, and drop descriptions; every result stays the same.

    Raises:
        PassSettingsError: A setting is given.
        ValueError: No TFLite stage is given.
    """
    read_settings("trim-tflite", NoSettings, settings)
    if stage is None or stage.format != "tflite":
        raise ValueError("expected a TFLite file to trim")
    model = schema.ModelT.InitFromPackedBuf(stage.content, 0)
    kept, places = [schema.BufferT()], dict[bytes, int]()
    for graph in model.subgraphs:
        graph.name = None
        for index, tensor in enumerate(graph.tensors):
            tensor.name = str(index).encode()
            if tensor.quantization is not None:
                # What the calibration saw; the scale says what is needed of it.
                tensor.quantization.min = tensor.quantization.max = None
            data = model.buffers[tensor.buffer].data
            content = bytes(bytearray(data)) if data is not None else b""
            if not content:
                tensor.buffer = 0  # by the format's rule, the buffer of all that is computed
                continue
            if content not in places:
                places[content] = len(kept)
                kept.append(model.buffers[tensor.buffer])
            tensor.buffer = places[content]
    model.buffers, model.metadata, model.metadataBuffer, model.description = kept, None, None, None
    builder = flatbuffers.Builder(len(stage.content))
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return replace(stage, content=bytes(builder.Output()))
