"""Dynamic int8 quantization of an ONNX file: weights are int8, activations are rounded at run time."""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
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
        # The quantizer turns Gemm into MatMul with a transposed weight, and then trips over the weight's noted shape.
        del model.graph.value_info[:]
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
