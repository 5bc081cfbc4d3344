"""Convolutions of signals as those of images of height one, for which gradients are known."""

from typing import Any

import torch

__all__ = ["conv1d", "conv_transpose1d"]

_functional = torch.nn.functional


def _two(value: Any, other: int) -> Any:
    """Return a setting of two axes, *other* for the new one; a padding that is named stays so."""
    return value if isinstance(value, str) else (other, *((value,) if isinstance(value, int) else value))


def conv1d(
    values: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """Return a 1-D convolution as a 2-D one over images of height one."""
    flat = _functional.conv2d(
        values.unsqueeze(2), weight.unsqueeze(2), bias, _two(stride, 1), _two(padding, 0), _two(dilation, 1), groups
    )
    return flat.squeeze(2)


def conv_transpose1d(
    values: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> torch.Tensor:
    """Return a 1-D transposed convolution as a 2-D one over images of height one."""
    flat = _functional.conv_transpose2d(
        values.unsqueeze(2),
        weight.unsqueeze(2),
        bias,
        _two(stride, 1),
        _two(padding, 0),
        _two(output_padding, 0),
        groups,
        _two(dilation, 1),
    )
    return flat.squeeze(2)
