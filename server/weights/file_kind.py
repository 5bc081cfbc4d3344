"""What a file is, by its first bytes and the names inside it, and what to do where it is no state dict. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["HEAD_BYTES", "FileKind", "NotWeights", "kind_of"]

HEAD_BYTES = 512
"""So much of the beginning of a file says what it is."""
_ONNX = re.compile(rb"\x08[\x01-\x20](\x12|\x3a|\x42)", re.DOTALL)
"""A ModelProto begins with its ir_version, then comes a producer, an opset or a graph."""
_SAVE = "torch.save(model.state_dict(), 'weights.pt')"


class FileKind(StrEnum):
    """Who reads a file of weights."""

    TORCH = "torch"
    SAFETENSORS = "safetensors"


@dataclass(frozen=True, slots=True)
class NotWeights:
    """A file that holds something else.

    Attributes:
        found: What it holds.
        advice: What to do instead.
    """

    found: str
    advice: str


_COMPILED = (
    "it is compiled already: hand it to `hedgerow compile --artifact`, or save the state dict of the torch model that "
    f"it was made of: {_SAVE}"
)


def kind_of(head: bytes, names: Sequence[str], suffix: str) -> FileKind | NotWeights:
    """Return who reads a file, or what it is instead.

    Args:
        head: Its first :data:`HEAD_BYTES`.
        names: Of the files inside it where it is a zip archive.
        suffix: Of its name, in lower case.
    """
    if not head:
        return NotWeights("an empty file", "save it again")
    if head.startswith(b"version https://git-lfs"):
        return NotWeights("a pointer of Git LFS in the place of the file", "run: git lfs pull")
    if head.startswith(b"PK\x03\x04"):
        return _archive(names)
    if head[4:8] == b"TFL3":
        return NotWeights("a TFLite file", _COMPILED)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return NotWeights("an HDF5 file, as Keras writes them", _other_framework("Keras"))
    if head.startswith(b"\x93NUMPY"):
        return NotWeights("one numpy array without a name", "save all arrays by name: safetensors.numpy.save_file")
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return FileKind.SAFETENSORS
    if suffix == ".onnx" or _ONNX.match(head):
        return NotWeights("an ONNX file", _COMPILED)
    if head.startswith(b"\x80") or b"ustar" in head:
        return FileKind.TORCH  # what torch wrote before it wrote archives
    return NotWeights("bytes that neither torch nor safetensors has written", f"save it so: {_SAVE}")


def _archive(names: Sequence[str]) -> FileKind | NotWeights:
    if not names:
        return NotWeights("an archive that is damaged or cut short", "copy or save it again")
    parts = [tuple(name.split("/")) for name in names]
    inner = {"/".join(part[1:]) for part in parts}
    if any(part[1:2] == ("code",) for part in parts) or "constants.pkl" in inner:
        return NotWeights(
            "a TorchScript file, whose code is never run here",
            "save its weights alone: torch.save(torch.jit.load('model.pt').state_dict(), 'weights.pt')",
        )
    if inner & {"archive_format", "models/model.json"} or "serialized_exported_program.json" in names:
        return NotWeights(
            "an exported program of torch.export, whose code is never run here",
            "save its weights alone: torch.save(torch.export.load('model.pt2').state_dict, 'weights.pt')",
        )
    if "data.pkl" in inner:
        return FileKind.TORCH
    if all(name.endswith(".npy") for name in names):
        return NotWeights(
            "an archive of numpy arrays",
            "save them as safetensors: safetensors.numpy.save_file(dict(numpy.load('model.npz')), "
            "'weights.safetensors')",
        )
    if "model.weights.h5" in names:
        return NotWeights("a Keras file", _other_framework("Keras"))
    return NotWeights("a zip archive that torch has not written", f"unpack it, or save the weights so: {_SAVE}")


def _other_framework(name: str) -> str:
    return f"models of tasks are torch modules: copy the weights from {name} into one and save it: {_SAVE}"
