"""Tests of hedgerow.server.accounting, by closed formulas and by Flower's own accountant."""

import math
import sys

import pytest

from hedgerow.server.accounting import state_privacy
from hedgerow.server.privacy import NoisyMean, PrivacyTerms

pytest.importorskip("dp_accounting")
pytestmark = pytest.mark.heavy


def means(count, asked=8, nodes=8, noise=1.0):
    return [NoisyMean(nodes=nodes, asked=asked, answered=asked, clip=1.0, noise_std=noise / asked)] * count


def epsilon(count, noise=1.0, delta=1e-5, **cohort):
    terms = PrivacyTerms(kind="server-fixed", noise=noise, delta=delta)
    return state_privacy(terms, means(count, noise=noise, **cohort)).epsilon


def normal(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize(("count", "noise"), [(1, 1.0), (20, 5.0), (100, 30.0)])
def test_when_everybody_takes_part_epsilon_is_that_of_one_gaussian(count, noise):
    # Balle and Wang 2018, theorem 8: mu = sensitivity sqrt(rounds) / sigma; a replaced client has the sensitivity 2.
    mu = 2 * math.sqrt(count) / noise
    found = epsilon(count, noise)
    delta = normal(mu / 2 - found / mu) - math.exp(found) * normal(-mu / 2 - found / mu)
    assert delta == pytest.approx(1e-5, rel=1e-6)


def test_more_rounds_cost_more_and_more_noise_or_a_smaller_share_costs_less():
    assert epsilon(10) < epsilon(20) < epsilon(40)
    assert epsilon(20, 4.0) < epsilon(20, 2.0)
    assert epsilon(20, 4.0, asked=10, nodes=1000) < 0.5 * epsilon(20, 4.0, asked=500, nodes=1000)
    assert epsilon(20, 4.0, asked=500, nodes=1000) <= epsilon(20, 4.0, asked=1000, nodes=1000)


def test_rounds_of_unlike_cohorts_are_composed_each_as_it_was():
    terms = PrivacyTerms(kind="server-fixed", noise=4.0, delta=1e-5)
    mixed = [*means(10, 10, 1000), *means(10, 40, 1000)]
    found = state_privacy(terms, mixed)
    assert epsilon(20, 4.0, asked=10, nodes=1000) < found.epsilon < epsilon(20, 4.0, asked=40, nodes=1000)
    assert found.to_record()["asked"] == [10, 40]
    assert "10 to 40 of 1,000 clients" in found.line()


def test_a_sampled_cohort_costs_what_the_library_says_of_sampling_without_replacement():
    import dp_accounting as dp
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    accountant.compose(dp.SampledWithoutReplacementDpEvent(1000, 10, dp.GaussianDpEvent(2.0)), 50)
    assert epsilon(50, 4.0, asked=10, nodes=1000) == pytest.approx(accountant.get_epsilon(1e-5))


def test_without_noise_it_is_clipping_and_no_epsilon_is_stated():
    found = state_privacy(PrivacyTerms(kind="client-fixed", noise=0.0), means(3))
    assert found.to_record() == {
        "mechanism": "client-fixed", "clip": 1.0, "noise": 0.0, "kind": "clipping", "rounds": 3,
    }  # fmt: skip
    assert "no privacy" in found.line()
    assert "epsilon" not in found.line()


def test_a_statement_names_the_assumptions():
    found = state_privacy(PrivacyTerms(kind="server-adaptive", noise=2.0), means(5, 3, 8))
    record = found.to_record()
    assert record["neighbours"] == "one client's data replaced"
    assert record["sampling"] == "a cohort of fixed size, drawn without replacement"
    assert (record["delta"], record["asked"], record["nodes"], record["rounds"]) == (1e-5, [3, 3], [8, 8], 5)
    assert (record["quantile"], record["rate"], record["kind"]) == (0.5, 0.2, "differential privacy")
    assert f"epsilon {found.epsilon:.4g} at delta 1e-05" in found.line()


def test_without_the_library_epsilon_is_unknown_and_the_reason_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    found = state_privacy(PrivacyTerms(kind="server-fixed"), means(5))
    assert found.epsilon is None
    assert found.to_record()["epsilon"] is None
    assert "install the extra dp" in found.to_record()["reason"]
    assert found.line().startswith("privacy: epsilon unknown (dp-accounting is not installed")


def test_what_the_caller_cannot_account_for_is_unknown():
    found = state_privacy(PrivacyTerms(kind="server-fixed"), means(5), unaccounted="the run was not at its end")
    assert (found.epsilon, found.reason) == (None, "the run was not at its end")


def test_nothing_given_away_costs_nothing_and_next_to_no_noise_has_no_small_epsilon():
    assert state_privacy(PrivacyTerms(kind="server-fixed"), []).epsilon == 0.0
    assert epsilon(5, 1e-4) > 1e6
