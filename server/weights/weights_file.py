"""A file of weights from elsewhere, read in a process of its own: foreign bytes end no process of ours.

Nothing of the file is run. What the process answers is decoded as strictly as anything from outside.
"""

from dataclasses import dataclass
from pathlib import Path

from hedgerow.children.child import numeric_threads
from hedgerow.children.conversation import converse
from hedgerow.children.module_child import ModuleChild
from hedgerow.children.output import OutputFile
from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import DecodeError
from hedgerow.scratch_folder import ScratchFolder
from hedgerow.server.weights.errors import WeightsFileError
from hedgerow.server.weights.reading_child import ARRAYS_LIMIT_BYTES, MOST_CHARS, MOST_NAMES
from hedgerow.weights import Arrays, decode_arrays

__all__ = ["WeightsFile", "read_weights"]

TIMEOUT_S = 300.0
_MODULE = "hedgerow.server.weights.reading_child"
_MESSAGE_LIMIT_BYTES = 64 * 2**20
_ARRAYS_LIMIT_BYTES = ARRAYS_LIMIT_BYTES + 2**27
"""With the names before the arrays."""
_AGAIN = "save it again, or give another one"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """What a file of weights holds.

    Attributes:
        path: The file.
        arrays: Name -> array, as they stand in the file, but for bfloat16, which is float32.
        entry: Under which name the file held them; empty: they are the whole file.
        widened: Names of those that are bfloat16 in the file.
    """

    path: Path
    arrays: Arrays
    entry: str = ""
    widened: frozenset[str] = frozenset()


def read_weights(path: Path, *, entry: str = "", timeout_s: float = TIMEOUT_S) -> WeightsFile:
    """Read the state dict of a file of torch or safetensors.

    Args:
        path: The file.
        entry: Under which name the file holds it; empty: the whole file, or one of the usual names.
        timeout_s: How long that may take.

    Raises:
        WeightsFileError: It holds none, or what reads it died or hung.
    """
    if path.is_dir():
        raise WeightsFileError(path, *_folder(path), expected="a file of weights")
    if not path.is_file():
        raise WeightsFileError(path, "no such file", "correct the path", expected="a file of weights")
    with ScratchFolder() as scratch:
        request = {"path": str(path.absolute()), "folder": str(scratch.path), "entry": entry}
        fields = _ask(path, encode_json(request), timeout_s)
        found = scratch.path / "arrays"
        try:
            if found.stat().st_size > _ARRAYS_LIMIT_BYTES:
                raise WeightsFileError(path, f"more than {_ARRAYS_LIMIT_BYTES:,} bytes", _AGAIN)
            arrays = decode_arrays(found.read_bytes(), "arrays", limit_bytes=_ARRAYS_LIMIT_BYTES)
            taken = fields.text("entry", maximum_chars=MOST_CHARS)
            widened = fields.texts("widened", maximum_items=MOST_NAMES, maximum_chars=MOST_CHARS)
            fields.finish()
        except DecodeError as exc:
            raise WeightsFileError(path, f"one that makes its reader say nonsense ({exc})", _AGAIN) from exc
    return WeightsFile(path, arrays, taken, frozenset(widened))


def _folder(path: Path) -> tuple[str, str]:
    """Return what a folder is, and what to do instead."""
    if (path / "checkpoint.json").is_file():
        return "a checkpoint of Hedgerow's", "it needs no import: use it as it is"
    if (path / "checkpoint" / "checkpoint.json").is_file():
        return "the folder of a training run", f"it needs no import: use {path / 'checkpoint'} as it is"
    if (path / "saved_model.pb").is_file():
        return "a SavedModel of TensorFlow", "copy its weights into a torch module and save its state dict"
    inside = sorted(each.name for each in path.iterdir() if each.suffix in {".pt", ".pth", ".bin", ".safetensors"})
    return "a folder", f"give the file in it, such as {path / inside[0]}" if inside else "give a file"


def _ask(path: Path, request: bytes, timeout_s: float) -> Fields:
    """Have a file read, and return what its reader says of it.

    Raises:
        WeightsFileError: It holds no state dict, or its reader died or hung.
        OSError: It cannot be read.
    """
    child = ModuleChild(
        _MODULE,
        limit_bytes=_MESSAGE_LIMIT_BYTES,
        name=f"the reader of {path.name}",
        output=OutputFile(),
        environment=numeric_threads(1),
        scratch=True,
    )
    said: list[Fields] = []

    def hear(message: bytes) -> None:
        said.append(decode_json(message, "message", limit_bytes=_MESSAGE_LIMIT_BYTES))

    try:
        ended = converse(child, request, hear, timeout_s=timeout_s)
    except DecodeError as exc:
        raise WeightsFileError(path, f"one that makes its reader say nonsense ({exc})", _AGAIN) from exc
    if ended.timed_out:
        raise WeightsFileError(path, f"one that is not read within {timeout_s:g} s", _AGAIN)
    how = f"the signal {ended.signal_name}" if ended.signal_name else f"exit code {ended.code}"
    if ended.signal_name or not said:
        last = f"; its last words: {ended.last_line}" if ended.last_line else ""
        raise WeightsFileError(path, f"one that ends its reader by {how}{last}", _AGAIN)
    try:
        return _answer(path, said[0])
    except DecodeError as exc:
        raise WeightsFileError(path, f"one that makes its reader say nonsense ({exc})", _AGAIN) from exc


def _answer(path: Path, answer: Fields) -> Fields:
    """Return what was read.

    Raises:
        DecodeError: The answer is none.
        WeightsFileError: Nothing was.
    """
    names = answer.names()
    if names == ("refused",):
        refused = answer.nested("refused")
        raise WeightsFileError(
            path, refused.text("found", maximum_chars=4000), refused.text("advice", maximum_chars=4000)
        )
    if names == ("failed",):
        failed = answer.nested("failed")
        doing, reason = failed.text("doing"), failed.text("reason")
        room = "make room in memory and for temporary files"
        advice = "correct the path or its permissions" if doing == "read" else room
        raise WeightsFileError(path, f"one that cannot be {doing} ({reason})", advice)
    return answer.nested("read")
