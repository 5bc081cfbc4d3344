"""Tests of hedgerow.server.grids.transport."""

import numpy as np

from hedgerow.local_work import LocalWork
from hedgerow.server.grids.transport import DeviceUpdate, RoundWork, SimulatedTransport


def work(*devices: str) -> RoundWork:
    return RoundWork(
        run="r",
        weights={"w": np.zeros(3, np.float32)},
        devices=devices,
        local=LocalWork(epochs=1, learning_rate=0.1, batch_size=16),
        deadline_s=1,
    )


def test_the_fake_calls_the_chosen_devices_and_remembers_the_work():
    fake = SimulatedTransport(
        {"b": lambda w, name: DeviceUpdate(device=name, state="declined"), "a": lambda w, name: None}
    )
    asked = work("a", "b", "unknown")

    assert fake.devices() == ["a", "b"]
    assert [update.device for update in fake.run_round(asked)] == ["b"]
    assert fake.rounds == [asked]
