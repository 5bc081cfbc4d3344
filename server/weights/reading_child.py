"""The process in which a file of weights from elsewhere is read; see :mod:`hedgerow.server.weights.weights_file`.

torch unpickles with ``weights_only``: tensors, numbers and containers of them. What a file names beside these is
never imported, and its code is never run.
"""

import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hedgerow.children.channel import MessageChannel
from hedgerow.children.limits import bound_process
from hedgerow.decode import decode_json, encode_json
from hedgerow.server.weights.file_kind import HEAD_BYTES, FileKind, NotWeights, kind_of
from hedgerow.weights import encode_arrays

if TYPE_CHECKING:
    import torch

__all__ = ["ARRAYS_LIMIT_BYTES", "MOST_CHARS", "MOST_NAMES", "serve"]

_ENTRIES = ("state_dict", "model_state_dict", "model")
"""Under which names the dict of a training script holds its state dict."""
ARRAYS_LIMIT_BYTES = 8 * 2**30
MOST_NAMES, MOST_CHARS = 100_000, 512
_DATA_BYTES = 32 * 2**30
_REQUEST_LIMIT_BYTES = 2**20
_SAVE = "save its weights alone where it was made: torch.save(model.state_dict(), 'weights.pt')"
_AGAIN = "copy or save it again"
_TAKEN = frozenset({"float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"})


