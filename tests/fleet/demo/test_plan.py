from collections import Counter

import pytest

from hedgerow.fleet.demo.errors import DemoError
from hedgerow.fleet.demo.plan import plan_devices


def test_eight_devices_are_four_pis_three_phones_and_a_gateway():
    targets = Counter(device.target for device in plan_devices(8))

    assert targets == {"raspberry-pi-4": 4, "android-arm64": 3, "x86-gateway": 1}


def test_the_world_moves_for_half_of_them_on_both_runtimes():
    drifting = [device for device in plan_devices(8) if device.meets_drift]

    assert len(drifting) == 4
    assert {device.target for device in drifting} == {"raspberry-pi-4", "android-arm64"}


def test_names_and_shards_are_distinct():
    devices = plan_devices(20)

    assert len({device.name for device in devices}) == 20
    assert [device.index for device in devices] == list(range(20))


@pytest.mark.parametrize("count", [-1, 0, 3, 65])
def test_too_few_or_too_many_devices_are_refused(count):
    with pytest.raises(DemoError, match=f"found {count}"):
        plan_devices(count)
