"""Give a TFLite file without a signature one: ai-edge-quantizer knows tensors by no other name."""

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from hedgerow.compile.errors import PassError
from hedgerow.compile.inspection.tflite.parsing import parse_tflite
from hedgerow.compile.passes.tflite.trimming import rewritten

__all__ = ["KEY", "signed"]

KEY = "serving_default"


def signed(content: bytes) -> bytes:
    """Return a file whose first signature names the inputs and outputs of its main graph.

    Args:
        content: The file; one with a signature stays as it is.

    Raises:
        PassError: It keeps constants behind its graph, so that it cannot be written anew.
    """
    file = parse_tflite(content)
    if file.signatures:
        return content
    if file.outside_constants:
        raise PassError(KEY, "a file without a signature whose constants stand behind its graph")
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = KEY, 0
    graph = file.graphs[0]
    signature.inputs, signature.outputs = _entries(graph, graph.inputs), _entries(graph, graph.outputs)
    file.model.signatureDefs = [signature]
    return rewritten(file.model)


def _entries(graph: Any, places: Any) -> list[Any]:
    entries = []
    for place in map(int, places):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = graph.tensors[place].name, place
        entries.append(entry)
    return entries
