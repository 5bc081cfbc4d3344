"""What a run's noisy means cost in privacy: epsilon by ``dp-accounting`` (extra ``dp``), or why it is unknown.

Two data sets are neighbours if they differ in all data of one client: one client is replaced by another, for their
number is known to everybody. Each round draws a cohort of a fixed size without replacement, and is accounted for as
that (Wang et al. 2019, arXiv 1808.00087, theorem 27), not as Poisson sampling. A replaced client moves a sum of clipped
updates by up to twice the norm, so the noise is half as large in units of what it must hide. Where it is tighter, as it
is when everybody takes part, the bound without sampling is stated: the Gaussian mechanism composes exactly (Dong et al.
2022, arXiv 1905.02383).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hedgerow.server.privacy import NoisyMean, PrivacyTerms

__all__ = ["PrivacyStatement", "state_privacy"]

_NEIGHBOURS = "one client's data replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyStatement:
    """What can be said of a run.

    Attributes:
        terms: What was asked for.
        rounds: So many gave something away.
        epsilon: What all of them together cost; None: unknown, or there is no noise.
        delta: The delta that epsilon holds at.
        reason: Why epsilon is unknown; empty if it is known.
        cohorts: The smallest and the largest number of clients that were asked in a round, and that were there.
    """

    terms: PrivacyTerms
    rounds: int
    epsilon: float | None
    delta: float
    reason: str
    cohorts: tuple[int, int, int, int]

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        least, most, fewest, largest = self.cohorts
        if not self.terms.is_private:
            return {**self.terms.to_record(), "kind": "clipping", "rounds": self.rounds}
        return {
            **self.terms.to_record(),
            "kind": "differential privacy",
            "epsilon": self.epsilon,
            "delta": self.delta,
            "neighbours": _NEIGHBOURS,
            "sampling": "a cohort of fixed size, drawn without replacement",
            "asked": [least, most],
            "nodes": [fewest, largest],
            "rounds": self.rounds,
            "covers": "the weights of all rounds",
            **({"reason": self.reason} if self.reason else {}),
        }

    def line(self) -> str:
        """Return what people are shown."""
        terms = self.terms
        if not terms.is_private:
            return f"clipping: updates were clipped ({terms.kind}); noise 0 was asked for, so this is no privacy"
        least, most, fewest, largest = self.cohorts
        asked = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        nodes = f"{largest:,}" if fewest == largest else f"{fewest:,} to {largest:,}"
        ran = f"noise {terms.noise:g}, {self.rounds:,} rounds, {asked} of {nodes} clients drawn without replacement"
        if self.epsilon is None:
            return f"privacy: epsilon unknown ({self.reason}); {ran}"
        return (
            f"privacy: epsilon {self.epsilon:.4g} at delta {self.delta:.3g} for {_NEIGHBOURS}; {ran}; it covers the "
            "weights"
        )


def state_privacy(terms: PrivacyTerms, means: Sequence[NoisyMean], *, unaccounted: str = "") -> PrivacyStatement:
    """Return the statement of a run.

    Args:
        terms: What was asked for.
        means: What each round gave away.
        unaccounted: Why epsilon cannot be known, if the caller knows a reason.
    """
    asked = [mean.asked for mean in means] or [0]
    nodes = [mean.nodes for mean in means] or [0]
    delta = terms.stated_delta(max(nodes))
    epsilon, reason = None, unaccounted
    if terms.is_private and not unaccounted:
        epsilon, reason = _epsilon(terms, means, delta)
    return PrivacyStatement(
        terms=terms,
        rounds=len(means),
        epsilon=epsilon,
        delta=delta,
        reason=reason if terms.is_private else "",
        cohorts=(min(asked), max(asked), min(nodes), max(nodes)),
    )


def _epsilon(terms: PrivacyTerms, means: Sequence[NoisyMean], delta: float) -> tuple[float | None, str]:
    if not means:
        return 0.0, ""
    try:
        import dp_accounting
        from dp_accounting.rdp import RdpAccountant
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in {
            "dp_accounting",
            "attr",
            "attrs",
            "absl",
            "scipy",
            "mpmath",
            "tree",
        }:
            raise
        return None, "dp-accounting is not installed; install the extra dp"
    multiplier = terms.noise / 2
    exact = dp_accounting.get_epsilon_gaussian(multiplier / math.sqrt(len(means)), delta)
    accountant = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
    gaussian = dp_accounting.GaussianDpEvent(multiplier)
    for (asked, nodes), count in Counter((mean.asked, mean.nodes) for mean in means).items():
        event = dp_accounting.SampledWithoutReplacementDpEvent(max(nodes, asked), asked, gaussian)
        accountant.compose(event, count)
    found = min(float(exact), float(accountant.get_epsilon(delta)))
    return (found, "") if math.isfinite(found) else (None, "there is too little noise for a finite one")
