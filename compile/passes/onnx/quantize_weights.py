"""Weight-only quantization of an ONNX file: weights as int4 or int8 in blocks, arithmetic in float.

Weights become ``DequantizeLinear`` of a small integer tensor (ONNX operator set 21, blocked), which ONNX Runtime turns
into its MatMulNBits kernel where a matrix product follows, and unpacks when it loads the file elsewhere. It buys size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.errors import PassError
from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.kinds import FilePass
from hedgerow.compile.passes.onnx.recurrent_weights import RECURRENT
from hedgerow.compile.passes.settings import between, one_of

__all__ = ["QuantizeOnnxWeights"]

_OPERATOR_SET = 21
# Operator -> positions of its weights.
_WEIGHTS_AT: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (1,), "Gather": (0,),
    **dict.fromkeys(RECURRENT, (1, 2)),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOnnxWeights(FilePass):
    """Rounds the weights of convolutions, matrix products and embeddings to the nearest of 15 or 255 steps.

    Attributes:
        bits: 4 or 8.
        block: Numbers along the input that share a scale: fewer are more accurate and larger.
        minimum_elements: Smaller weights stay float.
    """

    name: ClassVar[str] = "quantize-onnx-weights"
    takes: ClassVar[str] = "onnx"
    gives: ClassVar[str] = "onnx"
    bits: int = one_of(4, 8)
    block: int = one_of(16, 32, 64, 128, 256, default=32)
    minimum_elements: int = between(0, 2**31, default=64)

    @property
    def weight_bits(self) -> int:
        """As many as are set."""
        return self.bits

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file with small integer weights.

        Raises:
            PassError: The file cannot be lifted to operator set 21, or has no weight to quantize.
        """
        import onnx
        from onnx import numpy_helper

        del source
        model = self._lifted(onnx.load_model_from_string(stage.content))
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        nodes: list[Any] = []
        done = set()
        for node in model.graph.node:
            for place in _WEIGHTS_AT.get(node.op_type, ()):
                name = node.input[place]
                tensor = constants.get(name)
                if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
                    continue
                values = numpy_helper.to_array(tensor)
                if values.ndim > 1 and values.size >= self.minimum_elements:
                    if name not in done:
                        nodes += _store(model.graph, name, values, _input_axis(node), self)
                        done.add(name)
                    node.input[place] = f"{name}_dequantized"
            nodes.append(node)
        if not done:
            raise PassError(self.name, f"it has no weight of {self.minimum_elements} numbers or more")
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(kept)
        return replace(stage, content=model.SerializeToString(deterministic=True))

    def _lifted(self, model: Any) -> Any:
        """Return *model* in an operator set that has blocks."""
        from onnx import version_converter

        if max((entry.version for entry in model.opset_import if not entry.domain), default=0) >= _OPERATOR_SET:
            return model
        try:
            return version_converter.convert_version(model, _OPERATOR_SET)
        # The converter raises RuntimeError for operators that it does not know.
        except RuntimeError as exc:
            raise PassError(self.name, f"operator set {_OPERATOR_SET}: {str(exc).splitlines()[0][:200]}") from exc


def _input_axis(node: Any) -> int:
    """Return the axis of the node's weight along which its inputs lie; kernels are flattened to (first axis, rest)."""
    if node.op_type == "MatMul":
        return -2
    if node.op_type in RECURRENT:
        return 2
    if node.op_type == "Gemm" and not any(entry.name == "transB" and entry.i for entry in node.attribute):
        return 0
    return 1


def _store(graph: Any, name: str, values: NDArray[Any], axis: int, chosen: QuantizeOnnxWeights) -> list[Any]:
    """Add *values* as small integers with scales, and return the nodes that make floats of them."""
    from onnx import helper, numpy_helper

    is_kernel = values.ndim > 2 and axis == 1
    is_stacked = values.ndim > 2 and axis == 2
    matrix = values.reshape(len(values), -1) if is_kernel else values
    if is_stacked:
        matrix, axis = values.reshape(-1, values.shape[-1]), 1
    axis %= matrix.ndim
    integers, scales = _round(matrix, axis, chosen)
    graph.initializer.append(numpy_helper.from_array(integers, f"{name}_quantized"))
    graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
    result = f"{name}_dequantized"
    made = [
        helper.make_node(
            "DequantizeLinear",
            [f"{name}_quantized", f"{name}_scales"],
            [f"{name}_matrix" if is_kernel or is_stacked else result],
            name=f"{name}_dequantize",
            axis=axis,
            block_size=min(chosen.block, matrix.shape[axis]),
        )
    ]
    if is_kernel or is_stacked:
        shape = numpy_helper.from_array(np.array(values.shape, np.int64), f"{name}_shape")
        graph.initializer.append(shape)
        made.append(helper.make_node("Reshape", [f"{name}_matrix", shape.name], [result], name=f"{name}_reshape"))
    return made


def _round(
    matrix: NDArray[np.float32], axis: int, chosen: QuantizeOnnxWeights
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return integers of *matrix*, symmetric around zero, and one scale for each block along *axis*."""
    import ml_dtypes

    types: dict[int, Any] = {4: ml_dtypes.int4, 8: np.int8}
    block = min(chosen.block, matrix.shape[axis])
    starts = np.arange(0, matrix.shape[axis], block)
    largest = np.maximum.reduceat(np.abs(matrix), starts, axis=axis)
    limit = 2 ** (chosen.bits - 1) - 1
    scales = np.maximum(largest / limit, np.finfo(np.float32).tiny).astype(np.float32)
    repeated = np.repeat(scales, block, axis=axis).take(np.arange(matrix.shape[axis]), axis=axis)
    integers = np.clip(np.rint(matrix / repeated), -limit, limit)
    return integers.astype(types[chosen.bits]), scales
