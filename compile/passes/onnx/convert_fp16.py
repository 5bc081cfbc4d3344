"""Store and compute an ONNX file in float16; inputs and outputs stay float32."""

import warnings

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.settings import NoSettings, read_settings
from hedgerow.compile.stage import Settings, Source, Stage

__all__ = ["convert_onnx_fp16"]


def convert_onnx_fp16(_source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Convert with ONNX Runtime's converter; operators that float16 breaks stay float32 between casts.

    Raises:
        PassError: The converter fails.
        PassSettingsError: Settings are given; it has none.
        ValueError: No ONNX stage is given.
    """
    if stage is None or stage.format != "onnx":
        raise ValueError("expected an ONNX file to convert")
    read_settings("convert-onnx-fp16", NoSettings, settings)
    with warnings.catch_warnings():
        # It warns of every number that is too small for float16; the parity check sees what that costs.
        warnings.simplefilter("ignore")
        try:
            model = convert_float_to_float16(onnx.load_model_from_string(stage.content), keep_io_types=True)
        # The converter raises whatever it finds in the graph; the message must name the step.
        except Exception as exc:
            raise PassError("convert-onnx-fp16", f"{type(exc).__name__}: {exc}") from exc
    content = model.SerializeToString(deterministic=True)
    return Stage(format="onnx", content=content, inputs=stage.inputs, outputs=stage.outputs)
