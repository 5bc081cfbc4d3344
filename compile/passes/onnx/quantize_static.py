"""Static int8 quantization of an ONNX file, in QDQ form, with onnxruntime.quantization."""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
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
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.quantize import save_tensors_data

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.settings import one_of, read_settings, yes_or_no
from hedgerow.compile.stage import Settings, Source, Stage
from hedgerow.task import Dataset

__all__ = ["StaticSettings", "quantize_onnx_static", "static_bytes"]

_STEP = "quantize-onnx-static"
# Softmax stays in float: in int8 a probability has 256 steps, and the confidence that the fleet watches gets coarse.
_OPERATORS = [
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "Mul",
    "ReduceMean", "Relu", "Reshape", "Transpose",
]  # fmt: skip
_BATCH = 32
_ENTROPY_BINS, _ENTROPY_STEPS = 512, 256
# Never CalibrationMethod.Distribution: with int8 it destroys the model without an error.
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticSettings:
    """Settings of static quantization; weights are int8 always.

    Attributes:
        activations: ``int8`` or ``uint8``.
        calibration: Ranges of activations: ``minmax`` are the extremes seen, ``entropy`` the cut that loses least
            information (Kullback-Leibler), ``percentile`` the middle 99.999 %.
        per_channel: Whether weights have one scale for each output channel, or one for each tensor.
        reduce_range: Whether weights use 7 bits, which x86 without VNNI needs.
        symmetric: Whether every zero point is 0 and biases stay float, which TensorRT demands.
    """

    activations: str = one_of("int8", "uint8")
    calibration: str = one_of("minmax", "entropy", "percentile", default="minmax")
    per_channel: bool = yes_or_no(default=True)
    reduce_range: bool = yes_or_no(default=False)
    symmetric: bool = yes_or_no(default=False)


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
    """Quantize activations per tensor, from their ranges in calibration, and weights; see :class:`StaticSettings`.

    Raises:
        PassError: The quantizer fails.
        PassSettingsError: The settings make no sense.
        ValueError: No ONNX stage is given.
    """
    if stage is None or stage.format != "onnx":
        raise ValueError("expected an ONNX file to quantize")
    content = static_bytes(_STEP, source, stage, read_settings(_STEP, StaticSettings, settings))
    return Stage(format="onnx", content=content, inputs=stage.inputs, outputs=stage.outputs)


def static_bytes(
    step: str,
    source: Source,
    stage: Stage,
    chosen: StaticSettings,
    *,
    left_out: Sequence[str] = (),
    ranges: Path | None = None,
) -> bytes:
    """Return *stage* quantized.

    Args:
        step: Name of the pass, for messages.
        source: Gives the calibration data.
        stage: An ONNX file.
        chosen: How.
        left_out: Names of nodes that stay float.
        ranges: A file that keeps the measured ranges for the next call with the same stage and settings; made when it
            is absent.

    Raises:
        PassError: The quantizer fails.
    """
    names = {tensor.name: tensor.tensor for tensor in stage.inputs}
    options = {"ActivationSymmetric": True, "QuantizeBias": False} if chosen.symmetric else {}
    # Some calibrators print their progress.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(stage.content)
        kept = ranges if ranges is not None else Path(folder) / "ranges.json"
        try:
            if chosen.calibration == "entropy" and not kept.exists():
                _measure_entropy(before, _Calibration(source.calibration, names), kept)
            quantize_static(
                before,
                after,
                _Calibration(source.calibration, names),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8 if chosen.activations == "int8" else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=_OPERATORS,
                nodes_to_exclude=list(left_out),
                per_channel=chosen.per_channel,
                reduce_range=chosen.reduce_range,
                calibrate_method=_METHODS[chosen.calibration],
                extra_options=options,
                calibration_cache_path=kept,
            )
        # The quantizer raises bare Exception for models that it does not understand.
        except Exception as exc:
            raise PassError(step, f"{type(exc).__name__}: {exc}") from exc
        return after.read_bytes()


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
