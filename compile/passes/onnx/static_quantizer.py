"""Static quantization with onnxruntime.quantization, as several passes use it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.quantize import save_tensors_data

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.onnx.quantize_static import QuantizeOnnxStatic
from hedgerow.compile.passes.onnx.recurrent_weights import RECURRENT, quantize_recurrent
from hedgerow.compile.runners.onnx import takes_any_batch
from hedgerow.manifest.content import Tensor
from hedgerow.task import Dataset
from hedgerow.tensor_border import one_sample, to_stored

__all__ = ["static_bytes"]

# Softmax stays in float: in int8 a probability has 256 steps, and the confidence that the fleet watches gets coarse.
_OPERATORS = [
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool", "MatMul",
    "MaxPool", "Mul", "ReduceMean", "Relu", "Reshape", "Transpose",
]  # fmt: skip
_OF_SQUARES = frozenset({"Flatten", "Identity", "Mul", "Pow", "ReduceMean", "Reshape", "Squeeze", "Sub", "Unsqueeze"})
_BATCH = 32
_LIMIT_OF_SEVEN_BITS = 63
_ENTROPY_BINS, _ENTROPY_STEPS = 512, 256
# Never CalibrationMethod.Distribution: with int8 it destroys the model without an error.
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibration data out in batches."""

    def __init__(self, data: Dataset, tensors: Sequence[Tensor]) -> None:
        if takes_any_batch(tensors, data.inputs):
            batches = [
                {t.tensor: to_stored(data.inputs[t.name][start : start + _BATCH], t) for t in tensors}
                for start in range(0, len(data), _BATCH)
            ]
        else:
            batches = [
                {t.tensor: to_stored(one_sample(data.inputs[t.name], place, t), t) for t in tensors}
                for place in range(len(data))
            ]
        self._batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch, or None after the last."""
        return next(self._batches, None)


def static_bytes(
    source: PassModel,
    stage: CompiledModel,
    chosen: QuantizeOnnxStatic,
    *,
    left_out: Sequence[str] = (),
    ranges: Path | None = None,
) -> bytes:
    """Return *stage* quantized.

    Args:
        source: Gives the calibration data.
        stage: An ONNX file.
        chosen: How.
        left_out: Names of nodes that stay float.
        ranges: A file that keeps the measured ranges for the next call with the same stage and settings; made when it
            is absent.
    """
    options = {"ActivationSymmetric": True, "QuantizeBias": False} if chosen.symmetric else {}
    squares = _square_nodes(stage, source)
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(stage.content)
        kept = ranges if ranges is not None else Path(folder) / "ranges.json"
        if chosen.calibration == "entropy" and not kept.exists():
            _measure_entropy(before, _Calibration(source.calibration, stage.inputs), kept)
        quantize_static(
            before,
            after,
            _Calibration(source.calibration, stage.inputs),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8 if chosen.activations == "int8" else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=_OPERATORS,
            nodes_to_exclude=[*left_out, *squares, *(_grouped(stage.content) if chosen.per_channel else ())],
            per_channel=chosen.per_channel,
            reduce_range=chosen.reduce_range,
            calibrate_method=_METHODS[chosen.calibration],
            extra_options=options,
            calibration_cache_path=kept,
        )
        model = onnx.load_model(after)
        _take_floats(model.graph, squares)
        if not squares and not any(node.op_type in RECURRENT for node in model.graph.node):
            return after.read_bytes()
        limit = _LIMIT_OF_SEVEN_BITS if chosen.reduce_range else 127
        quantize_recurrent(model, limit=limit, standard_only=chosen.symmetric, left_out=left_out)
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def _grouped(content: bytes) -> list[str]:
    """Return the names of transposed convolutions in groups.

    A scale for each channel of their weight's second axis is one for each channel of a group, and the quantizer gives
    their biases, which have all channels, the same scales.
    """
    return [
        node.name
        for node in onnx.load_model_from_string(content).graph.node
        if node.op_type == "ConvTranspose" and any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]


def _square_nodes(stage: CompiledModel, source: PassModel) -> list[str]:
    """Return the names of the nodes that make a mean squared difference, which stay float.

    Normal samples have small differences, whose squares are nothing beside the largest in 256 steps.
    """
    tensors = {tensor.name: tensor.tensor for tensor in stage.outputs}
    answers = source.schema.answers
    ends = [tensors[name] for name, output in answers.items() if output.activation == "mean_square"]
    if not ends:
        return []
    graph = onnx.load_model_from_string(stage.content).graph
    producers = {output: node for node in graph.node for output in node.output}
    found: list[str] = []
    while ends:
        node = producers.get(ends.pop())
        if node is None or node.name in found or node.op_type not in _OF_SQUARES:
            continue
        found.append(node.name)
        # Before the difference is the model.
        ends += [] if node.op_type == "Sub" else list(node.input)
    return found


def _take_floats(graph: Any, nodes: Sequence[str]) -> None:
    """Let nodes that stay float take floats as they were, where the quantizer gave them what had been integers.

    What rebuilds its input is then compared with the input itself, and not with what the first layer makes of it.
    """
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        for place, name in enumerate(node.input) if node.name in nodes else ():
            back = producers.get(name)
            there = producers.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
            if there is not None and there.op_type == "QuantizeLinear":
                node.input[place] = there.input[0]
    for kind in ("DequantizeLinear", "QuantizeLinear") if nodes else ():
        used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        for node in [n for n in graph.node if n.op_type == kind and n.output[0] not in used]:
            graph.node.remove(node)


def _measure_entropy(model: Path, data: CalibrationDataReader, ranges: Path) -> None:
    """Write the ranges that lose least information.

    The quantizer itself takes 128 bins for 128 steps, which leaves one range to choose from: the extremes. Twice as
    many bins as int8 has steps let it cut off up to half.
    """
    calibrator = create_calibrator(
        model,
        _OPERATORS,
        augmented_model_path=str(ranges.with_suffix(".augmented.onnx")),
        calibrate_method=CalibrationMethod.Entropy,
        extra_options={"num_bins": _ENTROPY_BINS, "num_quantized_bins": _ENTROPY_STEPS},
    )
    calibrator.collect_data(data)
    save_tensors_data(calibrator.compute_data(), ranges)
