"""A machine that shakes: windows of an accelerometer on a pump, from a model of what shakes it. Needs no torch.

The data are simulated, and said to be: no recording of a real machine stands in this repository. The model is the
textbook one (R. B. Randall, Vibration-based Condition Monitoring, 2nd ed., 2021, chapters 2 and 5):

- the shaft turns 22 to 28 times a second and shows at its first three harmonics;
- the pump works at a third of its load to all of it, and its vanes excite the housing the more broadly the higher it
  is; the housing answers at its resonance;
- the sensor adds white noise, and its gain differs from device to device.

What goes wrong: a pitted outer race of a bearing strikes the housing at 3.58 times the speed of the shaft (an impulse,
then a ring at the resonance); an imbalance raises the first harmonic; a loose foot adds half harmonics.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONDITIONS", "RATE_HZ", "SAMPLES", "windows"]

RATE_HZ = 4000
SAMPLES = 512
CONDITIONS = ("healthy", "bearing", "imbalance", "loose")

_RESONANCE_HZ = 1100.0
_DAMPING = 0.04
_OUTER_RACE = 3.58


def windows(count: int, condition: str, rng: np.random.Generator, *, gain: float = 1.0) -> NDArray[np.float32]:
    """Return windows of acceleration in g, ``float32[count, 512]``.

    Args:
        count: How many.
        condition: One of :data:`CONDITIONS`.
        rng: Draws speeds, phases and noise.
        gain: Of this device's sensor.
    """
    seconds = np.arange(SAMPLES) / RATE_HZ
    shaft_hz = rng.uniform(22, 28, (count, 1))
    load = rng.uniform(1 / 3, 1, (count, 1))
    severity = rng.uniform(0.7, 1.3, (count, 1))
    harmonics = np.array([0.10, 0.04, 0.02]) * rng.uniform(0.8, 1.2, (count, 3)) * (0.5 + load)
    if condition == "imbalance":
        harmonics[:, :1] *= 1 + 4 * severity
    found = np.zeros((count, SAMPLES))
    for order in range(3):
        phase = rng.uniform(0, 2 * np.pi, (count, 1))
        found += harmonics[:, order : order + 1] * np.sin(2 * np.pi * (order + 1) * shaft_hz * seconds + phase)
    found += _through_housing(rng.normal(0, 0.03, (count, SAMPLES)) * load)
    if condition == "bearing":
        found += _through_housing(_strikes(_OUTER_RACE * shaft_hz, severity, rng))
    if condition == "loose":
        for half in (0.5, 1.5, 2.5):
            phase = rng.uniform(0, 2 * np.pi, (count, 1))
            found += 0.08 * severity * np.sin(2 * np.pi * half * shaft_hz * seconds + phase)
    found += rng.normal(0, 0.005, found.shape)
    return (gain * found).astype(np.float32)


def _strikes(
    rate_hz: NDArray[np.float64], severity: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return one strike for each turn of a ball over the pit; each comes up to 1 % of a turn early or late."""
    place = rng.uniform(0, 1, rate_hz.shape) + np.arange(SAMPLES) / RATE_HZ * rate_hz
    place += rng.normal(0, 0.005, place.shape)
    is_strike = np.diff(np.floor(place), axis=1, prepend=np.floor(place[:, :1])) > 0
    return np.where(is_strike, 0.6 * severity, 0.0)


def _through_housing(force: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the housing makes of a force: the answer of one damped resonance."""
    seconds = np.arange(SAMPLES) / RATE_HZ
    omega = 2 * np.pi * _RESONANCE_HZ
    ring = np.exp(-_DAMPING * omega * seconds) * np.sin(omega * np.sqrt(1 - _DAMPING**2) * seconds)
    spectrum = np.fft.rfft(force, 2 * SAMPLES) * np.fft.rfft(ring, 2 * SAMPLES)
    found: NDArray[np.float64] = np.fft.irfft(spectrum, 2 * SAMPLES)[:, :SAMPLES]
    return found
