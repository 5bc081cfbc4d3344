"""What an ONNX operator is called, what it must have, and how much it computes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hedgerow.compile.inspection.onnx.file import OWN_DOMAINS, attribute_of
from hedgerow.errors import DecodeError

__all__ = ["PARAMETERS", "called", "check_operators", "first_output", "macs_of", "version_of"]

PARAMETERS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvInteger": (1,),
    "ConvTranspose": (1, 2),
    "FusedConv": (1, 2),
    "QLinearConv": (3, 8),
    "Gemm": (1, 2),
    "FusedGemm": (1, 2),
    "QGemm": (3, 6),
    "DynamicQuantizeMatMul": (1, 4),
    "FusedMatMul": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1, 6),
    "QLinearMatMul": (0, 3),
    "MatMulNBits": (1,),
    "LSTM": (1, 2, 3),
    "DynamicQuantizeLSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
}
"""Where an operator keeps weights and biases among its inputs."""
# The inputs whose shapes say how much an operator computes; weights stand last. What stands here must be there.
_NEEDED: Mapping[str, tuple[int, ...]] = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "ConvTranspose": (0, 1),
    "FusedConv": (0, 1),
    "QLinearConv": (0, 3),
    "Gemm": (0, 1),
    "FusedGemm": (0, 1),
    "QGemm": (0, 3),
    "DynamicQuantizeMatMul": (0, 1),
    "FusedMatMul": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "QLinearMatMul": (0, 3),
    "MatMulNBits": (0, 1),
    "LSTM": (0, 1, 2),
    "DynamicQuantizeLSTM": (0, 1, 2),
    "GRU": (0, 1, 2),
    "RNN": (0, 1, 2),
    **dict.fromkeys(("Cast", "Clip", "DequantizeLinear", "QuantizeLinear", "Reshape", "Transpose"), (0,)),
}
_CONVOLUTIONS = {"Conv", "ConvInteger", "FusedConv", "QLinearConv"}
_GEMMS = {"FusedGemm", "Gemm", "QGemm"}
_PRODUCTS = {"DynamicQuantizeMatMul", "MatMul", "MatMulInteger", "MatMulIntegerToFloat", "QLinearMatMul"}
_RANKED = {"LSTM", "DynamicQuantizeLSTM", "GRU", "RNN", "ConvTranspose", *_CONVOLUTIONS, *_GEMMS}


# Those of scikit-learn's models that are products with learned rows.
_LEARNED = {"LinearClassifier", "LinearRegressor", "SVMClassifier", "SVMRegressor"}
_LEARNED_IN = ("coefficients", "support_vectors")


def called(node: Any) -> str:
    """Return an operator's name, behind the name of its domain where that is not ONNX's own."""
    domain = OWN_DOMAINS.get(node.domain, node.domain)
    return f"{domain}.{node.op_type}" if domain else node.op_type


def first_output(node: Any) -> str:
    """Return the name of the first output that is not left out."""
    name: str = next(name for name in node.output if name)
    return name


def version_of(node: Any, domains: Mapping[str, int]) -> int:
    """Return the version of an operator: that of its domain."""
    return domains.get(OWN_DOMAINS.get(node.domain, node.domain), 1)


def check_operators(nodes: Sequence[Any]) -> None:
    """Refuse operators without what they need.

    Raises:
        DecodeError: There is one.
    """
    for node in nodes:
        needed = max((place + 1 for place in _NEEDED.get(node.op_type, ())), default=0)
        if not any(node.output) or len(node.input) < needed:
            found = f"{len(node.input)} inputs and {len(node.output)} outputs"
            raise DecodeError("onnx", f"{node.op_type} with at least {needed} inputs and an output", found)
        if node.op_type == "MatMulNBits" and min(attribute_of(node, "N", 0), attribute_of(node, "K", 0)) < 1:
            raise DecodeError("onnx", "MatMulNBits with the sizes N and K", "none")


def macs_of(node: Any, inputs: Sequence[tuple[int, ...] | None], output: tuple[int, ...] | None) -> int | None:
    """Return the multiply-accumulates of one call, or None where a size that they depend on is open.

    Raises:
        DecodeError: A shape has too few dimensions for the operator.
    """
    kind = node.op_type
    if node.domain == "ai.onnx.ml" and kind in _LEARNED:
        rows = inputs[0]
        return None if rows is None else math.prod(rows[:-1]) * max(_numbers(node, name) for name in _LEARNED_IN)
    if kind not in PARAMETERS:
        return 0
    if kind == "MatMulNBits":
        return None if output is None else math.prod(output) * attribute_of(node, "K", 0)
    needed = [inputs[place] for place in _NEEDED[kind]]
    known = [shape for shape in needed if shape is not None]
    if output is None or len(known) < len(needed):
        return None
    first, weights = known[0], known[-1]
    if min(map(len, known)) < (2 if kind in _RANKED else 1):
        raise DecodeError("onnx", f"the operator {kind} on tensors with dimensions", str(known))
    if kind in _CONVOLUTIONS:
        return math.prod(output) * math.prod(weights[1:])
    if kind == "ConvTranspose":
        return math.prod(first) * math.prod(weights[1:])
    if kind in _GEMMS:
        return math.prod(output) * first[0 if attribute_of(node, "transA", 0) else -1]
    if kind in _PRODUCTS:
        return math.prod(output) * first[-1]
    if kind == "FusedMatMul":
        return math.prod(output) * first[-2 if attribute_of(node, "transA", 0) and len(first) > 1 else -1]
    # A recurrent cell uses both weight matrices (of every direction) once a step and sample.
    return math.prod(first[:2]) * (math.prod(known[1]) + math.prod(known[2]))


def _numbers(node: Any, name: str) -> int:
    return sum(len(attribute.floats) for attribute in node.attribute if attribute.name == name)
