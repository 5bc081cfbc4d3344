import sys

import numpy as np
import pytest

from hedgerow.errors import DecodeError, UnknownNameError
from hedgerow.hardware import load_target
from hedgerow.server.simulation.population import (
    PHONE,
    DeviceKind,
    Network,
    Population,
    kind_of_target,
    parse_mix,
    population_from_targets,
)

DEVICES = np.arange(100_000)


def test_a_number_of_devices_is_enough():
    population = Population(devices=1000)
    assert len(population) == 1000
    assert population.availability.is_available(np.arange(3), 0.0).all()
    assert np.isinf(population.drops_at(np.arange(1000), 1)).all()


def test_properties_depend_on_seed_and_number_alone():
    population = Population(10**6, seed=3, speed_sigma=1.0, drop_out=0.5)
    chosen = np.array([999_999, 5, 77])
    for ask in (
        population.flops_per_s,
        population.active_watts,
        lambda devices: population.bits_per_s(devices)[0],
        lambda devices: population.drops_at(devices, 4),
    ):
        alone = [ask(np.array([device]))[0] for device in chosen]
        assert ask(chosen).tolist() == alone
    assert Population(10**6, seed=4).flops_per_s(chosen).tolist() != population.flops_per_s(chosen).tolist()


def test_a_million_devices_store_nothing():
    def held_bytes(value: object) -> int:
        slots = getattr(type(value), "__slots__", ())
        return sys.getsizeof(value) + sum(held_bytes(getattr(value, name)) for name in slots)

    assert held_bytes(Population(10**6)) == held_bytes(Population(10**6 - 1)) < 4000


def test_kinds_appear_by_their_shares():
    slow, fast, none = DeviceKind("slow", 1e9), DeviceKind("fast", 1e11, 10.0), DeviceKind("none", 1.0)
    population = Population(10**6, kinds={slow: 3.0, none: 0.0, fast: 1.0}, speed_sigma=0.0)
    speeds = population.flops_per_s(DEVICES)
    assert set(speeds.tolist()) == {1e9, 1e11}
    assert abs(float((speeds == 1e9).mean()) - 0.75) < 0.01
    assert set(population.active_watts(DEVICES)[speeds == 1e11].tolist()) == {10.0}


def test_speeds_and_rates_are_log_normal():
    population = Population(10**6, speed_sigma=0.5, network=Network(down_bits_per_s=1e7, up_bits_per_s=1e6, sigma=1.2))
    logs = np.log(population.flops_per_s(DEVICES) / PHONE.flops_per_s)
    assert abs(float(logs.mean())) < 0.01
    assert abs(float(logs.std()) - 0.5) < 0.01
    down, up = population.bits_per_s(DEVICES)
    assert abs(float(np.log(down / 1e7).std()) - 1.2) < 0.02
    assert np.allclose(down / up, 10.0)


def test_devices_drop_out_by_chance_anew_in_each_round():
    population = Population(10**6, drop_out=0.2)
    first, second = (np.isfinite(population.drops_at(DEVICES, number)) for number in (1, 2))
    assert abs(float(first.mean()) - 0.2) < 0.01
    assert abs(float((first & second).mean()) - 0.04) < 0.005
    moments = population.drops_at(DEVICES, 1)[first]
    assert 0 <= moments.min() < moments.max() < 1


def test_hardware_targets_make_a_population():
    mix = {"raspberry-pi-4": 0.5, "android-arm64": 0.5}
    population = population_from_targets(mix, load_target, devices=10, seed=1, drop_out=0.1)
    assert [kind.name for kind in population.kinds] == list(mix)
    assert [kind.flops_per_s for kind in population.kinds] == [6e9, 1.8e10]
    assert (population.devices, population.seed, population.drop_out) == (10, 1, 0.1)


def test_a_phone_is_the_phone_of_the_targets():
    kind = kind_of_target(load_target("android-arm64"))
    assert (kind.flops_per_s, kind.active_watts) == (PHONE.flops_per_s, PHONE.active_watts)


def test_a_target_without_floats_counts_by_what_it_has():
    assert kind_of_target(load_target("cortex-m4")).flops_per_s == 1.2e8


def test_an_unknown_target_is_named():
    with pytest.raises(UnknownNameError):
        population_from_targets({"toaster": 1.0}, load_target, devices=10)


def test_a_mix_is_read_from_text():
    assert parse_mix("raspberry-pi-4:0.5, android-arm64 : 1.5") == {"raspberry-pi-4": 0.5, "android-arm64": 1.5}
    assert parse_mix("cortex-m4") == {"cortex-m4": 1.0}


@pytest.mark.parametrize("text", ["", "a:", "a:x", "a:0", "a:-1", "a:nan", "a:inf", ":1", "a,a", "a:1,"])
def test_what_is_no_mix_is_refused(text: str):
    with pytest.raises(DecodeError, match=r"^population: expected names and shares"):
        parse_mix(text)


def test_too_many_kinds_are_refused():
    with pytest.raises(DecodeError, match=r"^population: expected at most \d+ kinds, found 10000"):
        parse_mix(",".join(f"a{number}" for number in range(10_000)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Population(0),
        lambda: Population(1, kinds={}),
        lambda: Population(1, kinds={PHONE: 0.0}),
        lambda: Population(1, kinds={PHONE: -1.0}),
        lambda: Population(1, drop_out=1.5),
        lambda: Population(1, speed_sigma=-1.0),
        lambda: Network(up_bits_per_s=0.0),
        lambda: DeviceKind("none", 0.0),
    ],
)
def test_impossible_populations_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()
