"""Take out of a TFLite file what no runtime reads: for a small model that can be a third of it.

litert-torch writes the path through the Python modules into the name of every tensor, and the quantizer writes some
constants twice. Signatures have names of their own, so callers see no difference; tensors are numbered instead, because
tools tell them apart by name. The quantizer also moves constants of a larger model behind the flatbuffer and leaves
them on any address; here they come back into it, on multiples of 16 as the format asks, for runtimes that read them
in place.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.kinds import FilePass

__all__ = ["TrimTflite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimTflite(FilePass):
    """Numbers the tensors, keeps each constant once, and drops descriptions; every result stays the same."""

    name: ClassVar[str] = "trim-tflite"
    takes: ClassVar[str] = "tflite"
    gives: ClassVar[str] = "tflite"

    @property
    def weight_bits(self) -> None:
        """Weights stay what they are."""
        return

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file without what no runtime reads."""
        from hedgerow.compile.passes.tflite.trimming import trimmed

        del source
        return replace(stage, content=trimmed(stage.content))
