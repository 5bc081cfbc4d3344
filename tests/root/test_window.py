"""Counting in pieces and adding up is counting all at once; nothing in a window is a sample."""

import json
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import DecodeError
from hedgerow.features import input_features
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs
from hedgerow.reference import FeatureReference, Reference, build_reference
from hedgerow.schema import TensorSpec
from hedgerow.score_counts import SCORE_STEPS, ScoreCounts
from hedgerow.window import (
    LATENCY_EDGES_MS,
    WINDOW_SAMPLES_LIMIT,
    FeatureCounts,
    Window,
    WindowCounter,
    merge_windows,
)
from tests.output_tasks import TASKS
from tests.root.documents import WINDOW
from tests.scores import pairs, scored

SCHEMA = ModelSchema(
    (TensorSpec("x", (2,), minimum=0.0, maximum=10.0),),
    (TensorSpec("probabilities", (2,)),),
    Outputs.of(Classes(("a", "b"))),
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
    outputs = SCHEMA.answers.features({"probabilities": probabilities})
    label = outputs.pop("output.label")
    return build_reference({**input_features(SCHEMA, inputs), **outputs}, {"output.label": (label, ["a", "b"])})


REFERENCE = reference()


def counter() -> WindowCounter:
    return WindowCounter("m@1", SCHEMA, REFERENCE)


def observe(counting, inputs, answers, *, labels=None, previous=None, latency_ms=1.0, now=1.0) -> None:
    """Count answers of the only output."""
    given = [None if rows is None else {"probabilities": rows} for rows in (labels, previous)]
    counting.observe(
        inputs, {"probabilities": answers}, latency_ms=latency_ms, now=now, wanted=given[0], previous=given[1]
    )


@given(st.integers(0, 2**31), st.lists(st.integers(0, 12), min_size=1, max_size=5), st.data())
def test_pieces_and_merged_windows_count_like_one_batch(seed, sizes, data):
    total = sum(sizes)
    inputs, new, old = draw(seed, total)
    labels = np.array(data.draw(st.lists(st.integers(-1, 1), min_size=total, max_size=total)), np.int64)
    whole, pieces, windows = counter(), counter(), []

    observe(whole, inputs, new, latency_ms=1.5, now=1.0, labels=labels, previous=old)
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        observe(
            pieces,
            {"x": inputs["x"][part]},
            new[part],
            latency_ms=1.5,
            now=1.0,
            labels=labels[part],
            previous=old[part],
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

    observe(counting, inputs, probabilities, latency_ms=0.1, now=50.0, labels=np.array([0, 1, -1]), previous=previous)
    window = counting.cut(60.0)

    assert (window.samples, window.out_of_range, window.scores) == (3, 1, scored(2, 2))
    assert (window.started_at, window.ended_at, window.index) == (50.0, 60.0, 0)
    assert window.features["output.label"] == FeatureCounts((2, 1))
    assert window.features["x.0"].missing == 1
    assert window.latency[2] == 3
    assert window.paired == pairs(agreed=1, disagreed=2, both_right=1, only_new_right=1)
    # What is counted is whole numbers, also on the wire.
    payload = encode_json(window.to_record())
    assert Window.from_fields(decode_json(payload, "window", limit_bytes=10_000)) == window


def test_outputs_that_are_no_numbers_are_no_class_and_never_right():
    """The first of two NaN is class 0 to a plain argmax."""
    inputs, _, old = draw(1, 4)
    counting = counter()

    nothing = np.full((4, 2), np.nan)
    observe(counting, inputs, nothing, latency_ms=0.1, now=1.0, labels=np.zeros(4, np.int64), previous=old)
    window = counting.cut(2.0)

    assert window.scores == scored(0, 4)
    assert window.paired.agreement == scored(0, 4)
    assert (window.paired.change.samples, window.paired.gained) == (4, 0)
    assert window.features["output.label"] == FeatureCounts((0, 0), 4)


def test_a_sample_without_a_label_is_never_right_whatever_the_models_said():
    """Every pair of outputs (a class, another, no number) with every label, -1 for none, once."""
    outputs = {0: (0.9, 0.1), 1: (0.1, 0.9), None: (np.nan, np.nan)}
    samples = list(product(outputs, outputs, (0, 1, -1)))
    new, old = (np.array([outputs[sample[model]] for sample in samples]) for model in (0, 1))
    labels = np.array([label for _, _, label in samples])
    counting = counter()

    observe(counting, {"x": np.ones((27, 2), np.float32)}, new, latency_ms=1.0, now=1.0, labels=labels, previous=old)
    window = counting.cut(2.0)

    rights = Counter((said == label, before == label) for said, before, label in samples if label != -1)
    assert rights == {(True, True): 2, (True, False): 4, (False, True): 4, (False, False): 8}
    assert window.scores == scored(6, 18)
    assert window.paired == pairs(9, 18, both_right=2, only_new_right=4, only_old_right=4, both_wrong=8)


@given(st.floats(0, 1e6))
def test_a_latency_falls_into_the_bin_whose_lower_edge_it_reached(latency_ms):
    counting = counter()
    observe(counting, *draw(0, 1)[:2], latency_ms=latency_ms, now=0.0)

    assert counting.cut(1.0).latency.index(1) == sum(edge <= latency_ms for edge in LATENCY_EDGES_MS)


def test_an_empty_window_is_not_cut():
    counting = counter()

    assert counting.cut(1.0) is None
    assert counting.next_index == 0


def test_a_cut_starts_afresh_and_the_index_rises():
    counting = WindowCounter("m@1", SCHEMA, REFERENCE, first_index=7)
    for now in (10.0, 20.0):
        observe(counting, *draw(1, 4)[:2], latency_ms=1.0, now=now)
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


def test_the_edges_of_the_latency_bins_are_the_ones_that_every_window_was_counted_in():
    assert LATENCY_EDGES_MS == (
        0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0,
    )  # fmt: skip
    assert Window(release="m@1", index=0, started_at=0, ended_at=0, samples=0, features={}).latency == (0,) * 15


def test_two_windows_are_added_field_by_field():
    first = Window(
        release="m@1", index=4, started_at=100.0, ended_at=130.0, samples=30,
        features={"x": FeatureCounts((10, 17), missing=3)}, out_of_range=5, scores=scored(12, 20),
        latency=tuple(range(15)), paired=pairs(9, 8, 7, 6, 5, 4),
    )  # fmt: skip
    second = Window(
        release="m@1", index=2, started_at=60.0, ended_at=90.0, samples=11,
        features={"x": FeatureCounts((1, 8), missing=2)}, out_of_range=1, scores=scored(3, 7),
        latency=tuple(range(20, 35)), paired=pairs(10, 20, 30, 40, 50, 60),
    )  # fmt: skip
    expected = Window(
        release="m@1", index=4, started_at=60.0, ended_at=130.0, samples=41,
        features={"x": FeatureCounts((11, 25), missing=5)}, out_of_range=6, scores=scored(15, 27),
        latency=tuple(range(20, 50, 2)), paired=pairs(19, 28, 37, 46, 55, 64),
    )  # fmt: skip

    assert merge_windows(first, second) == expected
    assert merge_windows(second, first) == expected
    assert (first.paired.change.samples, second.paired.change.samples) == (22, 180)


def record(**changes: object) -> dict:
    """Ten samples of which six have labels and five are right; every figure differs."""
    return {**WINDOW.to_record(), **changes}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"scores": list(scored(5, 11).weights)},
            "window.scores: expected 17 counts of at most 10 whole samples, found 17 of 11",
        ),
        (
            {"scores": [1, *[0] * 16]},
            "window.scores: expected 17 counts of at most 10 whole samples, found 17 of 0.000244141",
        ),
        ({"latency": [0] * 14}, "window.latency: expected 15 counts, found 14"),
        ({"latency": [11, *[0] * 14]}, "window.latency: expected at most 10 samples, found 11"),
        (
            {"paired": pairs(9, 2).to_record()},
            "window.paired.agreement: expected 17 counts of at most 10 whole samples, found 17 of 11",
        ),
        (
            {"paired": pairs(9, 1, both_right=7).to_record()},
            "window.paired.change: expected 33 counts of at most 6 whole samples, found 33 of 7",
        ),
        (
            {"paired": pairs(3, 1, both_right=5).to_record()},
            "window.paired.change: expected 33 counts of at most 4 whole samples, found 33 of 5",
        ),
        (
            {"features": {"x": {"counts": [3, 4], "missing": 2}}},
            "window.features[x]: expected 10 values, found 9",
        ),
        (
            {"features": {"x": {"counts": [9, 4], "missing": 3}}},
            "window.features[x]: expected 10 values, found 16",
        ),
        ({"samples": 2**53}, f"window.samples: expected a whole number from 0 to {2**53 - 1}, found {2**53}"),
    ],
)
def test_counts_that_contradict_each_other_are_refused(changes, sentence):
    with pytest.raises(DecodeError) as caught:
        Window.from_fields(Fields(record(**changes), "window"))

    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": list(scored(10, 10).weights), "paired": pairs(both_right=0).to_record()},
        {"latency": [10, *[0] * 14]},
        {"paired": pairs(9, 1, both_wrong=6).to_record()},
        {"features": {"x": {"counts": [3, 4], "missing": 3}}},
    ],
)
def test_counts_that_just_fit_are_taken(changes):
    assert Window.from_fields(Fields(record(**changes), "window")).to_record() == record(**changes)


