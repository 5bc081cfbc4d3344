"""Store the weights of a TFLite file in float16; the runtime unpacks them, and inputs and outputs stay float32."""

from dataclasses import dataclass
from typing import Any, ClassVar

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.kinds import FilePass

__all__ = ["ConvertTfliteFp16"]

# What float casting knows; asked for all operators it refuses those without weights.
_LAYERS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "EMBEDDING_LOOKUP")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertTfliteFp16(FilePass):
    """Converts with ai-edge-quantizer's float casting."""

    name: ClassVar[str] = "convert-tflite-fp16"
    takes: ClassVar[str] = "tflite"
    gives: ClassVar[str] = "tflite"

    @property
    def weight_bits(self) -> int:
        """Half of a float's."""
        return 16

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file with float16 weights."""
        from ai_edge_quantizer import algorithm_manager, qtyping

        from hedgerow.compile.passes.tflite.aeq import quantized_stage

        del source

        def prepare(tool: Any) -> None:
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

        return quantized_stage(stage, prepare)
