"""Features are small exact numbers of each sample, for any batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hedgerow.features import (
    input_features,
    input_summaries,
    is_output_feature,
    out_of_range,
    whole_features,
)
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import NO_OUTPUTS
from hedgerow.schema import TensorSpec

IMAGE = ModelSchema((TensorSpec("image", (1, 5, 4), minimum=0.0, maximum=16.0),), ())
SENSOR = ModelSchema((TensorSpec("accel", (3,), minimum=-1.0, maximum=1.0), TensorSpec("heat", ())), ())


def image(values) -> dict[str, np.ndarray]:
    return {"image": np.asarray(values, np.float32).reshape(-1, 1, 5, 4)}


def test_a_small_tensor_is_watched_element_by_element():
    features = input_features(SENSOR, {"accel": np.array([[1, 2, 3], [4, 5, 6]], np.float32), "heat": np.ones(2)})

    assert {name: column.tolist() for name, column in features.items()} == {
        "accel.0": [1, 4],
        "accel.1": [2, 5],
        "accel.2": [3, 6],
        "heat": [1, 1],
    }


def test_an_image_is_watched_through_six_summaries():
    picture = np.zeros((5, 4))
    picture[4, 3] = 16.0

    features = {name: column.item() for name, column in input_features(IMAGE, image(picture)).items()}

    assert features == pytest.approx(
        {
            "image.mean": 0.8,
            "image.std": 16 * np.sqrt(0.05 * 0.95),
            "image.high_share": 0.05,
            "image.roughness": 16 / 15,
            "image.centre_last": 3.0,
            "image.centre_before_last": 4.0,
        }
    )


def test_an_empty_picture_has_its_centre_in_the_middle():
    features = input_features(IMAGE, image(np.zeros((5, 4))))

    assert features["image.centre_last"].item() == 1.5
    assert features["image.centre_before_last"].item() == 2.0


def test_a_sample_with_a_nan_is_missing_and_its_neighbour_is_not():
    values = np.ones((2, 5, 4))
    values[0, 2, 1] = np.nan

    for name, column in input_features(IMAGE, image(values)).items():
        assert np.isnan(column).tolist() == [True, False], name


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 3), st.just(1), st.just(5), st.just(4))))
def test_any_batch_gives_one_value_a_sample_without_a_warning(values):
    for column in input_features(IMAGE, {"image": values}).values():
        assert column.shape == (len(values),)
        assert column.dtype == np.float64
    assert out_of_range(IMAGE, {"image": values}).shape == (len(values),)


def test_features_of_a_batch_are_those_of_its_samples():
    values = np.random.default_rng(0).uniform(0, 16, (6, 1, 5, 4)).astype(np.float32)
    together = input_features(IMAGE, {"image": values})

    for index in range(6):
        for name, column in input_features(IMAGE, {"image": values[index : index + 1]}).items():
            assert column.item() == pytest.approx(together[name][index], rel=1e-12)


def test_a_sample_is_out_of_range_when_one_value_is():
    inputs = {"accel": np.array([[0, 0, 0], [0, 2, 0], [-2, 0, 0], [1, -1, 1]], np.float32), "heat": np.full(4, 1e9)}

    assert out_of_range(SENSOR, inputs).tolist() == [False, True, True, False]


def test_what_is_watched_of_outputs_is_told_from_what_is_watched_of_inputs():
    assert [is_output_feature(name) for name in ("output.label", "output.state.label", "outputs.0", "image.mean")] == [
        True, True, False, False,
    ]  # fmt: skip


def test_state_is_neither_watched_nor_out_of_range():
    schema = ModelSchema(
        (TensorSpec("accel", (3,), minimum=-1.0, maximum=1.0), TensorSpec("h", (1, 2), minimum=0, maximum=1)),
        (TensorSpec("h_next", (1, 2)),),
        NO_OUTPUTS,
        {"h": "h_next"},
    )
    inputs = {"accel": np.zeros((2, 3), np.float32)}

    assert sorted(input_features(schema, inputs)) == ["accel.0", "accel.1", "accel.2"]
    assert out_of_range(schema, inputs).tolist() == [False, False]


def features_of(spec: TensorSpec, values) -> dict[str, list[float]]:
    columns = input_features(ModelSchema((spec,), ()), {spec.name: np.asarray(values)})
    return {name: column.tolist() for name, column in columns.items()}


def test_a_long_vector_is_watched_channel_by_channel_under_its_names():
    names = [f"bearing {index}" for index in range(17)]
    spec = TensorSpec("pump", (17,), channels=names)

    found = features_of(spec, [range(17)])

    assert found == {f"pump.{name}": [float(index)] for index, name in enumerate(names)}


def test_a_series_with_named_channels_is_watched_by_each_ones_mean_and_spread():
    spec = TensorSpec("motion", (3, 2), channels=("left", "right"))

    assert features_of(spec, [[[0, 1], [0, 2], [3, 3]]]) == {
        "motion.left.mean": [1.0],
        "motion.left.std": [pytest.approx(np.sqrt(2))],
        "motion.right.mean": [2.0],
        "motion.right.std": [pytest.approx(np.sqrt(2 / 3))],
    }


def test_where_values_may_be_missing_a_series_is_what_came_and_the_share_that_did_not():
    spec = TensorSpec("motion", (2, 4), channels=("left", "right"), missing=True)
    found = features_of(spec, [[[1, np.nan, 3, np.nan], [np.nan] * 4]])

    assert (found["motion.left.mean"], found["motion.left.gaps"]) == ([2.0], [0.5])
    assert np.isnan(found["motion.right.mean"]).all()
    assert found["motion.right.gaps"] == [1.0]


def test_a_picture_with_missing_values_is_summed_up_from_the_others():
    spec = TensorSpec("image", (1, 5, 4), missing=True)
    values = np.ones((1, 1, 5, 4), np.float32)
    values[0, 0, 0, :2] = np.nan

    found = features_of(spec, values)

    assert (found["image.mean"], found["image.gaps"]) == ([1.0], [0.1])


def test_a_sound_is_watched_by_its_level_its_peak_and_its_changes_of_sign():
    spec = TensorSpec("sound", (20,), kind="audio")

    found = features_of(spec, [[1.0, -1.0] * 9 + [-3.0, 3.0]])

    assert sorted(found) == ["sound.mean", "sound.peak", "sound.roughness", "sound.sign_changes", "sound.std"]
    assert (found["sound.peak"], found["sound.sign_changes"]) == ([3.0], [18 / 19])


def test_a_text_is_watched_by_how_many_tokens_differ_and_how_often_one_comes():
    spec = TensorSpec("text", (20,), "int64")

    assert features_of(spec, [[7] * 15 + [1, 2, 3, 4, 4], range(20)]) == {
        "text.distinct": [5.0, 20.0],
        "text.most_frequent": [0.75, 0.05],
    }


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (TensorSpec("x", (2,)), set()),
        (TensorSpec("x", (2,), kind="flag"), {"x.0", "x.1"}),
        (TensorSpec("x", (1,), "int16"), {"x"}),
        (
            TensorSpec("x", (40,), kind="category", channels=[f"c{i}" for i in range(40)]),
            {f"x.c{i}" for i in range(40)},
        ),
        (TensorSpec("x", (2, 20), "int16", channels=("a", "b")), set()),
        (TensorSpec("x", (1, 8, 8), "uint8"), set()),
    ],
)
def test_flags_categories_counts_and_integers_are_counted_by_value(spec, names):
    assert whole_features(ModelSchema((spec,), ())) == names


def test_steps_of_sequences_count_as_samples():
    schema = ModelSchema((TensorSpec("frame", (3,)),), ())
    values = np.arange(24, dtype=np.float32).reshape(2, 4, 3)

    assert input_features(schema, {"frame": values})["frame.1"].tolist() == [1, 4, 7, 10, 13, 16, 19, 22]


def test_summaries_of_before_are_there_for_each_large_input_whatever_its_kind():
    schema = ModelSchema((TensorSpec("x", (20,)), TensorSpec("words", (17,), "int64"), TensorSpec("heat", (16,))), ())
    rows = np.arange(40, dtype=np.float32).reshape(2, 20)
    inputs = {"x": rows, "words": np.ones((2, 17), np.int64), "heat": np.zeros((2, 16), np.float32)}

    found = input_summaries(schema, inputs)

    summaries = ("mean", "std", "high_share", "roughness", "centre_last")
    assert set(found) == {f"{name}.{summary}" for name in ("x", "words") for summary in summaries}
    assert found["x.mean"].tolist() == [9.5, 29.5]
    assert found["x.std"].tolist() == pytest.approx([np.sqrt((20**2 - 1) / 12)] * 2)
    assert found["words.high_share"].tolist() == [1.0, 1.0]
