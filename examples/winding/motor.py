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

__all__ = ["CHANNELS", "STEPS", "drive", "samples"]

CHANNELS = ("current", "speed", "case", "air")
"""In A, 1/min, and twice degrees Celsius."""
STEPS = 32
"""Measurements that the model sees: the last 16 minutes."""

_STEP_S = 30.0
_RESISTANCE_OHM = 0.7
_WINDING_J_K, _CASE_J_K = 1500.0, 6000.0
_TO_CASE_W_K, _TO_AIR_W_K = 5.0, 2.4
_IRON_W = 45.0


def drive(steps: int, rng: np.random.Generator, *, blocked_fan: bool = False) -> tuple[NDArray[np.float32], ...]:
    """Return what one drive measures, ``float32[steps, 4]``, and its winding's temperature, ``float32[steps]``.

    Args:
        steps: How many, one in 30 seconds.
        rng: Draws the work, the weather and the noise.
        blocked_fan: Whether dirt keeps the fan from cooling the case.
    """
    air = rng.uniform(5, 35) + 3 * np.sin(2 * np.pi * (np.arange(steps) * _STEP_S / 86400 + rng.uniform()))
    own = rng.normal(1, 0.03, 3)  # no motor is quite as the next: resistance, and both conductances
    winding = case = air[0]
    work, found, inside = 0.0, np.zeros((steps, 4)), np.zeros(steps)
    for step in range(steps):
        if rng.uniform() < 1 / 20:  # a change of work each 10 minutes
            work = rng.choice([0.0, rng.uniform(0.3, 1.1)], p=[0.3, 0.7])
        current = 10 * work * rng.normal(1, 0.02)
        speed = (1450 - 90 * work) * (work > 0)
        copper = 3 * current**2 * _RESISTANCE_OHM * own[0] * (1 + 0.0039 * (winding - 20))
        iron = _IRON_W * (speed / 1450) ** 1.5
        cooling = _TO_AIR_W_K * own[1] * (1 + (0.3 if blocked_fan else 1.8) * speed / 1450)
        inward = _TO_CASE_W_K * own[2] * (winding - case)
        winding += (copper + 0.3 * iron - inward) * _STEP_S / _WINDING_J_K
        case += (0.7 * iron + inward - cooling * (case - air[step])) * _STEP_S / _CASE_J_K
        found[step], inside[step] = (current, speed, case, air[step]), winding
    found += rng.normal(0, 1, found.shape) * [0.1, 5.0, 0.5, 0.5]
    return found.astype(np.float32), inside.astype(np.float32)


def samples(motors: int, rng: np.random.Generator, *, every: int = 12) -> Dataset:
    """Return windows of many motors, with the winding's temperature at their end and the motor in a column."""
    inputs, wanted, column = [], [], []
    for motor in range(motors):
        measured, inside = drive(1200, rng)
        for end in range(STEPS, 1200, every):
            inputs.append(measured[end - STEPS : end])
            wanted.append([inside[end - 1]])
            column.append(motor)
    values = np.asarray(wanted, dtype=np.float32)
    return Dataset({"measured": np.asarray(inputs, dtype=np.float32)}, values, {"motor": np.asarray(column)})
