"""Static int8 quantization of an ONNX file, in QDQ form, with onnxruntime.quantization."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from hedgerow.compile.errors import PassError
from hedgerow.compile.stage import Settings, Source, Stage
from hedgerow.task import Dataset

__all__ = ["quantize_onnx_static"]

# Softmax stays in float: in int8 a probability has 256 steps, and the confidence that the fleet watches gets coarse.
_OPERATORS = [
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "Mul", "Relu",
    "Reshape", "Transpose",
]  # fmt: skip
_BATCH = 32


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibration data out in batches."""

    def __init__(self, data: Dataset, names: dict[str, str]) -> None:
        self._batches = iter(
            [
                {names[name]: values[start : start + _BATCH] for name, values in data.inputs.items()}
                for start in range(0, len(data), _BATCH)
            ]
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch, or None after the last."""
        return next(self._batches, None)


def quantize_onnx_static(source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Quantize activations per tensor and weights per output channel; ranges are the extremes seen in calibration.

    Settings:
        activations: ``int8`` or ``uint8``; weights are int8 always.
        reduce_range: Whether weights use 7 bits, which x86 without VNNI needs.

    Raises:
        PassError: The quantizer fails.
        ValueError: No ONNX stage is given.
    """
    if stage is None or stage.format != "onnx":
        raise ValueError("expected an ONNX file to quantize")
    names = {tensor.name: tensor.tensor for tensor in stage.inputs}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(stage.content)
        try:
            quantize_static(
                before,
                after,
                _Calibration(source.calibration, names),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8 if settings["activations"] == "int8" else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=_OPERATORS,
                per_channel=True,
                reduce_range=bool(settings["reduce_range"]),
                # Never CalibrationMethod.Distribution with int8: it destroys the model without an error.
                calibrate_method=CalibrationMethod.MinMax,
            )
        # The quantizer raises bare Exception for models that it does not understand.
        except Exception as exc:
            raise PassError("quantize-onnx-static", f"{type(exc).__name__}: {exc}") from exc
        content = after.read_bytes()
    return Stage(format="onnx", content=content, inputs=stage.inputs, outputs=stage.outputs)
