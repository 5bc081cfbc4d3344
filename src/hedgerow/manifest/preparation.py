"""What goes before an artifact that takes prepared samples instead of the schema's inputs. Pure."""

from dataclasses import dataclass
from typing import Any

from hedgerow.decode import Fields
from hedgerow.manifest.content import Blob, Tensor

__all__ = ["Preparation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The task's pre-processing beside a file that holds integers alone.

    Attributes:
        blob: A float file in the artifact's format, for the artifact's runtime.
        source: The same as C99 source, for firmware; its header is :file:`model_prepare.h`.
        inputs: The places of the schema's inputs in it.
        outputs: What it gives, each under the name of the artifact's input that takes it.
    """

    blob: Blob
    source: Blob
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "blob": self.blob.to_record(),
            "source": self.source.to_record(),
            "inputs": [tensor.to_record() for tensor in self.inputs],
            "outputs": [tensor.to_record() for tensor in self.outputs],
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Preparation":
        """Decode what goes before an artifact."""
        preparation = cls(
            blob=Blob.from_fields(fields.nested("blob")),
            source=Blob.from_fields(fields.nested("source")),
            inputs=fields.sequence("inputs", Tensor.from_fields, maximum_items=16),
            outputs=fields.sequence("outputs", Tensor.from_fields, maximum_items=16),
        )
        fields.finish()
        return preparation
