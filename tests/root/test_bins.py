"""What was never seen in training falls into bins of its own."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.bins import MOST_BYTES, bins_for_each, cut_edges
from hedgerow.features import input_features, whole_features
from hedgerow.model_schema import ModelSchema
from hedgerow.reference import build_reference
from hedgerow.schema import TensorSpec
from hedgerow.window import WINDOW_SAMPLES_LIMIT, FeatureCounts, Window
from hedgerow.wire.message import PAYLOAD_LIMIT_BYTES
from hedgerow.wire.telemetry import Telemetry

FLOATS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


def places(edges, *values) -> list[int]:
    return np.searchsorted(edges, values, side="right").tolist()


def test_a_constant_has_a_bin_around_it_and_one_on_either_side():
    edges = cut_edges(np.full(100, 3.0))

    assert len(edges) == 2
    assert places(edges, 2.999, 3.0, np.nextafter(3.0, 4.0), 3.001) == [0, 1, 1, 2]


def test_a_constant_zero_has_a_bin_too():
    assert places(cut_edges(np.zeros(100)), -1e-200, 0.0, 1e-200) == [0, 1, 2]


def test_a_constant_is_the_same_with_the_last_bits_of_another_machine():
    (low, high) = cut_edges(np.full(100, 0.3))

    assert low < np.float32(0.3) < high


def test_the_zeros_of_a_rain_gauge_are_a_bin_between_the_others():
    rng = np.random.default_rng(0)
    values = np.where(rng.random(5000) < 0.9, 0.0, rng.exponential(size=5000))
    edges = cut_edges(values)

    below, zero, light = places(edges, -0.1, 0.0, 1e-3)
    assert (below, zero, light) == (0, 1, 2)
    counts = np.bincount(places(edges, *values), minlength=len(edges) + 1)
    assert (counts[0], counts[1], counts[-1]) == (0, (values == 0).sum(), 0)


def test_a_value_that_came_less_than_five_times_or_in_a_twentieth_is_no_atom():
    spread = np.linspace(0.0, 1.0, 100)
    for times, is_atom in ((4, False), (5, False), (6, True)):
        edges = cut_edges(np.concatenate([spread, np.full(times, 0.755)]))
        assert len(set(places(edges, 0.7549, 0.755, 0.7551))) == (3 if is_atom else 1), times
    few = np.array([1.0, 2, 3, 3, 3, 3, 4])
    assert len(set(places(cut_edges(few), 2.9999, 3.0, 3.0001))) < 3


def test_whole_numbers_have_a_bin_each_and_none_between():
    edges = cut_edges(np.array([0.0, 1, 1, 2, 5]), is_whole=True)

    assert edges == (-0.5, 0.5, 1.5, 2.5, 4.5, 5.5)


def test_the_64_most_frequent_whole_numbers_have_a_bin_each():
    values = np.repeat(np.arange(100.0), np.arange(1, 101))
    edges = cut_edges(values, is_whole=True)

    assert {36.5 + step for step in range(64)} <= set(edges)
    assert not {edge for edge in edges if 0 <= edge < 30 and edge % 1 == 0.5}
    assert edges[0] == -0.5


def test_what_lies_beyond_all_that_was_seen_has_a_bin_at_either_end():
    values = np.random.default_rng(0).normal(size=5000)
    edges = cut_edges(values)

    assert places(edges, values.min(), values.max()) == [1, len(edges) - 1]
    assert places(edges, values.min() - 0.01, values.max() + 0.01) == [0, len(edges)]
    assert len(edges) == 13, "nine tenths, two tails, two ends"


@given(FLOATS, st.booleans(), st.integers(6, 40))
def test_edges_rise_hold_all_that_was_seen_and_are_not_too_many(values, is_whole, most):
    found = np.rint(values) if is_whole else np.array(values)
    edges = cut_edges(found, is_whole=is_whole, most=most)

    assert all(left < right for left, right in pairwise(edges))
    assert 3 <= len(edges) + 1 <= most
    assert edges[0] <= found.min() <= found.max() < edges[-1]


@given(FLOATS)
def test_a_cut_leaves_no_bin_inside_empty_where_nothing_repeats(values):
    found = np.unique(values)
    if len(found) == len(values):
        counts = np.bincount(places(cut_edges(found), *found))
        assert counts[0] == 0
        assert (counts[1:] > 0).all()


@pytest.mark.parametrize(("names", "bins"), [(1, 131), (100, 131), (500, 44), (2000, 7), (5000, 6)])
def test_many_features_have_fewer_bins(names, bins):
    assert bins_for_each([f"x.{index}" for index in range(names)]) == bins


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec("x", (2200,)),
        TensorSpec("vibration", (1500,), channels=[f"gearbox {index:04} of the hall" for index in range(1500)]),
        TensorSpec("x", (650, 8), missing=True, channels=[f"series-{index}" for index in range(650)]),
        TensorSpec("x", (1200,), "int32", kind="count"),
    ],
)
def test_the_largest_window_of_the_most_channels_fits_into_a_message(spec):
    schema = ModelSchema((spec,), ())
    rng = np.random.default_rng(0)
    columns = input_features(schema, {spec.name: rng.integers(0, 1000, (600, *spec.shape)).astype(spec.dtype)})
    reference = build_reference({}, {}, inputs=columns, whole=whole_features(schema))
    assert len(reference.features) >= 1200
    counts = {}
    for feature in reference.features:
        bins = len(feature.counts)
        share, rest = divmod(WINDOW_SAMPLES_LIMIT, bins + 1)
        counts[feature.name] = FeatureCounts((share,) * bins, share + rest)
    window = Window(
        release="digits@1", index=2**40, started_at=1e9, ended_at=1e9, samples=WINDOW_SAMPLES_LIMIT, features=counts
    )

    payload = Telemetry(boot="b" * 36, sequence=2**40, window=window).encode()

    assert MOST_BYTES * 0.7 < len(payload) < PAYLOAD_LIMIT_BYTES
    assert json.loads(payload)["window"]["samples"] == WINDOW_SAMPLES_LIMIT


def test_more_channels_than_a_window_can_tell_are_watched_through_summaries():
    schema = ModelSchema((TensorSpec("x", (4000,)), TensorSpec("heat", (2,))), ())
    found = input_features(schema, {"x": np.zeros((1, 4000), np.float32), "heat": np.zeros((1, 2), np.float32)})

    assert list(found) == ["x.mean", "x.std", "x.high_share", "x.roughness", "x.centre_last", "heat.0", "heat.1"]
