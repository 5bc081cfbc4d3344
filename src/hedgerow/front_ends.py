"""Windows, spectra and log-mel bands of a signal, for a task's pre-processing.

They are matrix products, sums and a logarithm in torch, so that they go wherever a task's pre-processing goes: float
operators at the head of an ONNX or TFLite file, Core ML, the train graph, and C beside a file of integers. No operator
for a Fourier transform is needed, which few runtimes have.
"""

import math
from numbers import Integral

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["LogMel", "Spectrum", "frames"]

_LEAST_FLOOR = 2.0**-126
"""The smallest power of which float32 still gives the logarithm everywhere."""
WINDOWS = ("hann", "hamming", "none")


def frames(signal: torch.Tensor, length: int, hop: int) -> torch.Tensor:
    """Return the parts of signals that begin at 0, *hop*, 2 *hop*, ...

    Args:
        signal: ``(batch, samples)`` or ``(batch, samples, channels)``.
        length: Samples of a part.
        hop: Samples from the beginning of one to that of the next.

    Returns:
        ``(batch, parts, length)`` or ``(batch, parts, length, channels)``; what is left at the end is dropped.

    Raises:
        ValueError: The signal is shorter than one part or has other dimensions, or a size is not positive and whole.
    """
    if signal.dim() not in {2, 3}:
        raise ValueError(
            f"expected a signal (batch, samples) or (batch, samples, channels), found {tuple(signal.shape)}"
        )
    samples, rest = signal.shape[1], tuple(signal.shape[2:])
    _check_whole(length=length, hop=hop)
    if length < 1 or hop < 1 or samples < length:
        raise ValueError(f"expected 1 <= length <= {samples} samples and hop >= 1, found {length} and {hop}")
    parts = (samples - length) // hop + 1
    # Blocks of a size that both are multiples of: a part is some of them, and a slice takes one of each part.
    block = math.gcd(length, hop)
    across = hop // block
    blocks = signal[:, : samples // block * block].reshape(-1, samples // block, block, *rest)
    taken = [blocks[:, place : place + (parts - 1) * across + 1 : across] for place in range(length // block)]
    return torch.cat(taken, dim=2)


class Spectrum:
    """The magnitudes of the discrete Fourier transform of windowed parts of a signal.

    A product of a matrix ``(length, 2 * bins)``, which the compiled file or C holds in float32: 258 kB for a length of
    256, 1 MB for 512.

    Args:
        length: Samples of a part.
        window: ``hann`` or ``hamming``, both periodic, or ``none``.
        squared: Give powers instead of magnitudes.

    Raises:
        ValueError: The length is below 2, or the window unknown.
    """

    def __init__(self, length: int, *, window: str = "hann", squared: bool = False) -> None:
        _check_whole(length=length)
        if length < 2:
            raise ValueError(f"expected a length of at least 2 samples, found {length}")
        self.length, self.bins, self._squared = length, length // 2 + 1, squared
        turns = np.outer(np.arange(length), np.arange(self.bins)) % length * (2 * np.pi / length)
        both = np.concatenate([np.cos(turns), -np.sin(turns)], axis=1) * _window(window, length)[:, None]
        self._matrix = torch.from_numpy(both.astype(np.float32))

    def __call__(self, parts: torch.Tensor) -> torch.Tensor:
        """Return ``(batch, parts, bins)`` of ``(batch, parts, length)``; bin ``k`` is at ``k * rate / length``.

        Raises:
            ValueError: The parts are of another length.
        """
        if parts.dim() != 3 or parts.shape[2] != self.length:
            raise ValueError(f"expected parts (batch, parts, {self.length}), found {tuple(parts.shape)}")
        count = parts.shape[1]
        both = parts.reshape(-1, self.length) @ self._matrix
        real, imaginary = both[:, : self.bins], both[:, self.bins :]
        power = (real * real + imaginary * imaginary).reshape(-1, count, self.bins)
        return power if self._squared else torch.sqrt(power)


class LogMel:
    """The logarithm of the power in bands that are equally wide on the mel scale, over time.

    Bands are triangles of height 1 whose corners are equally far from each other in ``2595 log10(1 + f / 700)``
    (D. O'Shaughnessy, Speech Communication, 1987). Powers below *floor* are *floor*: silence is a number.

    Args:
        rate_hz: Samples of the signal a second.
        length: Samples of a part.
        hop: Samples from the beginning of one part to that of the next.
        bands: How many.
        low_hz: Where the first band begins.
        high_hz: Where the last one ends; None: half the rate.
        floor: Smallest power.
        window: As :class:`Spectrum` takes it.

    Raises:
        ValueError: The bands do not lie within the signal's range, one of them holds no bin of the transform, the
            floor is not above zero, or a size is not positive and whole.
    """

    def __init__(
        self,
        rate_hz: float,
        *,
        length: int,
        hop: int,
        bands: int,
        low_hz: float = 20.0,
        high_hz: float | None = None,
        floor: float = 1e-6,
        window: str = "hann",
    ) -> None:
        _check_whole(length=length, hop=hop, bands=bands)
        high_hz = rate_hz / 2 if high_hz is None else high_hz
        if not math.isfinite(rate_hz) or hop < 1:
            raise ValueError(f"expected a rate in Hz and a hop of at least 1, found {rate_hz} and {hop}")
        if not 0 <= low_hz < high_hz <= rate_hz / 2 or bands < 1:
            raise ValueError(
                f"expected at least one band within 0..{rate_hz / 2:g} Hz, found {bands} in {low_hz:g}..{high_hz:g} Hz"
            )
        if not _LEAST_FLOOR <= floor < math.inf:
            raise ValueError(f"expected a floor above zero that float32 holds, found {floor:g}")
        self._spectrum = Spectrum(length, window=window, squared=True)
        weights = mel_weights(rate_hz, length, bands, low_hz, high_hz)
        empty = np.flatnonzero(weights.sum(axis=0) == 0)
        if len(empty):
            raise ValueError(
                f"band {int(empty[0])} of {bands} is narrower than {rate_hz / length:g} Hz, the step of a transform of "
                f"{length} samples; take fewer bands or a longer part"
            )
        self._weights = torch.from_numpy(weights.astype(np.float32))
        self._length, self._hop, self._bands, self._floor = length, hop, bands, floor

    def __call__(self, signal: torch.Tensor) -> torch.Tensor:
        """Return ``(batch, parts, bands)`` of ``(batch, samples)``."""
        power = self._spectrum(frames(signal, self._length, self._hop))
        count = power.shape[1]
        found = power.reshape(-1, self._spectrum.bins) @ self._weights
        return torch.log(found.clamp(min=self._floor)).reshape(-1, count, self._bands)


def mel_weights(rate_hz: float, length: int, bands: int, low_hz: float, high_hz: float) -> NDArray[np.float64]:
    """Return how much of each bin of a transform goes into each band, ``float64[length // 2 + 1, bands]``."""
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (low_hz, high_hz))
    corners = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    at = np.arange(length // 2 + 1)[:, None] * rate_hz / length
    rising = (at - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - at) / (corners[2:] - corners[1:-1])
    weights: NDArray[np.float64] = np.clip(np.minimum(rising, falling), 0.0, None)
    return weights


def _window(name: str, length: int) -> NDArray[np.float64]:
    if name not in WINDOWS:
        raise ValueError(f"expected a window of {', '.join(WINDOWS)}, found {name!r}")
    turn = 2 * np.pi * np.arange(length) / length
    if name == "none":
        return np.ones(length)
    first = 0.5 if name == "hann" else 0.54
    shape: NDArray[np.float64] = first - (1 - first) * np.cos(turn)
    return shape


def _check_whole(**sizes: object) -> None:
    for name, size in sizes.items():
        is_whole = isinstance(size, Integral) and not isinstance(size, bool)
        if not is_whole:
            raise ValueError(f"expected a whole number as {name}, found {size!r}")
