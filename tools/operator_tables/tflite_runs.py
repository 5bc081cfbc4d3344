"""Load a TFLite file in LiteRT or in TensorFlow Lite Micro, and run it once on ones."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

# It makes bfloat16 and int4 types of numpy: without it LiteRT's Python interface refuses tensors of them.
import ml_dtypes  # noqa: F401
import numpy as np

__all__ = ["run_litert", "run_micro"]

_ARENA_BYTES = 2**20
_PRINTED_BYTES = 4096


def run_litert(content: bytes) -> None:
    """Run a file in LiteRT as an agent does: with the delegate that it takes by itself.

    Raises:
        ValueError, RuntimeError: It does not take the file.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        # Its Python interface has no numpy type for some of its own; such a tensor stays as it was allocated.
        with contextlib.suppress(ValueError, TypeError):
            interpreter.set_tensor(detail["index"], np.ones(detail["shape"], detail["dtype"]))
    interpreter.invoke()


def run_micro(content: bytes) -> None:
    """Run a file in TensorFlow Lite Micro.

    Raises:
        RuntimeError: It does not take the file.
    """
    from tflite_micro.python.tflite_micro import runtime

    with _printed() as printed:
        try:
            _invoke_micro(runtime, content)
        except RuntimeError as exc:
            os.lseek(printed, 0, os.SEEK_SET)
            raise RuntimeError(os.read(printed, _PRINTED_BYTES).decode("utf-8", "replace") or str(exc)) from exc


@contextlib.contextmanager
def _printed() -> Iterator[int]:
    """Give a file in which the standard error output is kept for a while: what refuses a file says why only there."""
    kept, printed = os.dup(2), os.memfd_create("printed")
    os.dup2(printed, 2)
    try:
        yield printed
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(printed)


def _invoke_micro(runtime: Any, content: bytes) -> None:
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=_ARENA_BYTES)
    place = 0
    while True:
        try:
            detail = interpreter.get_input_details(place)
        # There is no other way to learn how many inputs there are.
        except (IndexError, ValueError):
            break
        with contextlib.suppress(ValueError, TypeError):
            interpreter.set_input(np.ones(detail["shape"], detail["dtype"]), place)
        place += 1
    interpreter.invoke()
