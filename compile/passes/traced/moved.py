"""Layers that move values about, in words that a converter translates right.

litert-torch 0.10 reads nearest up-sampling by a factor that is no whole number from other places than torch does, and
refuses transposed convolutions with output padding; coremltools 9 refuses circular padding and some output padding, and
which value a place takes in its uneven up-sampling is documented nowhere, and it has no cells of recurrent layers
(:mod:`hedgerow.compile.passes.traced.cells`). All others stay as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from hedgerow.compile.passes.traced.cells import CELL_WORDS

__all__ = ["COREML_WORDS", "TFLITE_WORDS", "OtherWords", "Words"]

_functional = torch.nn.functional
_interpolate, _pad = _functional.interpolate, _functional.pad
_NEAREST = frozenset({"nearest", "nearest-exact"})

Words = Mapping[Any, Callable[..., Any]]
"""Function of torch -> what is called in its place."""


class OtherWords(TorchFunctionMode):
    """Puts functions into other words while it is entered.

    Args:
        words: The functions, and what takes their place.
    """

    def __init__(self, words: Words) -> None:
        super().__init__()
        self._words = words

    def __torch_function__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the other words for *func*, or *func*."""
        return self._words.get(func, func)(*args, **(kwargs or {}))


def _nearest(values: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Return ``interpolate``; to the nearest value by an uneven factor as a choice of rows and columns."""
    named = {**dict(zip(("size", "scale_factor", "mode"), args, strict=False)), **kwargs}
    if named.get("mode", "nearest") not in _NEAREST:
        return _interpolate(values, *args, **kwargs)
    places = _places(tuple(values.shape), args, kwargs)
    sizes = tuple(int(size) for size in values.shape[2:])
    if all(_is_even(chosen, size) for chosen, size in zip(places, sizes, strict=True)):
        return _interpolate(values, *args, **kwargs)
    for axis, chosen in enumerate(places, 2):
        values = values.index_select(axis, torch.tensor(chosen))
    return values


def _places(shape: tuple[int, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[list[int]]:
    """Return which value each place along each axis takes, as torch says."""
    found = []
    # Numbers, and nothing of the graph that is being traced.
    with _disable_current_modes(), torch.no_grad():
        for axis in range(2, len(shape)):
            sizes = [int(size) for size in shape[2:]]
            count = torch.arange(float(sizes[axis - 2])).reshape([-1 if at == axis else 1 for at in range(len(shape))])
            moved = _interpolate(count.expand(1, 1, *sizes), *args, **kwargs)
            row = moved.movedim(axis, 0).reshape(moved.shape[axis], -1)[:, 0]
            found.append([int(place) for place in row.tolist()])
    return found


def _is_even(chosen: Sequence[int], size: int) -> bool:
    """Say whether every value is taken equally often, in order."""
    times, rest = divmod(len(chosen), size)
    return rest == 0 and list(chosen) == [place // times for place in range(len(chosen))]


def _circular(values: torch.Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Return ``pad``; circular as slices side by side."""
    if mode != "circular":
        return _pad(values, pad, mode, value)
    for place in range(len(pad) // 2):
        axis, (before, after) = values.ndim - 1 - place, pad[2 * place : 2 * place + 2]
        size = values.shape[axis]
        parts = [values.narrow(axis, size - before, before)] if before > 0 else []
        parts += [values, *([values.narrow(axis, 0, after)] if after > 0 else [])]
        values = torch.cat(parts, axis) if len(parts) > 1 else values
        # A negative amount cuts.
        first, last = max(0, -before), max(0, -after)
        values = values.narrow(axis, first, values.shape[axis] - first - last) if first or last else values
    return values


def _transposed(convolve: Callable[..., torch.Tensor], axes: int) -> Callable[..., torch.Tensor]:
    """Return a transposed convolution whose output padding is a smaller cut of all that the kernel meets."""

    def layer(
        values: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> torch.Tensor:
        borders, more = ((each,) * axes if isinstance(each, int) else tuple(each) for each in (padding, output_padding))
        if not any(more):
            return convolve(values, weight, bias, stride, padding, output_padding, groups, dilation)
        full = convolve(values, weight, None, stride, 0, 0, groups, dilation)
        # Where there is more of it than the border hides, the kernel meets nothing.
        beyond = [max(0, extra - border) for extra, border in zip(more, borders, strict=True)]
        full = _pad(full, [amount for after in reversed(beyond) for amount in (0, after)]) if any(beyond) else full
        for axis, (border, extra, after) in enumerate(zip(borders, more, beyond, strict=True), 2):
            full = full.narrow(axis, border, full.shape[axis] - after - 2 * border + extra)
        return full if bias is None else full + bias.reshape(1, -1, *(1,) * axes)

    return layer


TFLITE_WORDS: Words = {
    _interpolate: _nearest,
    _functional.conv_transpose1d: _transposed(_functional.conv_transpose1d, 1),
    _functional.conv_transpose2d: _transposed(_functional.conv_transpose2d, 2),
}
COREML_WORDS: Words = {**TFLITE_WORDS, _pad: _circular, **CELL_WORDS}
