"""Read a TFLite file back, from its flatbuffer."""

import math

from ai_edge_litert import schema_py_generated as schema

from hedgerow.compile.inspection.facts import FileFacts

__all__ = ["read_tflite"]

_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
_FLOATS = {"float16", "float32", "float64", "bfloat16"}
_BYTES = {"int8", "uint8", "int4", "int2", "uint4"}


def read_tflite(content: bytes) -> FileFacts:
    """Return the facts of a TFLite file, over all its subgraphs."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    operators, kinds, quantized, floats = set(), set(), 0, 0
    codes = [
        # Old files keep the code in the narrow field, new ones in the wide one; the larger is the right one.
        _OPERATORS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
        for code in model.operatorCodes
    ]
    customs = [code.customCode.decode("utf-8", "replace") if code.customCode else "" for code in model.operatorCodes]
    for graph in model.subgraphs:
        operators |= {customs[op.opcodeIndex] or codes[op.opcodeIndex] for op in graph.operators}
        for tensor in graph.tensors:
            kind = _TYPES.get(tensor.type, "unknown")
            kinds.add(kind)
            data = model.buffers[tensor.buffer].data
            if data is None or len(data) == 0:
                continue
            size = math.prod(int(axis) for axis in tensor.shape) if tensor.shape is not None else 1
            quantized += size if kind in _BYTES else 0
            floats += size if kind in _FLOATS else 0
    return FileFacts(
        operators=frozenset(operators),
        number_types=frozenset(kinds),
        quantized_weights=quantized,
        float_weights=floats,
    )
