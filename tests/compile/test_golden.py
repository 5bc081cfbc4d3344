import numpy as np
import pytest

from hedgerow.compile.golden import GOLDEN_SAMPLES, choose_rows, choose_samples, encode_golden, replay_tolerance
from hedgerow.task import Dataset
from hedgerow.weights import decode_arrays


def dataset(size: int) -> Dataset:
    return Dataset({"x": np.arange(size, dtype=np.float32)[:, None]}, np.zeros(size, dtype=np.int64))


def test_samples_are_spread_over_the_data():
    chosen = choose_samples(dataset(350)).inputs["x"][:, 0]
    assert len(chosen) == GOLDEN_SAMPLES
    assert chosen[0] == 0
    assert chosen[-1] == 328
    assert np.diff(chosen).min() >= 21


def test_few_samples_are_all_taken():
    assert choose_samples(dataset(5)).inputs["x"][:, 0].tolist() == [0, 1, 2, 3, 4]


def test_samples_come_back_by_name():
    inputs, outputs = {"image": np.ones((2, 3), np.float32)}, {"probabilities": np.zeros((2, 2), np.float32)}
    arrays = decode_arrays(encode_golden(inputs, outputs), "golden", limit_bytes=10_000)
    assert sorted(arrays) == ["input.image", "output.probabilities"]
    np.testing.assert_array_equal(arrays["input.image"], inputs["image"])


@pytest.mark.parametrize(("difference", "tolerance"), [(0.0, 0.01), (0.03, 0.06), (0.9, 0.25)])
def test_the_tolerance_is_twice_the_difference_from_float_within_limits(difference, tolerance):
    assert replay_tolerance(difference) == pytest.approx(tolerance)


def test_one_sample_at_least_has_a_missing_value_where_any_has():
    known = dataset(350)
    values = known.inputs["x"].astype(np.float32)
    assert not np.isnan(values[choose_rows(known)]).any()
    values[3, 0] = np.nan
    found = choose_rows(Dataset({"x": values}, known.target_values))

    assert len(found) == GOLDEN_SAMPLES
    assert 3 in found
    assert found.tolist() == sorted(found.tolist())
