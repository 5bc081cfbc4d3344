"""Weight-only int8 quantization of a Core ML mlprogram with coremltools.optimize. It buys size, not speed."""

import tempfile
import warnings
from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as cto

from hedgerow.compile.errors import PassError
from hedgerow.compile.mlpackage import unpack
from hedgerow.compile.passes.export_coreml import packed
from hedgerow.compile.stage import Settings, Source, Stage

__all__ = ["quantize_coreml_weights"]


def quantize_coreml_weights(_source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Store weights as int8 with one scale for each output channel.

    Settings:
        minimum_elements: Smaller weights stay float; a scale for each of them would eat what they save.

    Raises:
        PassError: coremltools fails.
        ValueError: No Core ML stage is given.
    """
    if stage is None or stage.format != "mlpackage":
        raise ValueError("expected a Core ML package to quantize")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.mlpackage"
        unpack(stage.content, path)
        rule = cto.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int8", weight_threshold=int(settings["minimum_elements"])
        )
        try:
            model = ct.models.MLModel(str(path), skip_model_load=True)
            quantized = cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=rule))
        # coremltools raises whatever its passes raise; the message must name the step.
        except Exception as exc:
            raise PassError("quantize-coreml-weights", f"{type(exc).__name__}: {exc}") from exc
        content = packed(quantized)
    return Stage(format="mlpackage", content=content, inputs=stage.inputs, outputs=stage.outputs)
