"""Convolutions of many clients at once: one grouped convolution, or patches times weights as one batched product.

``vmap`` turns K convolutions into one with K times the groups, ``(batch, K * channels, ...)``. Libraries are slow at
that; copying each patch into a column ("im2col", Chellapilla et al. 2006) makes it a batched matrix product, which they
are good at. Its gradients are written out likewise. Needs torch.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

__all__ = ["ConvolutionChoice", "ConvolutionShape", "convolution_decompositions"]

_ATEN = torch.ops.aten
Decompositions = dict[Any, Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class ConvolutionShape:
    """One client's convolution over one or two axes.

    Attributes:
        channels: Its input has so many.
        out_channels: Its output has so many.
        groups: 1: every output channel sees all input channels.
        kernel: Along each axis.
        stride: Along each axis.
        size: How long its input is along each axis.
    """

    channels: int
    out_channels: int
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    size: tuple[int, ...]

    def __str__(self) -> str:
        kernel, stride, size = ("x".join(map(str, sizes)) for sizes in (self.kernel, self.stride, self.size))
        groups = f" groups {self.groups}" if self.groups > 1 else ""
        return f"convolution {self.channels}->{self.out_channels} {kernel} stride {stride}{groups} of {size}"


@dataclass(frozen=True, slots=True)
class ConvolutionChoice:
    """Chooses how each convolution is computed, and writes down what it chose.

    On a CPU ``grouped`` wins by a fixed rule, so that equal runs stay equal: oneDNN's grouped convolution is 1.0 to 3.2
    times as fast there, for 1 to 64 channels and kernels from 1 x 1 to 10 x 4. On other devices each shape is measured
    once.

    Attributes:
        device: Type of the device.
        forced: One way for all; None: the faster one.
        chosen: Shape in words -> way.
    """

    device: str
    forced: str | None = None
    chosen: dict[str, str] = field(default_factory=dict)

    def __call__(self, shape: ConvolutionShape, measure: Callable[[], Mapping[str, float]]) -> str:
        """Return ``grouped`` or ``unfolded``.

        Args:
            shape: What one client's convolution is.
            measure: Returns the seconds that each way takes; asked once for a shape, where it decides.
        """
        known = self.chosen.get(str(shape))
        if known is None:
            if self.forced is not None:
                known = self.forced
            elif self.device == "cpu":
                known = "grouped"
            else:
                seconds = measure()
                known = min(seconds, key=lambda way: seconds[way])
            self.chosen[str(shape)] = known
        return known


def convolution_decompositions(rows: int, choice: ConvolutionChoice) -> Decompositions:
    """Return what ``make_fx`` puts in place of convolutions while it traces a step of *rows* clients."""

    def forward(
        values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: Sequence[int],
        padding: Sequence[int], dilation: Sequence[int], transposed: bool, _output_padding: Sequence[int], groups: int,
    ) -> Any:  # fmt: skip
        geometry = None if transposed else _Geometry.of(weight, stride, padding, dilation)
        if geometry is None or not _unfolds(values, weight, geometry, groups, rows, choice):
            return NotImplemented
        return _forward(values, weight, bias, geometry, groups)

    def backward(
        grad: torch.Tensor, values: torch.Tensor, weight: torch.Tensor, _bias_sizes: Any, stride: Sequence[int],
        padding: Sequence[int], dilation: Sequence[int], transposed: bool, _output_padding: Sequence[int], groups: int,
        output_mask: Sequence[bool],
    ) -> Any:  # fmt: skip
        geometry = None if transposed else _Geometry.of(weight, stride, padding, dilation)
        if geometry is None or not _unfolds(values, weight, geometry, groups, rows, choice):
            return NotImplemented
        return _backward(grad, values, weight, geometry, groups, output_mask)

    return {_ATEN.convolution.default: forward, _ATEN.convolution_backward.default: backward}


@dataclass(frozen=True, slots=True)
class _Geometry:
    """A convolution over two axes; one over one axis has a first axis of length 1."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(
        cls, weight: torch.Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
    ) -> "_Geometry | None":
        axes = weight.dim() - 2
        if axes not in {1, 2}:
            return None

        def two(sizes: Sequence[int], absent: int) -> tuple[int, int]:
            # torch takes one number for all axes.
            every = list(sizes) * axes if len(sizes) == 1 else list(sizes)
            return (absent, every[0]) if axes == 1 else (every[0], every[1])

        return cls(two(weight.shape[2:], 1), two(stride, 1), two(padding, 0), two(dilation, 1))

    def out(self, size: Sequence[int]) -> tuple[int, int]:
        """Return the output's height and width for an input's."""
        sizes = zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)
        return height, width


