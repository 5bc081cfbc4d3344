"""Read an ONNX file back."""

import math

import onnx

from hedgerow.compile.inspection.facts import FileFacts

__all__ = ["read_onnx"]

_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16}
_BYTES = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}


def read_onnx(content: bytes) -> FileFacts:
    """Return the facts of an ONNX file."""
    model = onnx.load_model_from_string(content)
    nodes = list(model.graph.node)
    # Scales and zero points describe a quantized tensor; they are no weights.
    describing = {name for n in nodes if n.op_type in {"QuantizeLinear", "DequantizeLinear"} for name in n.input[1:]}
    constants = [(tensor.name, tensor) for tensor in model.graph.initializer]
    constants += [
        (node.output[0], attribute.t)
        for node in nodes
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    counted = [(t.data_type, math.prod(t.dims)) for name, t in constants if name not in describing]
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {t.data_type for _name, t in constants}
    kinds |= {v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.output, *inferred.value_info)}
    kinds.discard(onnx.TensorProto.UNDEFINED)
    return FileFacts(
        operators=frozenset(node.op_type for node in nodes if node.op_type != "Constant"),
        number_types=frozenset(_name(kind) for kind in kinds),
        quantized_weights=sum(size for kind, size in counted if kind in _BYTES),
        float_weights=sum(size for kind, size in counted if kind in _FLOATS),
    )


def _name(kind: int) -> str:
    name: str = onnx.TensorProto.DataType.Name(kind).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)
