"""What a compiled file really holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FileFacts", "OperatorFacts", "any_broken"]


def any_broken(numbers: NDArray[Any]) -> bool:
    """Say whether float constants hold NaN or infinity; minus infinity is allowed, attention masks are written so."""
    return bool((np.isnan(numbers) | np.isposinf(numbers)).any())


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFacts:
    """One operator of a graph.

    Attributes:
        name: In the format's own words.
        version: Of the operator; see :attr:`FileFacts.operator_versions`.
        inputs: Names of the tensors that it reads. Constants are left out: they live in the file.
        outputs: Names of the tensors that it writes.
        macs: Multiply-accumulates of one call with one sample; 0 for an operator that is no convolution, matrix
            product or recurrent cell.
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    macs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """Facts read from a file, not from what a converter said. A dynamic dimension counts as 1: one sample.

    Attributes:
        operators: Operators, in the format's own names.
        number_types: Element types of all tensors, inside and at the border.
        quantized_weights: Constant numbers stored in at most 8 bits as weights.
        float_weights: Constant numbers stored as floats; scales of quantized tensors are not counted.
        operator_versions: Operator -> highest version in use. TFLite: the operator's own version; ONNX: the version of
            the operator set that the file names for its domain; Core ML: the oldest iOS whose runtime has the opset.
        weights_bytes: Bytes of all constants that are weights, as stored.
        weights_bytes_by_bits: Width of one stored number in bits -> bytes of weights of this width.
        parameters: Numbers in the weights and biases of convolutions, matrix products and recurrent cells.
        has_nan: Whether a float constant holds NaN or infinity; minus infinity is allowed, masks are written so.
        dynamic_shapes: Whether a tensor has a dimension that is not fixed, other than the first one (the batch, which
            every runtime can hold at 1).
        float_tensors: How many tensors hold floats, inside and at the border, constants included.
        graph: The operators of the main graph in execution order. Operators on constants alone are left out: every
            runtime computes them once, when it loads the file.
        tensor_bytes: Tensor of *graph* (and of its border) -> bytes. Constants are left out.
        inputs, outputs: Tensors at the border of *graph*, which live before and after it.
        border_types: Element types of these.
        asymmetric_tensors: How many zero points of quantized tensors are not 0.
        outside_constants: How many constants stand behind the file's graph instead of in it.
    """

    operators: frozenset[str]
    number_types: frozenset[str]
    quantized_weights: int
    float_weights: int
    operator_versions: Mapping[str, int] = field(default_factory=dict)
    weights_bytes: int = 0
    weights_bytes_by_bits: Mapping[int, int] = field(default_factory=dict)
    parameters: int = 0
    has_nan: bool = False
    dynamic_shapes: bool = False
    float_tensors: int = 0
    graph: tuple[OperatorFacts, ...] = ()
    tensor_bytes: Mapping[str, int] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    border_types: frozenset[str] = frozenset()
    asymmetric_tensors: int = 0
    outside_constants: int = 0

    @property
    def quantized_share(self) -> float:
        """Share of the weights that are quantized, by count; 0 for a file without weights."""
        total = self.quantized_weights + self.float_weights
        return self.quantized_weights / total if total else 0.0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one prediction for one sample."""
        return sum(operator.macs for operator in self.graph)
