"""Store and compute an ONNX file in float16; inputs and outputs stay float32."""

from dataclasses import dataclass, replace
from typing import ClassVar

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.kinds import FilePass

__all__ = ["ConvertOnnxFp16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOnnxFp16(FilePass):
    """Converts with ONNX Runtime's converter; operators that float16 breaks stay float32 between casts."""

    name: ClassVar[str] = "convert-onnx-fp16"
    takes: ClassVar[str] = "onnx"
    gives: ClassVar[str] = "onnx"

    @property
    def weight_bits(self) -> int:
        """Half of a float's."""
        return 16

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file in float16."""
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        del source
        model = convert_float_to_float16(onnx.load_model_from_string(stage.content), keep_io_types=True)
        return replace(stage, content=model.SerializeToString(deterministic=True))