def test_a_device_may_count_fewer_samples_in_a_window_than_a_sum_of_windows_holds():
    empty = Window(release="m@1", index=0, started_at=0, ended_at=0, samples=2**24, features={}).to_record()

    assert WINDOW_SAMPLES_LIMIT == 2**24
    assert Window.from_fields(Fields(empty, "w"), limit_samples=WINDOW_SAMPLES_LIMIT).samples == 2**24
    with pytest.raises(DecodeError):
        Window.from_fields(Fields({**empty, "samples": 2**24 + 1}, "w"), limit_samples=WINDOW_SAMPLES_LIMIT)
    assert Window.from_fields(Fields({**empty, "samples": 2**53 - 1}, "w")).samples == 2**53 - 1


def test_the_year_10000_is_the_last_one_of_a_window():
    last = 253402300800.0

    assert Window.from_fields(Fields(record(started_at=last, ended_at=last), "w")).ended_at == last
    for name in ("started_at", "ended_at"):
        with pytest.raises(DecodeError):
            Window.from_fields(Fields(record(**{name: last + 1}), "w"))


def test_windows_of_another_release_or_with_other_features_are_not_added():
    for other in (replace(WINDOW, release="m@2"), replace(WINDOW, features={})):
        with pytest.raises(ValueError, match=f"^cannot add windows of digits@1 and {other.release}$"):
            merge_windows(WINDOW, other)
    with pytest.raises(ValueError, match=r"^windows with different bins cannot be added$"):
        FeatureCounts((1, 2)) + FeatureCounts((1,))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_pieces_of_answers_of_every_kind_count_like_one_batch_by_the_outputs_record(name):
    # As a device has them: what only the training side knows is not in a record.
    record = replace(TASKS[name].schema, answers=measured(TASKS[name])).to_record()
    schema = ModelSchema.from_fields(Fields(record, "schema"))
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=(40, 4)).astype(np.float32)}
    answers, before = (
        {spec.name: rng.random((40, *spec.shape), np.float32) for spec in schema.outputs} for _ in range(2)
    )
    wanted = {
        output_name: rng.integers(0, 2, (40, *output.target_shape)).astype(output.target_dtype)
        for output_name, output in schema.answers.items()
    }
    for output_name, output in schema.answers.items():
        wanted[output_name][:10] = output.unknown(10)
    columns = {**input_features(schema, inputs), **schema.answers.features(answers)}
    reference = build_reference(columns, {})
    whole, pieces, windows = WindowCounter("m@1", schema, reference), WindowCounter("m@1", schema, reference), []

    whole.observe(inputs, answers, latency_ms=1.0, now=1.0, wanted=wanted, previous=before)
    for part in (slice(0, 13), slice(13, 14), slice(14, 40)):
        cut = [{key: rows[part] for key, rows in arrays.items()} for arrays in (inputs, answers, wanted, before)]
        pieces.observe(*cut[:2], latency_ms=1.0, now=1.0, wanted=cut[2], previous=cut[3])
        windows.append(pieces.cut(2.0))
    expected = whole.cut(2.0)

    merged = merge_windows(merge_windows(windows[0], windows[1]), windows[2])
    assert {**merged.to_record(), "index": 0} == expected.to_record()
    assert expected.paired.agreement.samples == 40
    # The functions of an output of the user's own stay where the model is trained.
    assert expected.scores.samples == (0 if name == "custom" else 30)
    if name != "custom":
        scores = schema.answers.scores(answers, wanted)[10:]
        assert expected.scores.mean == pytest.approx(scores.mean(), abs=1e-5)
        change = expected.paired.gained - expected.paired.lost
        difference = scores - schema.answers.scores(before, wanted)[10:]
        assert change == pytest.approx(difference.sum(), abs=1e-3)