class _RefusedError(Exception):
    """The file holds no state dict."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.found, self.advice = found, advice


class _DiskError(Exception):
    """There is no room for what was read."""


def serve(channel: MessageChannel) -> None:
    """Read one file, write its arrays, and say what they are."""
    bound_process(data_bytes=_DATA_BYTES)
    request = decode_json(channel.receive() or b"", "request", limit_bytes=_REQUEST_LIMIT_BYTES)
    path = Path(request.text("path", maximum_chars=65536))
    folder, entry = Path(request.text("folder", maximum_chars=65536)), request.text("entry")
    request.finish()
    try:
        answer: dict[str, Any] = {"read": _read(path, folder, entry)}
    except _RefusedError as exc:
        answer = {"refused": {"found": exc.found[:2000], "advice": exc.advice[:2000]}}
    except _DiskError as exc:
        answer = {"failed": {"doing": "unpacked", "reason": str(exc)}}
    except OSError as exc:
        answer = {"failed": {"doing": "read", "reason": exc.strerror or str(exc)}}
    except MemoryError:
        answer = {"failed": {"doing": "unpacked", "reason": "memory is not enough"}}
    channel.send(encode_json(answer))


def _read(path: Path, folder: Path, entry: str) -> dict[str, Any]:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    kind = kind_of(head, _inner_names(path), path.suffix.lower())
    if isinstance(kind, NotWeights):
        raise _RefusedError(kind.found, kind.advice)
    loaded = _of_safetensors(path) if kind is FileKind.SAFETENSORS else _of_torch(path)
    state, taken = _state_dict(loaded, entry)
    arrays, widened = _arrays(state)
    try:
        (folder / "arrays").write_bytes(encode_arrays(arrays))
    except OSError as exc:
        raise _DiskError(exc.strerror or str(exc)) from exc
    return {"entry": taken, "widened": widened}


def _inner_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    # What the standard library raises for archives that are none, or are damaged.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error, OverflowError):
        return []


def _of_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as exc:
        raise _RefusedError(f"a damaged safetensors file ({_line(exc)})", _AGAIN) from exc


def _of_torch(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    # Reading damaged files raises classes that share no base but Exception.
    except Exception as exc:
        if "allocate memory" in str(exc):  # torch's own word, not Python's
            raise MemoryError(str(exc)) from exc
        objects = _objects(path, str(exc))
        if any(name.startswith("torch.nn.modules.") for name in objects):
            own = [name for name in objects if not name.startswith(("torch.", "collections."))]
            of = f" of {own[0]}" if own else ""
            raise _RefusedError(f"a whole pickled model{of}, which is code and never run here", _SAVE) from exc
        if objects:
            found = f"Python objects beside tensors ({', '.join(objects[:3])}), which are code and never run here"
            raise _RefusedError(found, _SAVE) from exc
        raise _RefusedError(f"a damaged file of torch ({_line(exc)})", _AGAIN) from exc


def _objects(path: Path, said: str) -> list[str]:
    """Return the names of what a file would import beside tensors; nothing is imported to find them."""
    import torch

    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    # The same reader on the same bytes; files of before archives it does not read at all.
    except Exception:  # noqa: BLE001 - see above
        return re.findall(r"(?:GLOBAL|global) ([A-Za-z_][\w.]*)", said)[:1]


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:160] or type(exc).__name__


def _state_dict(loaded: Any, entry: str) -> tuple[Mapping[Any, Any], str]:
    """Return the state dict, and the entry of the file that held it; empty: it is the whole file."""
    if entry:
        return _under(loaded, entry), entry
    if not isinstance(loaded, Mapping):
        raise _RefusedError(f"{_listed(loaded)} without names", _SAVE)
    held = [name for name in _ENTRIES if isinstance(loaded.get(name), Mapping)]
    if len(held) > 1:
        raise _RefusedError(f"several: {', '.join(map(repr, held))}", f"say which: --entry {held[0]}")
    if held:
        return loaded[held[0]], held[0]
    if not any(_is_tensor(value) for value in loaded.values()):
        nested = _first_path(loaded)
        advice = f"say what holds the weights: --entry {nested}" if nested else _SAVE
        raise _RefusedError(f"no tensor among {_listed(loaded)}", advice)
    return loaded, ""


def _first_path(loaded: Mapping[Any, Any], *, depth: int = 4) -> str:
    """Return the first path to a dict that holds a tensor; empty: there is none."""
    for name, value in loaded.items():
        if isinstance(value, Mapping) and depth:
            if any(map(_is_tensor, value.values())):
                return str(name)
            if inner := _first_path(value, depth=depth - 1):
                return f"{name}.{inner}"
    return ""


def _under(loaded: Any, entry: str) -> Mapping[Any, Any]:
    """Return what is under a name, or under names with dots between, one inside the other."""
    names = [entry] if isinstance(loaded, Mapping) and entry in loaded else entry.split(".")
    found: Any = loaded
    for name in names:
        inside = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(inside, Mapping):
            raise _RefusedError(f"no dict under {name!r} among {_listed(found)}", "correct --entry")
        found = inside
    whole: Mapping[Any, Any] = found
    return whole


def _listed(loaded: Any) -> str:
    if not isinstance(loaded, Mapping):
        return f"a {type(loaded).__name__}"
    shown = [f"{str(name)[:60]!r} ({type(value).__name__})" for name, value in list(loaded.items())[:6]]
    return ", ".join(shown) + (f" and {len(loaded) - 6} more" if len(loaded) > 6 else "") or "nothing"


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _arrays(state: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a state dict as arrays, and the names of what is bfloat16, which numpy does not have."""
    if not state:
        raise _RefusedError("an empty one", _SAVE)
    if len(state) > MOST_NAMES:
        raise _RefusedError(f"{len(state):,} tensors", f"give at most {MOST_NAMES:,}")
    total = 0
    for name, value in state.items():
        if not isinstance(name, str) or not 0 < len(name) <= MOST_CHARS:
            raise _RefusedError(f"a tensor called {name!r:.80}", f"name tensors by text of at most {MOST_CHARS} signs")
        if not _is_tensor(value):
            raise _RefusedError(f"{name} as a {type(value).__name__}", f"leave out what is no tensor, or {_SAVE}")
        _check_form(name, value)
        total += value.numel() * max(4, value.element_size())
    if total > ARRAYS_LIMIT_BYTES:
        raise _RefusedError(f"{total:,} bytes of tensors", f"give at most {ARRAYS_LIMIT_BYTES:,}")
    widened = [name for name, value in state.items() if _dtype(value) == "bfloat16"]
    arrays = {
        name: (value.float() if _dtype(value) == "bfloat16" else value).detach().cpu().contiguous().numpy()
        for name, value in state.items()
    }
    return arrays, widened


def _check_form(name: str, value: "torch.Tensor") -> None:
    """Refuse a tensor that is no plain numbers."""
    import torch

    said = ""
    if value.is_quantized:
        said = "quantized"
    elif value.layout != torch.strided:
        said = "sparse"
    elif value.is_meta:
        said = "without values"
    elif _dtype(value) not in _TAKEN | {"bfloat16"}:
        said = _dtype(value)
    if said:
        raise _RefusedError(f"{name} as a tensor that is {said}", "save the float weights as they were trained")


def _dtype(value: "torch.Tensor") -> str:
    return str(value.dtype).removeprefix("torch.")
