"""Weights of an ONNX file that stand in files beside it, as torch's exporter writes them: taken into the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from hedgerow.compile.inspection.onnx.file import graphs_of, parse_onnx
from hedgerow.errors import DecodeError

__all__ = ["inlined"]

_LIMIT_BYTES = 2**31 - 1
"""What one protobuf holds."""


def inlined(content: bytes, folder: Path) -> bytes:
    """Return the file with its weights inside.

    Args:
        content: The file.
        folder: Where it lies; only files in there are read.

    Raises:
        DecodeError: The bytes are no ONNX file, a file of weights is not there, too short or elsewhere, or the whole
            is more than one file can hold.
    """
    model = parse_onnx(content)
    size_bytes = len(content)
    for tensor in _outside(model):
        found = {entry.key: entry.value for entry in tensor.external_data}
        part = _part(folder, tensor.name, found)
        size_bytes += len(part)
        if size_bytes > _LIMIT_BYTES:
            raise DecodeError("onnx", f"at most {_LIMIT_BYTES} bytes with all weights", "more")
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT
        tensor.raw_data = part
    made: bytes = model.SerializeToString(deterministic=True)
    return made


def _outside(model: Any) -> Iterator[Any]:
    for graph in graphs_of(model.graph):
        tensors = [*graph.initializer]
        for node in graph.node:
            for attribute in node.attribute:
                tensors += [attribute.t, *attribute.tensors]
        yield from (tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL)


def _part(folder: Path, tensor: str, found: dict[str, str]) -> bytes:
    """Return the bytes of one tensor.

    Raises:
        DecodeError: They are not there.
    """
    location = found.get("location", "")
    path = (folder / location).resolve()
    if not location or not path.is_relative_to(folder.resolve()):
        raise DecodeError("onnx", f"the weights {tensor!r} in a file beside the model", repr(location[:200]))
    if not path.is_file():
        raise DecodeError("onnx", f"the file {location[:200]!r} with weights beside the model", "none")
    size_bytes = path.stat().st_size
    begin = _number(tensor, "offset", found.get("offset", "0"))
    length = _number(tensor, "length", found.get("length", str(max(0, size_bytes - begin))))
    if begin + length > size_bytes:
        expected = f"the weights {tensor!r} up to byte {begin + length} of {location[:200]!r}"
        raise DecodeError("onnx", expected, f"a file of {size_bytes} bytes")
    if length > _LIMIT_BYTES:
        raise DecodeError("onnx", f"at most {_LIMIT_BYTES} bytes with all weights", str(length))
    with path.open("rb") as file:
        file.seek(begin)
        return file.read(length)


def _number(tensor: str, what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise DecodeError("onnx", f"a number of bytes as {what} of the weights {tensor!r}", repr(text[:40]))
    return int(text)
