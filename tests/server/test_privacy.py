"""Tests of hedgerow.server.privacy: what a wrapper's options mean, and what is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import UnknownNameError
from hedgerow.server.errors import StrategyOptionError
from hedgerow.server.privacy import PRIVACY, PrivacyTerms, next_norm, parse_privacy


def parsed(kind, text="", **rest):
    return parse_privacy(f"fedavg+{kind}:{text}", kind, text, **rest)


@pytest.mark.parametrize("kind", PRIVACY)
def test_without_options_there_is_noise(kind):
    terms = parsed(kind)
    assert (terms.kind, terms.clip, terms.noise, terms.is_private) == (kind, 1.0, 1.0, True)
    assert (terms.by_client, terms.adaptive) == (kind.startswith("client"), kind.endswith("adaptive"))


def test_noise_of_zero_must_be_asked_for_and_is_no_privacy():
    assert not parsed("server-fixed", "noise=0").is_private


def test_every_option_is_read():
    terms = parsed("server-adaptive", "clip=0.5,noise=2,quantile=0.7,rate=0.1,count-noise=3,delta=1e-6")
    assert terms == PrivacyTerms(
        kind="server-adaptive", clip=0.5, noise=2.0, quantile=0.7, rate=0.1, count_noise=3.0, delta=1e-6
    )


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("server-fixed", "clip=0", "clip=0, which is not above 0"),
        ("server-fixed", "clip=-1", "clip=-1"),
        ("server-fixed", "clip=nan", "clip=nan, which is no finite number"),
        ("server-fixed", "clip=inf", "clip=inf, which is no finite number"),
        ("server-fixed", "clip=1e9", "at most 1e+06"),
        ("server-fixed", "noise=-0.5", "noise=-0.5, which is not 0 and not from"),
        ("server-fixed", "noise=1e-160", "noise=1e-160, which is not 0 and not from 0.001 to 1e+06"),
        ("server-adaptive", "noise=1e-320", "not from 0.001 to 1e+06"),
        ("server-fixed", "noise=nan", "noise=nan, which is no finite number"),
        ("server-fixed", "noise=-inf", "no finite number"),
        ("server-fixed", "noise", "no number"),
        ("server-fixed", "noise=1,noise=0", "the option noise twice"),
        ("server-fixed", "delta=0", "delta=0.0, which is not between 0 and 1"),
        ("server-fixed", "delta=1", "delta=1.0, which is not between 0 and 1"),
        ("server-fixed", "quantile=0.5", "an option 'quantile' (there are clip, noise, delta)"),
        ("server-fixed", "clip=1,", "an option ''"),
        ("server-adaptive", "quantile=1.1", "quantile=1.1"),
        ("server-adaptive", "rate=0", "rate=0"),
        ("server-adaptive", "rate=nan", "no finite number"),
        ("server-adaptive", "count-noise=-1", "count-noise=-1.0, which is not from 0 to 1e+06"),
        ("server-adaptive", "count-noise=1e300", "count-noise=1e+300, which is not from 0 to 1e+06"),
        ("server-adaptive", "count-noise=0.5", "must be above 0.5, half of the noise"),
        ("server-adaptive", "count-noise=0", "must be above 0.5"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(kind, text, words):
    with pytest.raises(StrategyOptionError) as caught:
        parsed(kind, text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("unclipped", "factor"),
    [(0.5, 1.0), (1.0, math.exp(-0.5)), (0.0, math.exp(0.5)), (1e6, math.exp(-0.5)), (-1e6, math.exp(0.5))],
)
def test_the_norm_moves_by_the_share_however_far_noise_carries_it(unclipped, factor):
    assert next_norm(parsed("server-adaptive", "rate=1"), 2.0, unclipped) == pytest.approx(2.0 * factor)
    assert next_norm(parsed("server-fixed", ""), 2.0, unclipped) == 2.0


def test_the_norm_stays_a_number_after_any_number_of_rounds():
    terms = parsed("server-adaptive", "rate=10,quantile=1")
    largest = smallest = 1.0
    for _round in range(1_000):
        largest = next_norm(terms, largest, 0.0)
        smallest = next_norm(parsed("server-adaptive", "rate=10,quantile=0"), smallest, 1.0)
    assert (largest, smallest) == (1e6, 1e-6)


def test_an_unknown_wrapper_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean 'client-fixed'"):
        parsed("client-fixd")


@given(noise=st.floats(1e-3, 1e3), clients=st.integers(1, 10_000))
def test_noise_on_updates_and_on_the_count_make_the_stated_noise_together(noise, clients):
    terms = PrivacyTerms(kind="server-adaptive", noise=noise)
    updates, count = terms.noise_on_updates(clients), terms.noise_on_count(clients)
    # Two Gaussian mechanisms compose as one: 1/z^2 = 1/z_u^2 + 1/z_b^2, and a bit has the sensitivity 1/2.
    assert 1 / noise**2 == pytest.approx(1 / updates**2 + 1 / (2 * count) ** 2)
    assert noise <= updates <= 1.16 * noise


def test_delta_is_below_one_in_the_number_of_clients():
    terms = PrivacyTerms(kind="server-fixed")
    assert [terms.stated_delta(clients) for clients in (1, 10_000, 1_000_000)] == pytest.approx([1e-5, 1e-5, 1e-7])
    assert PrivacyTerms(kind="server-fixed", delta=1e-3).stated_delta(10**9) == 1e-3
    assert math.isclose(PrivacyTerms(kind="server-fixed").stated_delta(0), 1e-5)
