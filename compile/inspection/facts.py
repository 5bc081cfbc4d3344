"""What a compiled file really holds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.hardware.fit import OperatorUse

__all__ = ["NO_SHAPES", "FileFacts", "OperatorFacts", "any_broken"]

NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})
"""Nothing is known of a file's inputs but what it says itself."""
_MAXIMUM_ITEMS, _MAXIMUM_CHARS, _MAXIMUM_COUNT = 1_000_000, 4096, 2**63


def any_broken(numbers: NDArray[Any]) -> bool:
    """Say whether float constants hold NaN or infinity.

    Minus infinity is allowed, attention masks are written so; and so is infinity alone, which values are compared with
    where NaN and infinities are replaced.
    """
    return bool(np.isnan(numbers).any() or (np.size(numbers) > 1 and np.isposinf(numbers).any()))


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFacts:
    """One operator of a graph.

    Attributes:
        name: In the format's own words.
        version: Of the operator; see :attr:`FileFacts.operator_versions`.
        inputs: Names of the tensors that it reads. Constants are left out: they live in the file.
        outputs: Names of the tensors that it writes.
        macs: Multiply-accumulates of one call; 0 for an operator that is no convolution, matrix product or recurrent
            cell; None where a size that they depend on is open.
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    macs: int | None = 0

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "name": self.name,
            "version": self.version,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "macs": self.macs,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "OperatorFacts":
        """Decode an operator."""
        operator = cls(
            name=fields.text("name", maximum_chars=_MAXIMUM_CHARS),
            version=fields.integer("version"),
            inputs=_texts(fields, "inputs"),
            outputs=_texts(fields, "outputs"),
            macs=fields.optional_integer("macs", maximum=_MAXIMUM_COUNT),
        )
        fields.finish()
        return operator


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """Facts read from a file, not from what a converter said. A size that is open is unknown, never small.

    Attributes:
        operators: Operators, in the format's own names.
        number_types: Element types of all tensors that hold numbers, inside and at the border.
        quantized_weights: Constant numbers stored in at most 8 bits as weights.
        float_weights: Constant numbers stored as floats; scales of quantized tensors are not counted.
        operator_versions: Operator -> highest version in use. TFLite: the operator's own version; ONNX: the version of
            the operator set that the file names for its domain; Core ML: the oldest iOS whose runtime has the opset.
        uses: In which ways operators are used, over all graphs, as far as that is known; empty for Core ML.
        weights_bytes: Bytes of all constants that are weights, as stored.
        weights_bytes_by_bits: Width of one stored number in bits -> bytes of weights of this width.
        parameters: Numbers in the weights and biases of convolutions, matrix products and recurrent cells.
        has_nan: Whether a float constant holds NaN or infinity; minus infinity is allowed, masks are written so.
        dynamic_shapes: Whether a tensor has a dimension that is not fixed, other than the first one (the batch, which
            every runtime can hold at 1).
        float_tensors: How many tensors hold floats, inside and at the border, constants included.
        graph: The operators of the main graph in execution order. Operators on constants alone are left out: every
            runtime computes them once, when it loads the file.
        tensor_bytes: Tensor of *graph* (and of its border) -> bytes. Constants are left out, and tensors with an open
            size.
        inputs, outputs: Tensors at the border of *graph*, which live before and after it.
        border_types: Element types of these.
        asymmetric_tensors: How many zero points of quantized tensors are not 0.
        outside_constants: How many constants stand behind the file's graph instead of in it.
        open_sizes: What keeps memory and multiplications from being counted, in words, such as ``the dimension 'batch'
            of the input 'image'``; empty when every size is known.
    """

    operators: frozenset[str]
    number_types: frozenset[str]
    quantized_weights: int
    float_weights: int
    operator_versions: Mapping[str, int] = field(default_factory=dict)
    uses: frozenset[OperatorUse] = frozenset()
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
    open_sizes: tuple[str, ...] = ()

    @property
    def quantized_share(self) -> float:
        """Share of the weights that are quantized, by count; 0 for a file without weights."""
        total = self.quantized_weights + self.float_weights
        return self.quantized_weights / total if total else 0.0

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of one prediction; None where a size is open."""
        counted = [operator.macs for operator in self.graph]
        known = [macs for macs in counted if macs is not None]
        return sum(known) if len(known) == len(counted) and not self.open_sizes else None

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "operators": sorted(self.operators),
            "number_types": sorted(self.number_types),
            "quantized_weights": self.quantized_weights,
            "float_weights": self.float_weights,
            "operator_versions": dict(self.operator_versions),
            "uses": [{"name": use.name, "types": use.types, "rank": use.rank} for use in sorted(self.uses)],
            "weights_bytes": self.weights_bytes,
            "weights_bytes_by_bits": {str(bits): size for bits, size in self.weights_bytes_by_bits.items()},
            "parameters": self.parameters,
            "has_nan": self.has_nan,
            "dynamic_shapes": self.dynamic_shapes,
            "float_tensors": self.float_tensors,
            "graph": [operator.to_record() for operator in self.graph],
            "tensor_bytes": dict(self.tensor_bytes),
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "border_types": sorted(self.border_types),
            "asymmetric_tensors": self.asymmetric_tensors,
            "outside_constants": self.outside_constants,
            "open_sizes": list(self.open_sizes),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "FileFacts":
        """Decode facts, such as those that another process has read.

        Raises:
            DecodeError: A field is wrong.
        """
        bits = _counts(fields.nested("weights_bytes_by_bits"))
        if wrong := [width for width in bits if not re.fullmatch(r"\d{1,3}", width)]:
            raise DecodeError(f"{fields.where}.weights_bytes_by_bits", "widths in bits", wrong[0][:20])
        facts = cls(
            operators=frozenset(_texts(fields, "operators")),
            number_types=frozenset(_texts(fields, "number_types")),
            quantized_weights=fields.integer("quantized_weights"),
            float_weights=fields.integer("float_weights"),
            operator_versions=_counts(fields.nested("operator_versions")),
            uses=frozenset(fields.sequence("uses", _use, maximum_items=_MAXIMUM_ITEMS)),
            weights_bytes=fields.integer("weights_bytes"),
            weights_bytes_by_bits={int(width): size for width, size in bits.items()},
            parameters=fields.integer("parameters"),
            has_nan=fields.boolean("has_nan"),
            dynamic_shapes=fields.boolean("dynamic_shapes"),
            float_tensors=fields.integer("float_tensors"),
            graph=fields.sequence("graph", OperatorFacts.from_fields, maximum_items=_MAXIMUM_ITEMS),
            tensor_bytes=_counts(fields.nested("tensor_bytes")),
            inputs=_texts(fields, "inputs"),
            outputs=_texts(fields, "outputs"),
            border_types=frozenset(_texts(fields, "border_types")),
            asymmetric_tensors=fields.integer("asymmetric_tensors"),
            outside_constants=fields.integer("outside_constants"),
            open_sizes=_texts(fields, "open_sizes"),
        )
        fields.finish()
        return facts


def _use(fields: Fields) -> OperatorUse:
    use = OperatorUse(
        name=fields.text("name", maximum_chars=_MAXIMUM_CHARS),
        types=fields.text("types", maximum_chars=_MAXIMUM_CHARS),
        rank=fields.integer("rank"),
    )
    fields.finish()
    return use


def _texts(fields: Fields, key: str) -> tuple[str, ...]:
    return fields.texts(key, maximum_items=_MAXIMUM_ITEMS, maximum_chars=_MAXIMUM_CHARS)


def _counts(fields: Fields) -> dict[str, int]:
    return {name: fields.integer(name, maximum=_MAXIMUM_COUNT) for name in fields.names()}
