"""A twentieth of the simulated rollouts of docs/statistics.md, with the same seed."""

import math

import pytest
from benchmarks.gates import LOW_FLOOR, MARGIN, RIGHT_OR_WRONG, SCORES, simulate

pytestmark = pytest.mark.heavy
RUNS, ALPHA = 50, 0.05
MOST_ERRORS = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)
"""The level, and two standard errors of a share of so many rollouts."""


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("scores", [RIGHT_OR_WRONG, *SCORES])
def test_an_equal_release_goes_on_and_is_stopped_at_most_as_often_as_alpha(paired, scores):
    found = simulate(0.0, paired=paired, runs=RUNS, seed=0, scores=scores)

    assert found.stopped <= MOST_ERRORS
    assert found.finished >= 0.9


@pytest.mark.parametrize("drop", [0.05, 0.12])
def test_a_release_that_is_worse_than_the_margin_passes_at_most_as_often_as_alpha(drop):
    pairs, alone = (simulate(drop, paired=paired, runs=RUNS, seed=0) for paired in (True, False))

    assert max(pairs.finished, alone.finished) <= ALPHA
    assert pairs.stopped >= alone.stopped, "comparing with the model before sees at least as much"
    assert pairs.stopped >= 0.95


@pytest.mark.parametrize("drop", [0.05, 0.12])
@pytest.mark.parametrize("scores", SCORES)
def test_scores_that_are_lower_than_the_limit_are_stopped_and_pass_at_most_as_often_as_alpha(drop, scores):
    pairs, alone = (simulate(drop, paired=paired, runs=RUNS, seed=0, scores=scores) for paired in (True, False))

    assert max(pairs.finished, alone.finished) <= MOST_ERRORS
    assert min(pairs.stopped, alone.stopped) >= 0.95


def test_at_the_margin_neither_error_is_more_frequent_than_alpha():
    found = simulate(MARGIN, paired=True, runs=RUNS, seed=0)

    assert found.finished <= MOST_ERRORS
    assert found.stopped <= MOST_ERRORS


@pytest.mark.parametrize("evidence", ["alone", "paired", "paired, low floor"])
@pytest.mark.parametrize("scores", SCORES)
def test_exactly_at_the_limit_neither_error_is_more_frequent_than_alpha_for_scores_of_any_form(scores, evidence):
    floor_drop = LOW_FLOOR if evidence == "paired, low floor" else None
    found = simulate(MARGIN, paired=evidence != "alone", runs=RUNS, seed=0, scores=scores, floor_drop=floor_drop)

    assert found.finished <= MOST_ERRORS
    assert found.stopped <= MOST_ERRORS


@pytest.mark.parametrize(
    ("drop", "paired", "samples"),
    [
        (0.0, True, 1075),
        (0.0, False, 400),
        (0.05, True, 1175),
        (0.05, False, 4225),
        (0.12, True, 150),
        (0.12, False, 150),
    ],
)
def test_classes_need_as_many_samples_as_when_right_and_wrong_were_counted(drop, paired, samples):
    """The medians of the gate that counted right and wrong predictions, on the very same samples."""
    assert simulate(drop, paired=paired, runs=RUNS, seed=0).median_samples == samples


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("scores", [RIGHT_OR_WRONG, "spread"])
def test_bounds_in_sentences_decide_nothing(paired, scores):
    without, with_them = (
        simulate(0.03, paired=paired, runs=4, seed=3, scores=scores, with_bounds=with_bounds)
        for with_bounds in (False, True)
    )

    assert without == with_them


def test_twelve_points_worse_with_a_margin_of_ten_is_stopped_when_paired_at_least_as_often_as_alone():
    """It was 4.5 % against 55 %: two shares were bounded one by one where only their difference counts."""
    pairs, alone = (simulate(0.12, paired=paired, runs=RUNS, seed=0, margin=0.1) for paired in (True, False))

    assert pairs.stopped >= alone.stopped
    assert pairs.stopped >= 0.3