def measured(task) -> Outputs:
    """Return a task's outputs with a threshold, where one is needed."""
    normal = {name: np.full((9, *output.tensor(name).shape), 0.5, np.float32) for name, output in task.answers.items()}
    return task.answers.measured(normal, task.answers.named(None, 9))


def test_a_release_of_before_is_counted_by_the_summaries_that_its_reference_knows():
    schema = replace(SCHEMA, inputs=(TensorSpec("x", (20,)),))
    before = Reference((FeatureReference("x.mean", (1.0,), (5, 5)), FeatureReference("output.confidence", (), (10,))))
    counted = WindowCounter("m@1", schema, before)

    rows = np.stack([np.zeros(20, np.float32), np.full(20, 2, np.float32), np.full(20, 3, np.float32)])
    answers = {"probabilities": np.full((3, 2), 0.5, np.float32)}
    counted.observe({"x": rows}, answers, latency_ms=1.0, now=0.0)

    window = counted.cut(1.0)
    assert window is not None
    assert {name: feature.counts for name, feature in window.features.items()} == {
        "x.mean": (1, 2),
        "output.confidence": (3,),
    }


def test_the_scores_of_as_many_samples_as_windows_may_hold_in_all_are_read_again():
    samples = 2**53 - 1
    all_right = ScoreCounts((0,) * SCORE_STEPS + (4096 * samples,))
    whole = replace(WINDOW, samples=samples, features={}, scores=all_right, paired=pairs())

    assert Window.from_fields(decode_json(encode_json(whole.to_record()), "window", limit_bytes=10**6)) == whole
    assert whole.scores.mean == 1.0
