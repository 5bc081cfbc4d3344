"""A gate decides by evidence, errs at most as often as it says, and says what is missing."""

import json

import numpy as np
import pytest

from hedgerow.decode import Fields
from hedgerow.fleet.gates import Decision, GatePlan, GateVerdict, judge
from hedgerow.window import PairedCounts, Window

PLAN = GatePlan()


def window(samples: int, *, labelled: int = 0, correct: int = 0, paired: PairedCounts | None = None) -> Window:
    return Window(
        release="digits@2",
        index=0,
        started_at=0.0,
        ended_at=1.0,
        samples=samples,
        features={},
        labelled=labelled,
        correct=correct,
        paired=paired or PairedCounts(),
    )


def paired(both: int, new: int, old: int, neither: int = 0) -> Window:
    total = both + new + old + neither
    counts = PairedCounts(both + neither, new + old, both, new, old, neither)
    return window(total, labelled=total, correct=both + new, paired=counts)


def test_no_window_waits():
    assert judge(PLAN, None, 0.9).decision is Decision.WAIT
    assert judge(PLAN, window(0), 0.9).decision is Decision.WAIT


@pytest.mark.parametrize("changed", [0, 2, 5, 7, 10])
def test_an_equal_model_passes_with_250_paired_samples(changed):
    """Up to 4 % of the samples won and 4 % lost: 8 % disagreement."""
    verdict = judge(PLAN, paired(250 - 2 * changed, changed, changed), 0.97)
    assert verdict.decision is Decision.GO, verdict.reason
    assert verdict.evidence["change_low"] > -0.1


def test_broken_weights_are_stopped_by_a_few_samples():
    assert judge(PLAN, paired(3, 0, 17, 0), 0.97).decision is Decision.ABORT


def test_a_drop_within_the_bounds_waits_for_more():
    assert judge(PLAN, paired(225, 2, 23), 0.97).decision is Decision.WAIT


def test_fewer_than_the_minimum_never_pass():
    assert judge(GatePlan(minimum_samples=1000), paired(999, 0, 0), 0.97).decision is Decision.WAIT
    assert judge(GatePlan(minimum_samples=1000), paired(1000, 0, 0), 0.97).decision is Decision.GO


def test_paired_evidence_goes_before_the_expected_accuracy():
    """Both models are wrong on half of what the devices see: the new one is not to blame."""
    assert judge(PLAN, paired(125, 1, 1, 123), 0.97).decision is Decision.GO


def test_a_first_release_is_held_against_its_measured_accuracy():
    assert judge(PLAN, window(250, labelled=250, correct=240), 0.96).decision is Decision.GO
    assert judge(PLAN, window(250, labelled=250, correct=150), 0.96).decision is Decision.ABORT
    assert judge(PLAN, window(250, labelled=250, correct=215), 0.96).decision is Decision.WAIT


def test_labels_without_anything_to_compare_with_wait_and_say_so():
    verdict = judge(PLAN, window(500, labelled=500, correct=490), None)
    assert verdict.decision is Decision.WAIT
    assert "expected accuracy" in verdict.reason


def test_without_labels_a_bound_on_disagreement_decides():
    plan = GatePlan(maximum_disagreement=0.1)
    assert judge(plan, window(300, paired=PairedCounts(agreed=290, disagreed=10)), None).decision is Decision.GO
    assert judge(plan, window(300, paired=PairedCounts(agreed=200, disagreed=100)), None).decision is Decision.ABORT
    assert judge(plan, window(300, paired=PairedCounts(agreed=270, disagreed=30)), None).decision is Decision.WAIT


def test_a_bound_on_disagreement_without_comparisons_waits_and_says_what_is_missing():
    verdict = judge(GatePlan(maximum_disagreement=0.1), window(5000), None)
    assert verdict.decision is Decision.WAIT
    assert "neither labels nor comparisons" in verdict.reason


def test_without_any_quality_evidence_install_results_decide_and_the_reason_says_so():
    assert judge(PLAN, window(99), None).decision is Decision.WAIT
    verdict = judge(PLAN, window(100), None)
    assert verdict.decision is Decision.GO
    assert "no evidence of quality" in verdict.reason


def test_plans_and_verdicts_survive_storage():
    for plan in (PLAN, GatePlan(0.01, 0.05, 0.2, 7)):
        assert GatePlan.from_fields(Fields(json.loads(json.dumps(plan.to_record())), "plan")) == plan
    verdict = judge(PLAN, paired(240, 5, 5), 0.97)
    assert GateVerdict.from_fields(Fields(json.loads(json.dumps(verdict.to_record())), "verdict")) == verdict


def test_wrong_plans_are_named():
    assert len(GatePlan(0.0, 1.5, 2.0, 0).mistakes()) == 4
    assert PLAN.mistakes() == []


def _decisions(shares: tuple[float, float, float, float], runs: int, looks: int, seed: int) -> tuple[float, float]:
    """Peek after every 50 samples; return the shares of runs that ever said ABORT and GO first."""
    rng = np.random.default_rng(seed)
    ended = {Decision.GO: 0, Decision.ABORT: 0}
    for _ in range(runs):
        counts = rng.multinomial(50, shares, size=looks).cumsum(axis=0)
        for both, new, old, neither in counts.tolist():
            decision = judge(PLAN, paired(both, new, old, neither), None).decision
            if decision is not Decision.WAIT:
                ended[decision] += 1
                break
    return ended[Decision.ABORT] / runs, ended[Decision.GO] / runs


@pytest.mark.heavy
@pytest.mark.parametrize("discordant", [0.02, 0.1, 0.4])
def test_an_equal_model_is_rarely_aborted_however_often_one_looks(discordant):
    shares = (1 - discordant - 0.02, discordant / 2, discordant / 2, 0.02)
    aborted, passed = _decisions(shares, runs=400, looks=60, seed=3)
    assert aborted <= PLAN.alpha
    assert passed >= 0.95  # and does not wait for ever


@pytest.mark.heavy
@pytest.mark.parametrize("won", [0.0, 0.01, 0.1])
def test_a_model_at_the_margin_or_worse_rarely_passes_however_often_one_looks(won):
    for drop in (0.1, 0.13):
        _, passed = _decisions((0.8 - drop - won, won, won + drop, 0.2 - won), runs=400, looks=60, seed=4)
        assert passed <= PLAN.alpha


@pytest.mark.heavy
def test_a_model_that_fell_by_thirty_points_is_stopped_within_250_samples():
    aborted, passed = _decisions((0.65, 0.0, 0.3, 0.05), runs=300, looks=5, seed=5)
    assert aborted >= 0.99
    assert passed == 0


@pytest.mark.heavy
@pytest.mark.parametrize(("truth", "wrong"), [(0.96, Decision.ABORT), (0.86, Decision.GO)])
def test_the_unpaired_gate_keeps_its_level_too(truth, wrong):
    rng, errors = np.random.default_rng(6), 0
    for _ in range(400):
        right = rng.binomial(50, truth, size=40).cumsum().tolist()
        for look, correct in enumerate(right, start=1):
            decision = judge(PLAN, window(50 * look, labelled=50 * look, correct=correct), 0.96).decision
            if decision is not Decision.WAIT:
                errors += decision is wrong
                break
    assert errors / 400 <= PLAN.alpha
