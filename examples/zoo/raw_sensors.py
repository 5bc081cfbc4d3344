"""A dense network on raw sensor readings: which fault a pump on a test bench has, from 43 features of unlike size.

The bench is simulated, from laws that hold for centrifugal pumps and their motors. A sample is drawn in this order:

1. operating point: shaft speed 900 to 4,500 1/min, valve opening, room temperature and humidity, filling state;
2. fault: none, bearing wear, unbalance, cavitation, a winding that ages; each with a severity, from hardly there up, so
   that the classes overlap and nobody reaches 100 %;
3. readings: flow goes with the speed, head with its square, power with its cube (affinity laws); unbalance shakes at
   the shaft's frequency with the square of the speed; bearing wear raises the high bands and the bearing's temperature;
   cavitation raises broadband noise and lets the head drop; an old winding draws reactive current and heats up;
4. each sensor adds noise of its own, a share of its reading and a constant.

What tells the faults apart lies in the small readings (vibrations of some 0.01 g, power factor, slip), while speed and
energy run into thousands: one scale for all of them leaves nothing of the small ones.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec

FAULTS = ("none", "bearing", "unbalance", "cavitation", "winding")
AXES = ("drive_x", "drive_y", "drive_z", "free_x", "free_y", "free_z")


def readings(faults: np.ndarray, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
    """Return what the bench's sensors say, name -> ``float64[n]``, 43 of them."""
    count = len(faults)

    def noisy(value: np.ndarray, relative: float, absolute: float) -> np.ndarray:
        return value * (1 + relative * rng.normal(size=count)) + absolute * rng.normal(size=count)

    severity = rng.beta(1.6, 1.3, size=count)
    bearing, unbalance, cavitation, winding = (severity * (faults == kind) for kind in range(1, 5))
    speed = rng.uniform(900, 4500, count)
    pace, valve = speed / 4500, rng.uniform(0.3, 1, count)
    room, humidity = rng.normal(21, 4, count), rng.uniform(25, 80, count)
    flow = 60 * pace * valve * (1 - 0.1 * cavitation)
    head = 42 * pace**2 * (1.15 - 0.35 * valve**2) * (1 - 0.12 * cavitation)
    power = 3600 * pace**3 * (0.35 + 0.65 * valve) * (1 + 0.02 * bearing)
    slip = 0.02 + 0.025 * power / 3600 + 0.008 * winding
    factor = 0.86 - 0.05 * (1 - pace) - 0.05 * winding
    current = power / (400 * np.sqrt(3) * factor) * (1 + 0.05 * winding)
    found = {
        "speed": noisy(speed, 0.001, 2),
        "torque": noisy(power / (2 * np.pi * speed / 60), 0.01, 0.05),
        "power": noisy(power, 0.01, 5),
        "reactive_power": noisy(power * np.tan(np.arccos(np.clip(factor, 0.1, 0.99))), 0.02, 5),
        "power_factor": noisy(factor, 0.012, 0.004),
        "slip": noisy(slip, 0.04, 0.001),
        "flow": noisy(flow, 0.01, 0.2),
        "head": noisy(head, 0.015, 0.2),
        "suction_bar": noisy(0.9 - 0.25 * pace * valve, 0.01, 0.01),
        "discharge_bar": noisy(0.9 + head / 10.2, 0.01, 0.02),
        "valve": noisy(valve, 0.01, 0.005),
        "room_c": noisy(room, 0, 0.3),
        "humidity": noisy(humidity, 0.02, 1),
        "hours": rng.uniform(0, 4500, count),
        "line_hz": noisy(np.full(count, 50.0), 0, 0.02),
        "level_m": noisy(np.full(count, 1.2), 0.05, 0.01),
    }
    for phase in ("u", "v", "w"):
        found[f"current_{phase}"] = noisy(current * (1 + 0.04 * winding * (phase == "u")), 0.01, 0.02)
        found[f"voltage_{phase}"] = noisy(np.full(count, 230.0), 0.01, 0.5)
    warmth = room + 35 * pace * valve
    for place, gain in (("drive_bearing", 9.0), ("free_bearing", 5.0)):
        found[f"{place}_c"] = noisy(warmth + gain * bearing, 0.02, 1.5)
    found["winding_c"] = noisy(warmth + 18 + 12 * winding, 0.02, 2)
    found["case_c"] = noisy(room + 22 * pace * valve, 0.02, 1)
    found["fluid_c"] = noisy(room + 6 * pace, 0.02, 0.5)
    for index, axis in enumerate(AXES):
        share = (1.0, 0.8, 0.4, 0.7, 0.6, 0.3)[index]
        once = share * pace**2 * (0.012 + 0.03 * unbalance)
        found[f"once_{axis}_g"] = noisy(once, 0.3, 0.001)
        high = share * (0.006 + 0.01 * pace + 0.022 * bearing + 0.012 * cavitation)
        found[f"high_{axis}_g"] = noisy(high, 0.3, 0.001)
    found["broadband_g"] = noisy(0.01 + 0.02 * pace + 0.04 * cavitation, 0.3, 0.001)
    found["noise_db"] = noisy(58 + 14 * pace + 5 * cavitation + 2 * bearing, 0, 1.5)
    found["strain_mm"] = noisy(8e-4 * head * (1 + 0.1 * cavitation), 0.05, 1e-4)
    return found | {"leak": rng.exponential(0.01, count)}


def drawn(count: int, seed: int) -> Dataset:
    """Return labelled samples."""
    rng = np.random.default_rng(seed)
    faults = rng.integers(0, len(FAULTS), count)
    features = np.stack(list(readings(faults, rng).values()), axis=1).astype(np.float32)
    return Dataset({"features": features}, faults.astype(np.int64))


TRAIN = drawn(3000, seed=1)
HELD_OUT = drawn(2000, seed=2)
MEAN = torch.from_numpy(TRAIN.inputs["features"].mean(0))
SPREAD = torch.from_numpy(TRAIN.inputs["features"].std(0))


def model() -> nn.Module:
    """Return three linear layers."""
    return nn.Sequential(nn.Linear(43, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, len(FAULTS)))


def normalised(features: torch.Tensor) -> torch.Tensor:
    """Return the features in their own standard deviations, at most four of them from the mean."""
    return ((features - MEAN) / SPREAD).clamp(-4, 4)


task = Task(
    name="zoo-raw-sensors",
    inputs=[TensorSpec("features", (43,), unit="as the sensors give them")],
    labels=FAULTS,
    model=model,
    data=lambda: TaskData(TRAIN, HELD_OUT),
    preprocess=normalised,
    local=LocalTraining(learning_rate=0.05, batch_size=32),
)
