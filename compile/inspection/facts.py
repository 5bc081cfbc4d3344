"""What a compiled file really holds."""

from dataclasses import dataclass

__all__ = ["FileFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """Facts read from a file, not from what a converter said.

    Attributes:
        operators: Operators, in the format's own names.
        number_types: Element types of all tensors, inside and at the border.
        quantized_weights: Constant numbers stored in at most 8 bits as weights.
        float_weights: Constant numbers stored as floats; scales of quantized tensors are not counted.
    """

    operators: frozenset[str]
    number_types: frozenset[str]
    quantized_weights: int
    float_weights: int

    @property
    def quantized_share(self) -> float:
        """Share of the weights that are quantized, by count; 0 for a file without weights."""
        total = self.quantized_weights + self.float_weights
        return self.quantized_weights / total if total else 0.0
