"""Dynamic int8 quantization of an ONNX file: weights are int8, activations are rounded at run time."""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.settings import read_settings, yes_or_no
from hedgerow.compile.stage import Settings, Source, Stage

__all__ = ["DynamicSettings", "quantize_onnx_dynamic"]

_STEP = "quantize-onnx-dynamic"


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicSettings:
    """Settings of :func:`quantize_onnx_dynamic`.

    Attributes:
        per_channel: Whether weights have one scale for each output channel.
        reduce_range: Whether weights use 7 bits, which x86 without VNNI needs.
    """

    per_channel: bool = yes_or_no(default=False)
    reduce_range: bool = yes_or_no(default=False)


def quantize_onnx_dynamic(_source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Quantize every operator that ONNX Runtime can; no calibration is needed.

    Raises:
        PassError: The quantizer fails.
        PassSettingsError: The settings make no sense.
        ValueError: No ONNX stage is given.
    """
    if stage is None or stage.format != "onnx":
        raise ValueError("expected an ONNX file to quantize")
    chosen = read_settings(_STEP, DynamicSettings, settings)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        model = onnx.load_model_from_string(stage.content)
        _split_gemm(model.graph)
        before.write_bytes(model.SerializeToString(deterministic=True))
        try:
            quantize_dynamic(
                before,
                after,
                per_channel=chosen.per_channel,
                reduce_range=chosen.reduce_range,
                weight_type=QuantType.QInt8,
                # The quantizer does not know the type of what it made of Gemm.
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        # The quantizer raises bare Exception for models that it does not understand.
        except Exception as exc:
            raise PassError(_STEP, f"{type(exc).__name__}: {exc}") from exc
        content = after.read_bytes()
    return Stage(format="onnx", content=content, inputs=stage.inputs, outputs=stage.outputs)


def _split_gemm(graph: onnx.GraphProto) -> None:
    """Write every ``Gemm`` with a constant weight as ``MatMul`` and ``Add``.

    The quantizer does that by itself, but transposes a weight once for every ``Gemm`` that uses it, so that a layer in
    a loop computes with a wrong one, and it trips over the shape that the file notes for the weight before.
    """
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
