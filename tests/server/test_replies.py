"""Tests of hedgerow.server.replies: what passes the border, by hand-made answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.replies import (
    Kind,
    ReplyContents,
    ReplyLimits,
    judge_answers,
    longest_update,
    model_length,
    narrowed,
)

SENT = {"w": np.zeros(4, np.float32), "batches": np.array(3, np.int64)}


def answer(change=1.0, examples=5, *, arrays=None, records=None, declared=None, **metrics):
    """Return an honest answer, but for what is said."""
    found = {"w": SENT["w"] + np.float32(change), "batches": np.array(9, np.int64)} if arrays is None else arrays
    says = {"num-examples": examples, "loss": 1.0, **metrics}
    return ReplyContents([found], [says] if records is None else records, declared)


def kinds(*answers, limits=None, sent=SENT, trained=True):
    """Return the kind of each refusal, or None."""
    judged = judge_answers(answers, sent, limits or ReplyLimits(), trained=trained)
    return [None if refusal is None else refusal.kind for refusal in judged]


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        (answer(arrays={"w": SENT["w"]}), Kind.FORM, "missing ['batches']"),
        (answer(arrays={**SENT, "x": SENT["w"]}), Kind.FORM, "unknown ['x']"),
        (answer(arrays={**SENT, "w": np.zeros(5, np.float32)}), Kind.FORM, "float32(5,)"),
        (answer(arrays={**SENT, "w": np.zeros(4, np.float64)}), Kind.FORM, "float64(4,)"),
        (answer(arrays={**SENT, "w": "no array"}), Kind.FORM, "'no array'"),
        (answer(math.nan), Kind.NOT_FINITE, "NaN or infinity"),
        (answer(math.inf), Kind.NOT_FINITE, "NaN or infinity"),
        (answer(1e20), Kind.NORM, "found 2e+20"),
        (answer(arrays={**SENT, "batches": np.array(2**62)}), Kind.NORM, "batches to change by at most 1000000000"),
        (ReplyContents([], [{"num-examples": 1}]), Kind.FORM, "expected one record of arrays, found 0"),
        (ReplyContents([dict(SENT), dict(SENT)], [{"num-examples": 1}]), Kind.FORM, "one record of arrays, found 2"),
        (answer(records=[]), Kind.FORM, "one record of metrics, found 0"),
        (answer(records=[{"loss": 1.0}]), Kind.COUNT, "found none"),
        (answer(examples=0), Kind.COUNT, "from 1 to 1000000, found 0"),
        (answer(examples=-1000), Kind.COUNT, "found -1000"),
        (answer(examples=1_000_001), Kind.COUNT, "found 1000001"),
        (answer(examples=5.0), Kind.COUNT, "found 5.0"),
        (answer(examples=math.nan), Kind.COUNT, "found nan"),
        (answer(examples=True), Kind.COUNT, "found True"),
        (answer(examples=[5]), Kind.COUNT, "found [5]"),
        (answer(examples=6, declared=5), Kind.COUNT, "from 1 to 5, which it declared, found 6"),
        (answer(loss=math.nan), Kind.METRICS, "a finite number as loss, found nan"),
        (answer(loss=math.inf), Kind.METRICS, "found inf"),
        (answer(loss=[1.0, 2.0]), Kind.METRICS, "one number as loss, found list"),
        (answer(loss=True), Kind.METRICS, "found bool"),
        (answer(mine=1.0), Kind.METRICS, "as most replies have, found loss, mine, num-examples"),
        (answer(records=[{"num-examples": 5}]), Kind.METRICS, "found num-examples"),
        (answer(steps=0), Kind.METRICS, "as steps, found 0"),
        (answer(norm_bit=2), Kind.METRICS, "from 0 to 1 as norm_bit, found 2"),
        (answer(loss=10**400), Kind.METRICS, "within 1e+30 as loss"),
        (answer(loss=10**9999), Kind.METRICS, "within 1e+30 as loss"),
        (answer(loss=-1.7e308), Kind.METRICS, "within 1e+30 as loss"),
        (answer(examples=10**9999), Kind.COUNT, "found a whole number of 33216 bits"),
        (answer(norm_bit=0.5), Kind.METRICS, "as norm_bit, found 0.5"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_kind_and_the_others_pass(bad, kind, words):
    refusals = judge_answers([answer(), bad, answer(2.0), answer(0.0)], SENT, ReplyLimits())
    assert refusals[0] is refusals[2] is refusals[3] is None
    assert refusals[1].kind == kind
    assert words in refusals[1].reason
    assert "expected" in refusals[1].reason


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (answer(loss=-1e-9), "found -1e-09"),
        (answer(loss=11.0), "found 11"),
        (answer(records=[{"num-examples": 5}]), "found none"),
    ],
)
def test_of_two_who_differ_the_one_without_what_the_strategy_computes_with_is_refused(bad, said):
    limits = ReplyLimits(needed={"loss": (0.0, 10.0)})
    honest, refusal = judge_answers([answer(loss=10.0), bad], SENT, limits)
    assert honest is None
    assert refusal.kind == Kind.METRICS
    assert refusal.reason == f"expected loss from 0 to 10, which the strategy computes with, {said}"
    assert kinds(answer(loss=-1.0), limits=limits, trained=False) == [None]


def test_the_largest_and_the_smallest_honest_numbers_pass():
    assert kinds(answer(examples=1), answer(examples=1_000_000), answer(examples=7, declared=7)) == [None] * 3


def test_declared_metrics_are_all_that_may_be_there_even_if_most_have_more():
    limits = ReplyLimits(metrics=frozenset({"loss"}))
    assert kinds(answer(mine=1.0), answer(mine=1.0), answer(), limits=limits) == ["metrics", "metrics", None]


def test_of_as_many_replies_with_and_without_a_metric_those_without_pass():
    assert kinds(answer(mine=1.0), answer()) == ["metrics", None]


def test_answers_to_an_evaluation_need_no_arrays():
    assert kinds(ReplyContents([], [{"num-examples": 2, "loss": 0.5}]), sent=None, trained=False) == [None]


def test_arrays_of_any_form_pass_where_none_were_sent():
    trees = ReplyContents([{"0": np.frombuffer(b"{}", np.uint8)}], [{"num-examples": 2}])
    assert kinds(trees, sent=None) == [None]


def test_a_model_of_zeros_may_move_by_the_root_of_its_size_and_by_a_hundred_medians():
    # ||0|| + sqrt(4) = 2; a change of 1.0 in 4 numbers has the norm 2.
    assert model_length(SENT) == 2.0
    assert kinds(answer(0.001), answer(1.0), answer(0.001)) == [None, None, None]
    assert kinds(answer(0.001), answer(1.001), answer(0.001)) == [None, "norm", None]
    assert kinds(answer(0.5), answer(49.0), answer(0.5)) == [None, None, None]
    assert kinds(answer(0.5), answer(51.0), answer(0.5)) == [None, "norm", None]


def test_a_first_round_in_which_everybody_moves_far_passes():
    assert kinds(*(answer(3e4 + number) for number in range(5))) == [None] * 5


def test_of_two_clients_the_shorter_update_is_the_measure_and_one_alone_may_not_be_absurd():
    assert kinds(answer(0.1), answer(1e5)) == [None, "norm"]
    assert kinds(answer(1e5)) == [None]
    assert kinds(answer(1e7)) == ["norm"]


def test_a_declared_norm_takes_the_place_of_the_rule():
    limits = ReplyLimits(norm=4.0)
    assert kinds(answer(2.0), answer(2.001), answer(2.0), limits=limits) == [None, "norm", None]


def test_liars_in_the_majority_still_cannot_send_absurd_weights():
    assert kinds(answer(), answer(1e20), answer(1e20), answer(1e20)) == [None, "norm", "norm", "norm"]


def test_limits_that_nothing_keeps_are_a_bug():
    for wrong in ({"examples": 0}, {"norm": 0.0}, {"norm": math.nan}, {"outlier_factor": 0.5}):
        with pytest.raises(ValueError, match="limits"):
            ReplyLimits(**wrong)


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20),
    st.floats(1e-3, 1e6),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=5),
)
def test_updates_that_differ_by_less_than_a_hundred_pass_and_the_bound_never_leaves_its_range(norms, length, others):
    honest = np.array([min(norm, 99 * min(norms)) for norm in norms])
    assert (honest <= longest_update(honest, length, ReplyLimits())).all() or honest.max() > 1e6 * length
    assert length <= longest_update(np.array([*honest, *others]), length, ReplyLimits()) <= 1e6 * length


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(1, 1_000_000))
def test_an_answer_is_judged_the_same_whatever_stands_beside_it_in_order(change, examples):
    honest = [answer(0.5), answer(0.7), answer(0.9)]
    one = answer(change, examples)
    assert kinds(one, *honest)[0] == kinds(*honest, one)[-1]


def test_doubles_become_floats_and_what_is_too_large_infinity():
    found = narrowed({"w": np.array([1.5, 1e300]), "n": np.array([1])})
    assert found["w"].dtype == np.float32
    assert found["w"].tolist() == [1.5, math.inf]
    assert found["n"].dtype == np.int64
