"""Store the weights of a TFLite file in float16; the runtime unpacks them, and inputs and outputs stay float32."""

import tempfile
from pathlib import Path

from ai_edge_quantizer import algorithm_manager, qtyping

from hedgerow.compile.passes.settings import NoSettings, read_settings
from hedgerow.compile.passes.tflite.aeq import open_quantizer, tool_errors
from hedgerow.compile.runners.tflite import signature_tensors
from hedgerow.compile.stage import Settings, Source, Stage

__all__ = ["convert_tflite_fp16"]

_STEP = "convert-tflite-fp16"
# What float casting knows; asked for all operators it refuses those without weights.
_LAYERS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "EMBEDDING_LOOKUP")


def convert_tflite_fp16(source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Convert with ai-edge-quantizer's float casting.

    Raises:
        PassError: The converter fails.
        PassSettingsError: Settings are given; it has none.
        ValueError: No TFLite stage is given.
    """
    if stage is None or stage.format != "tflite":
        raise ValueError("expected a TFLite file to convert")
    read_settings(_STEP, NoSettings, settings)
    with tempfile.TemporaryDirectory() as folder, tool_errors(_STEP):
        after = Path(folder) / "half.tflite"
        tool = open_quantizer(stage.content, folder)
        for layer in _LAYERS:
            tool.update_quantization_recipe(
                regex=".*",
                operation_name=qtyping.TFLOperationName[layer],
                op_config=qtyping.OpQuantizationConfig(
                    weight_tensor_config=qtyping.TensorQuantizationConfig(
                        num_bits=16, dtype=qtyping.TensorDataType.FLOAT
                    ),
                    compute_precision=qtyping.ComputePrecision.FLOAT,
                    explicit_dequantize=True,
                ),
                algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
            )
        tool.quantize().export_model(str(after))
        content = after.read_bytes()
    inputs, outputs = signature_tensors(content, source.task.schema)
    return Stage(format="tflite", content=content, inputs=inputs, outputs=outputs)
