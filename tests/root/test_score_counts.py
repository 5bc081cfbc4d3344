"""Counts of scores: exact sums, means that are kept, and evidence that is never more than there was."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.score_counts import (
    CHANGE_STEPS,
    NO_PAIRED_SCORES,
    NO_SCORES,
    SCORE_STEPS,
    SCORE_UNIT,
    PairedScores,
    ScoreCounts,
    fixed_point,
    spread,
)
from tests.scores import pairs, scored

UNITS = st.lists(st.integers(0, 65536), max_size=50)


def counts(units) -> ScoreCounts:
    return ScoreCounts.of(spread(np.array(units, np.int64), SCORE_STEPS))


@given(UNITS)
def test_the_sum_of_the_scores_is_kept_exactly(units):
    found = counts(units)

    assert found.samples == len(units)
    assert Fraction(found.total) == Fraction(sum(units), 65536)
    assert Fraction(found.mirrored.total) == len(units) - Fraction(sum(units), 65536)


@given(UNITS, UNITS)
def test_counting_all_at_once_or_in_two_parts_is_the_same(first, second):
    assert counts(first) + counts(second) == counts(first + second)


@given(st.lists(st.integers(0, 65536), min_size=1, max_size=50), st.floats(0.001, 0.999), st.floats(0.01, 0.98))
def test_no_stake_wins_more_on_the_counts_than_on_the_scores(units, mean, stake):
    scores, found = np.array(units) / 65536, counts(units)

    won = np.log1p(stake * (scores / mean - 1)).sum()
    on_counts = np.dot(found.counts, np.log1p(stake * (np.array(found.values) / mean - 1)))

    assert on_counts <= won + 1e-9


def test_right_and_wrong_stay_at_the_two_ends():
    assert counts([0, 65536, 65536]).weights == (4096, *[0] * 15, 8192)


def test_a_score_between_two_points_belongs_to_both_in_proportion():
    # 0.30 is 19661 units: 3277 beyond the point 4 of 4096 units each.
    assert fixed_point(np.array([0.3])).tolist() == [19661]
    assert counts([19661]).weights == (0, 0, 0, 0, 819, 3277, *[0] * 11)
    assert counts([19661]).counts[4:6] == (819 / 4096, 3277 / 4096)


def test_what_is_no_number_is_worth_nothing_and_what_lies_outside_its_nearer_end():
    found = fixed_point(np.array([np.nan, np.inf, -np.inf, -0.5, 1.5, 1.0, 0.5 + SCORE_UNIT / 4]))

    assert found.tolist() == [0, 0, 0, 0, 65536, 65536, 32768]


def test_the_points_reach_from_nought_to_one():
    assert NO_SCORES.values == tuple(point / 16 for point in range(17))
    assert NO_PAIRED_SCORES.change.values == tuple(point / 32 for point in range(33))


def test_scores_on_different_grids_are_not_added():
    with pytest.raises(ValueError, match="different grids"):
        NO_SCORES + NO_PAIRED_SCORES.change


@given(st.lists(st.tuples(st.integers(0, 65536), st.integers(0, 65536)), max_size=30))
def test_what_was_gained_and_lost_is_kept_exactly(scores):
    new, old = (np.array([score[model] for score in scores], np.int64) for model in (0, 1))
    change = ScoreCounts.of(spread(new - old + 65536, CHANGE_STEPS))

    paired = PairedScores(NO_SCORES, change)

    assert Fraction(paired.gained) == Fraction(int(np.maximum(new - old, 0).sum()), 65536)
    assert Fraction(paired.lost) == Fraction(int(np.maximum(old - new, 0).sum()), 65536)
    if scores:
        assert 2 * change.mean - 1 == pytest.approx((new.mean() - old.mean()) / 65536, abs=1e-12)


def test_numbers_that_are_known_one_by_one_are_counted_as_any_others():
    assert ScoreCounts.at({0.3: 2, 1.0: 1}) == counts([19661, 19661, 65536]) == ScoreCounts.at({1.0: 1, 0.3: 2})
    assert ScoreCounts.at({}) == NO_SCORES
    assert scored(3, 4).mean == 0.75


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ([0] * 16, "16 of 0"),
        ([4095, *[0] * 16], "17 of 0.999756"),
        ([4096 * 3, *[0] * 16], "17 of 3"),
    ],
)
def test_counts_that_are_none_are_refused(weights, found):
    with pytest.raises(DecodeError) as caught:
        ScoreCounts.from_fields(Fields({"scores": weights}, "w"), "scores", SCORE_STEPS, limit_samples=2)

    assert str(caught.value) == f"w.scores: expected 17 counts of at most 2 whole samples, found {found}"


def test_a_comparison_comes_back_from_its_record():
    paired = pairs(5, 3, both_right=2, only_new_right=3, only_old_right=1, both_wrong=1)
    record = json.loads(json.dumps(paired.to_record()))

    assert PairedScores.from_fields(Fields(record, "p"), scored(5, 7), limit_samples=8) == paired


@pytest.mark.parametrize(("right", "sentence"), [(2, "gains of at most 2"), (7, "losses of at most 0")])
def test_a_comparison_that_gained_or_lost_more_than_there_was_is_refused(right, sentence):
    paired = pairs(5, 3, both_right=2, only_new_right=3, only_old_right=1, both_wrong=1)

    with pytest.raises(DecodeError, match=f"p.change: expected {sentence} in all, by the window's scores, found"):
        PairedScores.from_fields(Fields(paired.to_record(), "p"), scored(right, 7), limit_samples=8)
