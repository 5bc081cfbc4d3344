"""Named float arrays as bytes (safetensors): checkpoints, updates, golden samples. Nothing here can execute code."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hedgerow.errors import DecodeError

__all__ = ["Arrays", "check_same_arrays", "decode_arrays", "encode_arrays"]

Arrays = dict[str, NDArray[Any]]


def encode_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Encode named arrays; equal arrays in any order give equal bytes."""
    # Not ascontiguousarray, which turns a scalar (BatchNorm's step counter) into an array of one.
    return save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})


def decode_arrays(payload: bytes, where: str, *, limit_bytes: int) -> Arrays:
    """Decode named arrays, in the order of their names: the parser gives them in an order drawn anew at each call.

    Args:
        payload: A safetensors document.
        where: What it is, for messages.
        limit_bytes: Longer payloads are refused before they are parsed.

    Raises:
        DecodeError: The payload is too long or not safetensors.
    """
    if len(payload) > limit_bytes:
        raise DecodeError(where, f"at most {limit_bytes} bytes", f"{len(payload)} bytes")
    try:
        arrays = load(payload)
    except (SafetensorError, KeyError, ValueError, TypeError) as exc:
        raise DecodeError(where, "a safetensors document", f"{type(exc).__name__}: {exc}") from exc
    return {name: arrays[name] for name in sorted(arrays)}


def check_same_arrays(arrays: Mapping[str, NDArray[Any]], like: Mapping[str, NDArray[Any]], where: str) -> None:
    """Refuse *arrays* unless they have the names, shapes and dtypes of *like* and only finite values.

    Raises:
        DecodeError: They differ, or hold NaN or infinity.
    """
    if set(arrays) != set(like):
        absent, extra = sorted(set(like) - set(arrays)), sorted(set(arrays) - set(like))
        raise DecodeError(where, f"the arrays {', '.join(sorted(like))}", f"missing {absent}, unknown {extra}")
    for name, array in arrays.items():
        want = like[name]
        if array.shape != want.shape or array.dtype != want.dtype:
            raise DecodeError(f"{where}.{name}", f"{want.dtype}{want.shape}", f"{array.dtype}{array.shape}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DecodeError(f"{where}.{name}", "finite numbers", "NaN or infinity")
