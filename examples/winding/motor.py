"""Motors at work: what their drives measure, and how hot the winding is inside, from a thermal model. Needs no torch.

The data are simulated, and said to be. The model is the usual one of two masses of heat, winding and case (see IEC
60034-11 on thermal protection, and A. Boglietti et al., Evolution and Modern Approaches for Thermal Analysis of
Electrical Machines, IEEE Trans. Ind. Electron. 56(3), 2009):

- copper loses ``I^2 R``, and its resistance rises by 0.39 % a kelvin;
- iron loses with the speed to the power 1.5, most of it into the case;
- heat goes from the winding to the case, and from the case to the air, the better the faster the fan turns.

A drive starts and stops as its work demands. It measures current, speed, the temperatures of the case and of the air,
each with noise, once in 30 seconds. A thermometer in the winding is what nobody wants to pay for.
"""

import numpy as np
from numpy.typing import NDArray

from hedgerow import Dataset

__all__ = ["CHANNELS", "STEPS", "UNITS", "drives", "samples"]

CHANNELS = ("current", "speed", "case", "air")
UNITS = ("A", "1/min", "°C", "°C")
STEPS = 32
"""Measurements that the model sees: the last 16 minutes."""

_STEP_S = 30.0
_RESISTANCE_OHM = 0.7
_WINDING_J_K, _CASE_J_K = 1500.0, 6000.0
_TO_CASE_W_K, _TO_AIR_W_K = 5.0, 2.4
_IRON_W = 45.0


def drives(
    motors: int, steps: int, rng: np.random.Generator, *, blocked_fan: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what drives measure, ``float32[motors, steps, 4]``, and how hot it is inside, ``float32[motors, steps]``.

    Args:
        motors: How many, each at its own work.
        steps: How many measurements, one in 30 seconds.
        rng: Draws the motors, the work, the weather and the noise.
        blocked_fan: Whether dirt keeps the fan from cooling the case.
    """
    day = np.arange(steps)[:, None] * _STEP_S / 86400
    air = rng.uniform(5, 35, motors) + 3 * np.sin(2 * np.pi * (day + rng.uniform(size=motors)))
    own = rng.normal(1, 0.03, (3, motors))  # no motor is quite as the next: resistance, and both conductances
    is_changed = rng.uniform(size=(steps, motors)) < 1 / 20  # a change of work each 10 minutes
    next_work = np.where(rng.uniform(size=(steps, motors)) < 0.3, 0.0, rng.uniform(0.3, 1.1, (steps, motors)))
    ripple = rng.normal(1, 0.02, (steps, motors))
    winding, case, work = air[0].copy(), air[0].copy(), np.zeros(motors)
    found, inside = np.zeros((steps, motors, len(CHANNELS))), np.zeros((steps, motors))
    for step in range(steps):
        work = np.where(is_changed[step], next_work[step], work)
        current = 10 * work * ripple[step]
        speed = (1450 - 90 * work) * (work > 0)
        copper = 3 * current**2 * _RESISTANCE_OHM * own[0] * (1 + 0.0039 * (winding - 20))
        iron = _IRON_W * (speed / 1450) ** 1.5
        cooling = _TO_AIR_W_K * own[1] * (1 + (0.15 if blocked_fan else 1.8) * speed / 1450)
        inward = _TO_CASE_W_K * own[2] * (winding - case)
        winding = winding + (copper + 0.3 * iron - inward) * _STEP_S / _WINDING_J_K
        case = case + (0.7 * iron + inward - cooling * (case - air[step])) * _STEP_S / _CASE_J_K
        found[step], inside[step] = np.stack([current, speed, case, air[step]], axis=1), winding
    found += rng.normal(0, 1, found.shape) * [0.1, 5.0, 0.5, 0.5]
    return found.swapaxes(0, 1).astype(np.float32), inside.T.astype(np.float32)


def samples(motors: int, rng: np.random.Generator, *, every: int = 48) -> Dataset:
    """Return windows of many motors, with the winding's temperature at their end and the motor in a column."""
    measured, inside = drives(motors, 1200, rng)
    ends = np.arange(STEPS, 1200, every)
    windows = np.stack([measured[:, end - STEPS : end] for end in ends], axis=1).reshape(-1, STEPS, len(CHANNELS))
    return Dataset(
        {"measured": windows}, inside[:, ends - 1].reshape(-1, 1), {"motor": np.repeat(np.arange(motors), len(ends))}
    )
