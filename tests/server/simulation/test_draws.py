import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.simulation.draws import bits, normals, uniforms

DEVICES = np.arange(200_000)


def test_bits_are_the_outputs_of_splitmix64():
    # The published outputs of the reference implementation for the state 1234567.
    assert bits(np.uint64(1234567), np.arange(3)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@given(st.integers(0, 2**63), st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_a_number_depends_on_its_device_alone(seed: int, devices: list[int]):
    together = uniforms(seed, "speed", np.array(devices))
    apart = [uniforms(seed, "speed", np.array([device]))[0] for device in devices]
    assert together.tolist() == apart
    assert all(0 <= value < 1 for value in apart)


def test_uniforms_are_uniform():
    counts = np.histogram(uniforms(1, "speed", DEVICES), bins=100, range=(0, 1))[0]
    expected = len(DEVICES) / 100
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert 55 < chi_square < 155  # 99 degrees of freedom: mean 99, standard deviation 14


def test_purposes_seeds_and_counters_give_independent_numbers():
    first = uniforms(1, "speed", DEVICES)
    others = [
        uniforms(1, "network", DEVICES),
        uniforms(2, "speed", DEVICES),
        uniforms(1, "speed", DEVICES, 0),
        uniforms(1, "speed", DEVICES, 1),
    ]
    for other in others:
        assert abs(float(np.corrcoef(first, other)[0, 1])) < 4 / np.sqrt(len(DEVICES))
    assert abs(float(np.corrcoef(others[2], others[3])[0, 1])) < 4 / np.sqrt(len(DEVICES))


def test_counters_may_differ_between_devices():
    devices, days = np.array([3, 3, 4]), np.array([0, 1, 0])
    each = [uniforms(0, "day", np.array([d]), int(c))[0] for d, c in zip(devices, days, strict=True)]
    assert uniforms(0, "day", devices, days).tolist() == each
    assert len(set(each)) == 3


def test_normals_are_normal():
    values = normals(1, "speed", DEVICES)
    assert abs(float(values.mean())) < 0.01
    assert abs(float(values.std()) - 1) < 0.01
    assert abs(float((np.abs(values) < 1.959964).mean()) - 0.95) < 0.002
