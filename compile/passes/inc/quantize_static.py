"""Static int8 quantization with Intel neural-compressor (PT2E), exported to ONNX.

neural-compressor 3.x quantizes torch programs only, and its weights stay float behind quantize/dequantize pairs. The
pass :func:`hedgerow.compile.passes.onnx.fold.fold_onnx` after this one is what makes the file small.
"""

from typing import Any

from hedgerow.compile.passes.inc.served import Calibrate, inc_stage
from hedgerow.compile.passes.settings import NoSettings, read_settings
from hedgerow.compile.stage import Settings, Source, Stage

__all__ = ["quantize_inc_static"]

_STEP = "quantize-inc-static"


def quantize_inc_static(source: Source, _stage: Stage | None, settings: Settings) -> Stage:
    """Quantize the served model with neural-compressor's static PT2E path and export it.

    Raises:
        PassError: neural-compressor or the exporter fails.
        PassSettingsError: Settings are given; it has none.
    """
    read_settings(_STEP, NoSettings, settings)

    def quantize(program: Any, calibrate: Calibrate) -> Any:
        from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

        prepared = prepare(program, StaticQuantConfig())
        calibrate(prepared)
        return convert(prepared)

    return inc_stage(_STEP, source, quantize)
