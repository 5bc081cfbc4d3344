"""Run a TFLite file in TensorFlow Lite Micro's own interpreter on this host: its reference kernels, in a given arena.

It is what a microcontroller of a ``tflite-micro`` target runs, with other kernels perhaps. What it prints goes to the
standard error output of this process; whoever runs a file from elsewhere does so in a process of its own.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tflite_micro.python.tflite_micro import runtime

from hedgerow.children.forked import fork_child
from hedgerow.compile.arena import KERNELS, LARGEST_BYTES, Arena, installed_version, smallest_arena
from hedgerow.compile.cmsis_nn import scratch_bytes
from hedgerow.compile.inspection.border import read_calls
from hedgerow.manifest.content import Tensor
from hedgerow.tensor_border import from_stored, to_stored

__all__ = ["find_arena", "predict_tflite_micro"]

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


def predict_tflite_micro(
    content: bytes,
    arena_bytes: int,
    taken: Sequence[Tensor],
    given: Sequence[Tensor],
    inputs: Mapping[str, NDArray[Any]],
) -> dict[str, NDArray[np.float32]]:
    """Return all outputs, sample by sample, of a new interpreter.

    Args:
        content: The file.
        arena_bytes: Of its arena.
        taken: Its inputs, in the file's order.
        given: Its outputs, likewise.
        inputs: Schema name -> ``(n, *shape)``.

    Returns:
        Schema name -> ``float32[n, ...]``.

    Raises:
        RuntimeError: It does not allocate or run the file.
    """
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)
    rows: dict[str, list[NDArray[np.float32]]] = {tensor.name: [] for tensor in given}
    for index in range(len(next(iter(inputs.values())))):
        for place, tensor in enumerate(taken):
            interpreter.set_input(to_stored(inputs[tensor.name][index : index + 1], tensor), place)
        interpreter.invoke()
        for place, tensor in enumerate(given):
            rows[tensor.name].append(from_stored(interpreter.get_output(place), tensor).astype(np.float32))
    return {name: np.concatenate(parts) for name, parts in rows.items()}
