"""Features are unlike where 8 bits before the model would lose what it needs, and alike in images."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.preparation.halves import cut  # noqa: E402
from hedgerow.compile.preparation.unlike import MOST_STEPS, are_unlike, steps_lost  # noqa: E402
from hedgerow.examples.zoo import raw_sensors  # noqa: E402
from hedgerow.schema import TensorSpec  # noqa: E402
from hedgerow.task import load_task  # noqa: E402

pytestmark = pytest.mark.heavy

MEAN, SPREAD = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
PIXELS = np.random.default_rng(0).uniform(0, 255, (32, 3, 8, 8)).astype("float32")
NORMAL = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")


def halves_of(preprocess, shape, dtype="float32"):
    return cut(replace(raw_sensors.task, inputs=[TensorSpec("x", shape, dtype)], preprocess=preprocess))


def test_readings_from_hundredths_to_thousands_are_unlike():
    halves = cut(raw_sensors.task)
    assert steps_lost(halves, raw_sensors.TRAIN.inputs) > 100
    assert are_unlike(halves, raw_sensors.TRAIN.inputs)


@pytest.mark.parametrize(
    "preprocess",
    [
        lambda image: image / 255,
        lambda image: (image - 128) / 64,
        lambda image: (image / 255 - MEAN) / SPREAD,
        lambda image: image.flatten(1),
    ],
    ids=["divided", "shifted", "by channel", "flat"],
)
def test_pixels_are_alike(preprocess):
    assert not are_unlike(halves_of(preprocess, (3, 8, 8)), {"x": PIXELS})


def test_a_corner_that_is_always_black_makes_no_image_unlike():
    black = PIXELS.copy()
    black[:, :, :2, :2] = 0
    black[:, :, 2, 2] /= 100
    assert not are_unlike(halves_of(lambda image: image / 255, (3, 8, 8)), {"x": black})


def test_the_digits_of_the_example_are_alike(digits):
    task = load_task(digits)
    assert steps_lost(cut(task), task.calibration(task.load_data()).inputs) < 1


@pytest.mark.parametrize(("gyroscope", "unlike"), [(8, False), (250, True)])
def test_an_accelerometer_and_a_gyroscope_are_unlike_by_their_ranges(gyroscope, unlike):
    """2 g beside 8 rad/s lose 2.5 steps, beside 250 degrees a second 56."""
    ranges = torch.tensor([2.0, 2, 2, gyroscope, gyroscope, gyroscope])
    halves = halves_of(lambda values: values / ranges, (6,))
    assert are_unlike(halves, {"x": NORMAL * ranges.numpy()}) is unlike


def test_a_division_loses_half_a_step_of_each_feature_by_its_range():
    """By hand: the raw step is 255 / 255 = 1, half of it 0.5 of a reading that the model takes 32 times larger."""
    ranges = torch.tensor([1 / 32, 1.0])
    x = np.array([[0.0, 0.0], [8.0 - 0.5, 255.0], [0.0, 100.0]], np.float32)
    # 7.5 becomes 8, a half step to the even one; 240 becomes 256, cut to the end of the range: 15 steps of 255 / 255.
    assert steps_lost(halves_of(lambda values: values / ranges, (2,)), {"x": x}) == pytest.approx(15)


def test_a_logarithm_needs_more_than_one_scale():
    assert steps_lost(halves_of(torch.log1p, (3, 8, 8)), {"x": PIXELS}) > MOST_STEPS


def test_what_is_not_finite_on_the_way_has_no_scale():
    halves = halves_of(lambda values: torch.nan_to_num(1 / (values - values), posinf=0.0, nan=0.0), (6,))
    assert are_unlike(halves, {"x": NORMAL})


def test_whole_numbers_are_not_rounded():
    x = np.arange(24, dtype=np.int64).reshape(4, 6)
    assert steps_lost(halves_of(lambda values: values + 1, (6,), "int64"), {"x": x}) == 0


def test_a_constant_tensor_loses_nothing():
    assert steps_lost(halves_of(lambda values: values * 0, (6,)), {"x": NORMAL}) == 0
