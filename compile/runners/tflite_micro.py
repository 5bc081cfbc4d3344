"""Run a TFLite file in TensorFlow Lite Micro's own interpreter on this host: its reference kernels, in a given arena.

It is what a microcontroller of a ``tflite-micro`` target runs, with other kernels perhaps. What it prints goes to the
standard error output of this process; whoever runs a file from elsewhere does so in a process of its own.
"""

import os
from collections.abc import Mapping, Sequence

from tflite_micro.python.tflite_micro import runtime

from hedgerow.children.forked import fork_child
from hedgerow.compile.arena import KERNELS, LARGEST_BYTES, Arena, installed_version, smallest_arena
from hedgerow.compile.cmsis_nn import scratch_bytes
from hedgerow.compile.errors import RuntimeRefusedError
from hedgerow.compile.inspection.border import read_calls
from hedgerow.compile.runners.samples import Run, Values
from hedgerow.manifest.content import Tensor

__all__ = ["find_arena", "open_micro"]

_TRY_TIMEOUT_S = 60


def find_arena(content: bytes) -> Arena | None:
    """Return the smallest arena in which the file is allocated, or None where no arena is large enough.

    Raises:
        DecodeError: The bytes are no TFLite file.
    """
    # What dies even in the largest arena dies here, where it is told as the death of this process.
    if not _allocates(content, LARGEST_BYTES):
        return None
    found = smallest_arena(lambda size: size == LARGEST_BYTES or _allocates_apart(content, size))
    if found is None:
        raise RuntimeError("the largest arena works, and no arena does")
    scratch, omitted = scratch_bytes(read_calls(content))
    return Arena(
        bytes=found,
        kernels=KERNELS,
        version=installed_version() or "unknown",
        scratch_bytes=scratch,
        scratch_omitted=omitted,
    )


def _allocates(content: bytes, arena_bytes: int) -> bool:
    try:
        runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)
    # Too small an arena and an operator that it does not have are one error to the interpreter.
    except RuntimeError:
        return False
    return True


def _allocates_apart(content: bytes, arena_bytes: int) -> bool:
    """Say whether an arena is large enough, from a copy of this process: some that are not end it by a signal."""
    with fork_child(lambda: os._exit(not _allocates(content, arena_bytes)), name="an arena") as copy:
        return copy.has_ended(_TRY_TIMEOUT_S) and copy.wait().code == 0


def open_micro(content: bytes, arena_bytes: int, taken: Sequence[Tensor], given: Sequence[Tensor]) -> Run:
    """Return what makes one prediction in a new interpreter.

    Args:
        content: The file.
        arena_bytes: Of its arena.
        taken: Its inputs, in the file's order.
        given: Its outputs, likewise.

    Raises:
        RuntimeError: It does not allocate the file; what is returned: it does not run it.
        RuntimeRefusedError: The file has inputs of other sizes than *taken*; the interpreter resizes nothing.
    """
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)
    for place, tensor in enumerate(taken):
        found = [int(size) for size in interpreter.get_input_details(place)["shape"]]
        wanted = [max(1, size) for size in tensor.shape]
        if found != wanted:
            raise RuntimeRefusedError(
                "TensorFlow Lite Micro", f"runs with the sizes {wanted} of {tensor.tensor!r}", f"the sizes {found}"
            )

    def run(values: Mapping[str, Values]) -> Mapping[str, Values]:
        for place, tensor in enumerate(taken):
            interpreter.set_input(values[tensor.tensor], place)
        interpreter.invoke()
        return {tensor.tensor: interpreter.get_output(place) for place, tensor in enumerate(given)}

    return run
