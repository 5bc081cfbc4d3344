"""What a release is made of: content by hash, and the tensors at a file's border. Pure."""

from dataclasses import dataclass
from typing import Any

from hedgerow.decode import SHA256, Fields
from hedgerow.errors import DecodeError

__all__ = ["QUANTIZED_TYPES", "Blob", "Tensor"]

QUANTIZED_TYPES = ("int8", "uint8", "int16", "uint16", "int32")
# What a float32 holds: the border divides by one.
_SMALLEST_SCALE, _LARGEST_SCALE = 2.0**-149, (2 - 2.0**-23) * 2.0**127


@dataclass(frozen=True, slots=True)
class Blob:
    """Content by hash.

    Attributes:
        sha256: Hash in lower-case hexadecimal.
        length_bytes: Exact length.
    """

    sha256: str
    length_bytes: int

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {"sha256": self.sha256, "length_bytes": self.length_bytes}

    @classmethod
    def from_fields(cls, fields: Fields) -> "Blob":
        """Decode a blob."""
        blob = cls(fields.text("sha256", pattern=SHA256), fields.integer("length_bytes", maximum=2**40))
        fields.finish()
        return blob


@dataclass(frozen=True, slots=True)
class Tensor:
    """How one named tensor is found in a file and converted at its border.

    Attributes:
        name: The schema's or the parameter's name.
        tensor: The name inside the file (ONNX: usually the same; TFLite: the signature's, such as ``args_0``).
        shape: The file's shape, with the batch dimension in front; -1 where it is dynamic. A file without a batch in
            front takes one sample a call: its shapes have as many dimensions as the schema's.
        dtype: The file's type; an integer with a scale is quantized.
        scale: Real value of one step of a quantized tensor, else None.
        zero_point: Stored value of real zero; 0 when not quantized.
    """

    name: str
    tensor: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "name": self.name,
            "tensor": self.tensor,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "scale": self.scale,
            "zero_point": self.zero_point,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Tensor":
        """Decode a tensor."""
        tensor = cls(
            name=fields.text("name", maximum_chars=256),
            tensor=fields.text("tensor", maximum_chars=256),
            shape=fields.integers("shape", minimum=-1, maximum_items=8),
            dtype=fields.text("dtype", maximum_chars=16),
            scale=fields.optional_number("scale", minimum=_SMALLEST_SCALE, maximum=_LARGEST_SCALE),
            zero_point=fields.integer("zero_point", minimum=-(2**31), maximum=2**31 - 1),
        )
        if tensor.scale is not None and tensor.dtype not in QUANTIZED_TYPES:
            expected = f"{', '.join(QUANTIZED_TYPES)} beside a scale"
            raise DecodeError(f"{fields.where}.dtype", expected, repr(tensor.dtype))
        fields.finish()
        return tensor
