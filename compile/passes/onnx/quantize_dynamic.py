"""Dynamic int8 quantization of an ONNX file: weights are int8, activations are rounded at run time."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.kinds import FilePass
from hedgerow.compile.passes.onnx.recurrent_weights import RECURRENT, quantize_recurrent
from hedgerow.compile.passes.settings import yes_or_no

__all__ = ["QuantizeOnnxDynamic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOnnxDynamic(FilePass):
    """Quantizes every operator that ONNX Runtime can; no calibration is needed.

    Attributes:
        per_channel: Whether weights have one scale for each output channel.
        reduce_range: Whether weights use 7 bits, which x86 without VNNI needs.
    """

    name: ClassVar[str] = "quantize-onnx-dynamic"
    takes: ClassVar[str] = "onnx"
    gives: ClassVar[str] = "onnx"
    per_channel: bool = yes_or_no(default=False)
    reduce_range: bool = yes_or_no(default=False)

    @property
    def weight_bits(self) -> int:
        """Integers of one byte."""
        return 8

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file with int8 weights."""
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        del source
        with tempfile.TemporaryDirectory() as folder:
            before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            model = onnx.load_model_from_string(stage.content)
            _split_gemm(model.graph)
            before.write_bytes(model.SerializeToString(deterministic=True))
            quantize_dynamic(
                before,
                after,
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
                weight_type=QuantType.QInt8,
                # The quantizer does not know the type of what it made of Gemm.
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
            made = onnx.load_model(after)
            # It knows no other recurrent layer than LSTM.
            if any(node.op_type in RECURRENT for node in made.graph.node):
                quantize_recurrent(made)
                return replace(stage, content=made.SerializeToString(deterministic=True))
            return replace(stage, content=after.read_bytes())


def _split_gemm(graph: Any) -> None:
    """Write every ``Gemm`` with a constant weight as ``MatMul`` and ``Add``.

    The quantizer does that by itself, but transposes a weight once for every ``Gemm`` that uses it, so that a layer in
    a loop computes with a wrong one, and it trips over the shape that the file notes for the weight before.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes, transposed = [], set()
    for node in graph.node:
        settings = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        is_plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
        if node.op_type != "Gemm" or not is_plain or node.input[1] not in constants:
            nodes.append(node)
            continue
        weight, result = node.input[1], node.output[0]
        if settings.get("transB", 0):
            matrix = numpy_helper.to_array(constants[weight]).T.copy()
            weight = f"{weight}_transposed"
            if weight not in transposed:
                transposed.add(weight)
                graph.initializer.append(numpy_helper.from_array(matrix, weight))
        has_bias = len(node.input) > 2 and node.input[2] != ""
        product = f"{result}_product" if has_bias else result
        nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=f"{node.name}_matmul"))
        if has_bias:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [result], name=f"{node.name}_add"))
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
