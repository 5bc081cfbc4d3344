"""A model as C source for TensorFlow Lite Micro: an array that is linked into firmware, and its header.

Microcontrollers have no file system to load a model from. The array is constant, so that it stays in flash, and aligned
to 16 bytes, which the flatbuffer needs (tflite-micro, ``tensorflow/lite/micro/docs/memory_management.md``).
"""

import re
from pathlib import Path

from hedgerow.compile.build import BLOB_FOLDER, Build
from hedgerow.compile.errors import CArrayError
from hedgerow.durable import write_durably
from hedgerow.hardware.target import load_target

__all__ = [
    "ALIGNMENT_BYTES",
    "C_FOLDER",
    "LIMIT_BYTES",
    "c_header",
    "c_name",
    "c_source",
    "write_c_array",
    "write_c_arrays",
]

C_FOLDER = "c"
"""Where a build keeps its C sources: ``c/<target>/model.cc`` and ``model.h``."""

ALIGNMENT_BYTES = 16
LIMIT_BYTES = 16 * 2**20
"""Larger models fit no microcontroller, and their source would take compilers minutes."""

_PER_LINE = 16
_ARENA_STEP_BYTES = 1024


def c_name(name: str) -> str:
    """Return *name* as a C identifier in lower case, such as ``keyword_spotting_model``.

    Raises:
        CArrayError: It holds no letter or digit.
    """
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not words:
        raise CArrayError("a name with a letter or digit", repr(name))
    # An identifier must not begin with a digit.
    return f"{words}_model" if words[0].isalpha() else f"m{words}_model"


def c_header(name: str, length_bytes: int, arena_bytes: int) -> str:
    """Return the header that declares the array.

    Args:
        name: Of the model; see :func:`c_name`.
        length_bytes: Of the model.
        arena_bytes: Estimate of the tensor arena that the interpreter needs.
    """
    symbol = c_name(name)
    upper = symbol.upper()
    hint = -(-arena_bytes // _ARENA_STEP_BYTES) * _ARENA_STEP_BYTES
    return f"""\
#ifndef HEDGEROW_{upper}_H_
#define HEDGEROW_{upper}_H_

/* Estimate, rounded up: allocate it, then trim it to MicroInterpreter::arena_used_bytes(). */
#define {upper}_ARENA_BYTES {hint}
#define {upper}_BYTES {length_bytes}

#ifdef __cplusplus
extern "C" {{
#endif

extern const unsigned char {symbol}[{upper}_BYTES];
extern const unsigned int {symbol}_len;

#ifdef __cplusplus
}}
#endif

#endif
"""


def c_source(name: str, content: bytes) -> str:
    """Return the C++ source that defines the array; the same content gives the same text.

    Raises:
        CArrayError: The content is empty or larger than :data:`LIMIT_BYTES`.
    """
    if not 0 < len(content) <= LIMIT_BYTES:
        raise CArrayError(f"a model of 1 to {LIMIT_BYTES} bytes", f"{len(content)} bytes")
    symbol = c_name(name)
    rows = (content[start : start + _PER_LINE] for start in range(0, len(content), _PER_LINE))
    lines = "\n".join("    " + ", ".join(f"0x{byte:02x}" for byte in row) + "," for row in rows)
    return f"""\
#include "model.h"

alignas({ALIGNMENT_BYTES}) const unsigned char {symbol}[{symbol.upper()}_BYTES] = {{
{lines}
}};
const unsigned int {symbol}_len = {symbol.upper()}_BYTES;
"""


def write_c_array(folder: Path, name: str, content: bytes, arena_bytes: int) -> tuple[Path, Path]:
    """Write ``model.cc`` and ``model.h`` into *folder*.

    Args:
        folder: Where to; made when absent.
        name: Of the model, such as the task's.
        content: The TFLite file.
        arena_bytes: Estimate of the tensor arena.

    Returns:
        The source and the header.

    Raises:
        CArrayError: The content is empty or too large, or the name holds no letter or digit.
        OSError: The folder cannot be written.
    """
    source, header = folder / "model.cc", folder / "model.h"
    text = c_source(name, content)
    write_durably(header, c_header(name, len(content), arena_bytes).encode())
    write_durably(source, text.encode())
    return source, header


def write_c_arrays(folder: Path, build: Build) -> tuple[Path, ...]:
    """Write the sources of every artifact whose target links its model into firmware.

    Args:
        folder: The build's, with its blobs.
        build: Names the model after its task.

    Returns:
        The sources, in the order of the artifacts.

    Raises:
        CArrayError: An artifact is too large.
        OSError: A blob cannot be read, or the folder cannot be written.
    """
    sources = []
    for artifact in build.artifacts:
        if load_target(artifact.target).emits_c_array:
            content = (folder / BLOB_FOLDER / artifact.blob.sha256).read_bytes()
            arena_bytes = int(artifact.metrics["peak_memory_bytes"])
            sources.append(write_c_array(folder / C_FOLDER / artifact.target, build.task, content, arena_bytes)[0])
    return tuple(sources)