def _unfolds(
    values: torch.Tensor,
    weight: torch.Tensor,
    geometry: _Geometry,
    groups: int,
    rows: int,
    choice: ConvolutionChoice,
) -> bool:
    if groups % rows:
        return False
    axes = weight.dim() - 2
    shape = ConvolutionShape(
        channels=values.shape[1] // rows,
        out_channels=weight.shape[0] // rows,
        groups=groups // rows,
        kernel=tuple(weight.shape[2:]),
        stride=geometry.stride[-axes:],
        size=tuple(values.shape[2:]),
    )
    return choice(shape, lambda: _measured(values, weight, geometry, groups)) == "unfolded"


def _measured(values: torch.Tensor, weight: torch.Tensor, geometry: _Geometry, groups: int) -> dict[str, float]:
    """Return the seconds of a forward and a backward pass, either way."""
    # Steps run with cuDNN, traces without it.
    with disable_proxy_modes_tracing(), torch.backends.cudnn.flags(enabled=True):
        sizes = _flat(values).shape, _flat(weight).shape
        inputs, kernel = (torch.randn(size, dtype=weight.dtype, device=weight.device) for size in sizes)
        grad = torch.randn_like(_forward(inputs, kernel, None, geometry, groups))
        layout = (geometry.stride, geometry.padding, geometry.dilation, False, (0, 0), groups)
        mask = (True, True, False)

        def grouped() -> None:
            _ATEN.convolution.default(inputs, kernel, None, *layout)
            _ATEN.convolution_backward.default(grad, inputs, kernel, None, *layout, mask)

        def unfolded() -> None:
            _forward(inputs, kernel, None, geometry, groups)
            _backward(grad, inputs, kernel, geometry, groups, mask)

        return {"grouped": _seconds(grouped, weight.device), "unfolded": _seconds(unfolded, weight.device)}


def _seconds(run: Callable[[], None], device: torch.device) -> float:
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best


def _flat(values: torch.Tensor) -> torch.Tensor:
    """Return *values* with two axes."""
    return values.unsqueeze(2) if values.dim() == 3 else values


def _columns(values: torch.Tensor, geometry: _Geometry, groups: int) -> torch.Tensor:
    """Return every patch as a column: ``(groups, channels * kernel, batch * pixels)``."""
    (height, width), (kernel_h, kernel_w) = geometry.out(values.shape[2:]), geometry.kernel
    pad_h, pad_w = geometry.padding
    if pad_h or pad_w:
        values = _ATEN.constant_pad_nd.default(values, [pad_w, pad_w, pad_h, pad_h], 0.0)
    batch, channels = values.shape[0], values.shape[1] // groups
    grouped = values.view(batch, groups, channels, *values.shape[2:])
    strides = grouped.stride()
    # (groups, channels, kernel, kernel, batch, height, width), all of it a view.
    patches = grouped.as_strided(
        (groups, channels, kernel_h, kernel_w, batch, height, width),
        (strides[1], strides[2], strides[3] * geometry.dilation[0], strides[4] * geometry.dilation[1], strides[0],
         strides[3] * geometry.stride[0], strides[4] * geometry.stride[1]),
        grouped.storage_offset(),
    )  # fmt: skip
    return patches.reshape(groups, channels * kernel_h * kernel_w, batch * height * width)


def _forward(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, geometry: _Geometry, groups: int
) -> torch.Tensor:
    flat = _flat(values)
    height, width = geometry.out(flat.shape[2:])
    columns = _columns(flat, geometry, groups)
    out = torch.bmm(weight.reshape(groups, -1, columns.shape[1]), columns)
    out = out.view(weight.shape[0], flat.shape[0], height, width).transpose(0, 1)
    if bias is not None:
        out = out + bias.view(1, -1, 1, 1)
    return out.squeeze(2) if values.dim() == 3 else out


def _backward(
    grad: torch.Tensor,
    values: torch.Tensor,
    weight: torch.Tensor,
    geometry: _Geometry,
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    flat, pixels = _flat(values), _flat(grad)
    batch, (height, width) = flat.shape[0], flat.shape[2:]
    # (groups, out channels, batch * pixels)
    change = pixels.transpose(0, 1).reshape(groups, weight.shape[0] // groups, -1)
    of_values = of_weight = of_bias = None
    if output_mask[1]:
        of_weight = torch.bmm(change, _columns(flat, geometry, groups).transpose(1, 2)).view(weight.shape)
    if output_mask[0]:
        columns = torch.bmm(weight.reshape(groups, change.shape[1], -1).transpose(1, 2), change)
        # (groups, channels * kernel, batch, pixels) -> (batch, groups * channels * kernel, pixels)
        ordered = columns.view(groups * columns.shape[1], batch, -1).transpose(0, 1)
        of_values = _ATEN.col2im.default(
            ordered.contiguous(), [height, width], list(geometry.kernel), list(geometry.dilation),
            list(geometry.padding), list(geometry.stride),
        )  # fmt: skip
        of_values = of_values.squeeze(2) if values.dim() == 3 else of_values
    if output_mask[2]:
        of_bias = pixels.sum((0, 2, 3))
    return of_values, of_weight, of_bias
