"""Bins are cut once, count exactly, and survive the wire."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import DecodeError
from hedgerow.reference import FeatureReference, Reference, build_reference
from tests.root.documents import REFERENCE, damaged

FLOATS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


def numeric(values, bins: int = 10) -> FeatureReference:
    return build_reference({"x": np.array(values, np.float64)}, {}, bins=bins).feature("x")


def test_distinct_values_fall_evenly_into_the_bins():
    feature = numeric(range(100), bins=4)

    assert feature.edges == (24.75, 49.5, 74.25)
    assert feature.counts == (25, 25, 25, 25)


@given(FLOATS, st.integers(2, 12))
def test_every_reference_value_is_in_one_bin_and_edges_rise(values, bins):
    feature = numeric(values, bins)

    assert sum(feature.counts) == len(values)
    assert len(feature.counts) == len(feature.edges) + 1 <= bins
    assert all(left < right for left, right in zip(feature.edges, feature.edges[1:], strict=False))
    assert feature.counts[0] > 0


def test_repeated_values_make_fewer_bins_not_empty_ones():
    feature = numeric([0.0] * 90 + list(range(1, 11)))

    assert sum(feature.counts) == 100
    assert all(count > 0 for count in feature.counts)


def test_a_constant_has_one_bin():
    feature = numeric([3.0] * 20)

    assert (feature.edges, feature.counts) == ((), (20,))


def test_values_that_are_not_finite_cut_no_bins():
    assert numeric([0, 1, 2, 3, np.nan, np.inf], bins=2).counts == (2, 2)
    with pytest.raises(ValueError, match="'x' has no finite value"):
        numeric([np.nan])


def test_a_value_on_an_edge_is_in_the_bin_above_and_nan_in_none():
    feature = FeatureReference("x", (1.0, 2.0), (0, 0, 0))

    assert feature.bin(np.array([-np.inf, 0.9, 1.0, 1.9, 2.0, np.inf, np.nan])).tolist() == [2, 2, 2]
    assert feature.bin(np.array([])).tolist() == [0, 0, 0]


def test_a_category_has_one_bin_a_class_even_when_it_never_occurred():
    feature = build_reference({}, {"label": (np.array([0.0, 2.0, 2.0]), ["a", "b", "c"])}).feature("label")

    assert feature == FeatureReference("label", (0.5, 1.5), (1, 0, 2), ("a", "b", "c"))


@given(FLOATS, FLOATS)
def test_counts_of_parts_add_up_to_the_counts_of_the_whole(first, second):
    feature = numeric(first)
    parts = feature.bin(np.array(first)) + feature.bin(np.array(second))

    assert parts.tolist() == feature.bin(np.array(first + second)).tolist()


@given(FLOATS)
def test_a_reference_survives_the_wire_to_the_last_bit(values):
    reference = build_reference({"x": np.array(values)}, {"y": (np.zeros(3), ["a", "b"])})

    assert Reference.decode(reference.encode()) == reference


@given(st.data())
def test_a_damaged_reference_is_another_reference_or_a_decode_error(data):
    try:
        Reference.decode(data.draw(damaged(REFERENCE.encode())))
    except DecodeError:
        return


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"counts": [1, 2]}, r"reference.features\[0\].counts: expected 3 counts, found 2"),
        ({"edges": [2.5, 1.5]}, r"reference.features\[0\].edges: expected strictly rising edges"),
        ({"edges": [1.5, 1.5]}, r"strictly rising"),
        ({"counts": [1, -2, 3]}, r"features\[0\].counts"),
        ({"categories": ["a"]}, r"features\[0\].categories: expected 3 names or none, found 1"),
    ],
)
def test_bins_that_contradict_themselves_are_refused(change, where):
    record = json.loads(REFERENCE.encode())
    record["features"][0].update(change)

    with pytest.raises(DecodeError, match=where):
        Reference.decode(json.dumps(record).encode())


def test_recounting_keeps_the_bins_and_the_features_that_are_not_named():
    recounted = REFERENCE.recounted({"image.mean": [1, 2, 3]})

    assert recounted.feature("image.mean") == FeatureReference("image.mean", (1.5, 2.5), (1, 2, 3))
    assert recounted.feature("output.label") == REFERENCE.feature("output.label")


def test_an_unknown_feature_is_a_key_error():
    with pytest.raises(KeyError):
        REFERENCE.feature("x")


def test_missing_values_are_counted_beside_the_bins_and_survive_the_wire():
    values = np.arange(90.0)
    values[::9] = np.nan
    reference = build_reference({}, {}, inputs={"x": values, "y": np.full(90, np.nan)})
    feature = reference.feature("x")

    assert (sum(feature.counts), feature.missing) == (50, 10), "of every third value the bins are cut"
    assert reference.feature("y") == FeatureReference("y", (), (0,), missing=60)
    assert Reference.decode(reference.encode()) == reference
    assert reference.recounted({"x": feature.counts, "missing:x": [50, 7]}).feature("x").missing == 7


def test_a_reference_without_missing_values_is_the_record_it_always_was():
    assert sorted(REFERENCE.features[0].to_record()) == ["categories", "counts", "edges", "name"]


@given(st.lists(st.floats(allow_nan=True), max_size=4), FLOATS)
def test_a_few_values_fall_where_many_would(few, known):
    feature = numeric(known)
    many = feature.bin(np.array([*few, *few, *few, *few, *few], dtype=np.float64))

    assert (5 * feature.bin(np.array(few, dtype=np.float64))).tolist() == many.tolist()
