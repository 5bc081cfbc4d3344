"""Counting in pieces and adding up is counting all at once; nothing in a window is a sample."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.decode import decode_json, encode_json
from hedgerow.features import input_features, output_features
from hedgerow.reference import Reference, build_reference
from hedgerow.schema import ModelSchema, TensorSpec
from hedgerow.window import (
    LATENCY_EDGES_MS,
    FeatureCounts,
    PairedCounts,
    Window,
    WindowCounter,
    is_output_feature,
    merge_windows,
)
from tests.root.documents import WINDOW

SCHEMA = ModelSchema(
    (TensorSpec("x", (2,), minimum=0.0, maximum=10.0),), (TensorSpec("probabilities", (2,)),), ("a", "b")
)


def draw(seed: int, size: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(5, 3, (size, 2)).astype(np.float32)
    inputs[rng.random((size, 2)) < 0.1] = np.nan
    new = rng.random(size)
    old = rng.random(size)
    return {"x": inputs}, np.stack([new, 1 - new], axis=1), np.stack([old, 1 - old], axis=1)


def reference() -> Reference:
    inputs, probabilities, _ = draw(99, 200)
    outputs = output_features(probabilities)
    label = outputs.pop("output.label")
    return build_reference({**input_features(SCHEMA, inputs), **outputs}, {"output.label": (label, ["a", "b"])})


REFERENCE = reference()


def counter() -> WindowCounter:
    return WindowCounter("m@1", SCHEMA, REFERENCE)


@given(st.integers(0, 2**31), st.lists(st.integers(0, 12), min_size=1, max_size=5), st.data())
def test_pieces_and_merged_windows_count_like_one_batch(seed, sizes, data):
    total = sum(sizes)
    inputs, new, old = draw(seed, total)
    labels = np.array(data.draw(st.lists(st.integers(-1, 1), min_size=total, max_size=total)), np.int64)
    whole, pieces, windows = counter(), counter(), []

    whole.observe(inputs, new, latency_ms=1.5, now=1.0, labels=labels, previous=old)
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        pieces.observe(
            {"x": inputs["x"][part]}, new[part], latency_ms=1.5, now=1.0, labels=labels[part], previous=old[part]
        )
        start += size
        cut = pieces.cut(2.0)
        windows += [cut] if cut else []

    expected = whole.cut(2.0)
    if expected is None:
        assert windows == []
        return
    merged = windows[0]
    for window in windows[1:]:
        merged = merge_windows(merged, window)
    assert {**merged.to_record(), "index": 0} == expected.to_record()
    assert merged.index == len(windows) - 1


def test_a_batch_is_counted_exactly():
    inputs = {"x": np.array([[1, 1], [11, 5], [np.nan, 5]], np.float32)}
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    previous = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    counting = counter()

    counting.observe(inputs, probabilities, latency_ms=0.1, now=50.0, labels=np.array([0, 1, -1]), previous=previous)
    window = counting.cut(60.0)

    assert (window.samples, window.out_of_range, window.labelled, window.correct) == (3, 1, 2, 2)
    assert (window.started_at, window.ended_at, window.index) == (50.0, 60.0, 0)
    assert window.features["output.label"] == FeatureCounts((2, 1))
    assert window.features["x.0"].missing == 1
    assert window.latency[2] == 3
    assert window.paired == PairedCounts(agreed=1, disagreed=2, both_right=1, only_new_right=1)


def test_outputs_that_are_no_numbers_are_no_class_and_never_right():
    """The first of two NaN is class 0 to a plain argmax."""
    inputs, _, old = draw(1, 4)
    counting = counter()

    nothing = np.full((4, 2), np.nan)
    counting.observe(inputs, nothing, latency_ms=0.1, now=1.0, labels=np.zeros(4, np.int64), previous=old)
    window = counting.cut(2.0)

    assert (window.labelled, window.correct, window.paired.agreed) == (4, 0, 0)
    assert window.paired.only_old_right + window.paired.both_wrong == 4
    assert window.features["output.label"] == FeatureCounts((0, 0), 4)


@given(st.floats(0, 1e6))
def test_a_latency_falls_into_the_bin_whose_lower_edge_it_reached(latency_ms):
    counting = counter()
    counting.observe(*draw(0, 1)[:2], latency_ms=latency_ms, now=0.0)

    assert counting.cut(1.0).latency.index(1) == sum(edge <= latency_ms for edge in LATENCY_EDGES_MS)


def test_an_empty_window_is_not_cut():
    counting = counter()

    assert counting.cut(1.0) is None
    assert counting.next_index == 0


def test_a_cut_starts_afresh_and_the_index_rises():
    counting = WindowCounter("m@1", SCHEMA, REFERENCE, first_index=7)
    for now in (10.0, 20.0):
        counting.observe(*draw(1, 4)[:2], latency_ms=1.0, now=now)
        assert counting.samples == 4
        window = counting.cut(now + 5)
        assert (window.samples, window.started_at) == (4, now)

    assert window.index == 8
    assert counting.next_index == 9
    assert counting.samples == 0


def test_a_window_survives_the_wire_and_holds_only_counts():
    payload = encode_json(WINDOW.to_record())

    assert Window.from_fields(decode_json(payload, "window", limit_bytes=10**5)) == WINDOW
    assert set(json.loads(payload)["features"]["image.mean"]) == {"counts", "missing"}


def test_windows_of_another_release_or_with_other_features_are_not_added():
    other = Window(release="m@2", index=0, started_at=0, ended_at=0, samples=0, features={})
    with pytest.raises(ValueError, match="cannot add windows"):
        merge_windows(WINDOW, other)
    with pytest.raises(ValueError, match="different bins"):
        FeatureCounts((1, 2)) + FeatureCounts((1,))


def test_output_features_are_told_from_the_worlds():
    assert [is_output_feature(name) for name in ("output.label", "output.confidence", "x.0")] == [True, True, False]
