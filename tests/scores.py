"""Scores of classifiers, in the counts of right and wrong predictions that tests think in."""

from hedgerow.score_counts import CHANGE_STEPS, PairedScores, ScoreCounts


def scored(correct: int, labelled: int) -> ScoreCounts:
    return ScoreCounts.at({0.0: labelled - correct, 1.0: correct})


def pairs(agreed=0, disagreed=0, both_right=0, only_new_right=0, only_old_right=0, both_wrong=0) -> PairedScores:
    change = {0.0: only_old_right, 0.5: both_right + both_wrong, 1.0: only_new_right}
    return PairedScores(scored(agreed, agreed + disagreed), ScoreCounts.at(change, CHANGE_STEPS))


def known_and_right(scores: ScoreCounts) -> tuple[int, float]:
    """Return how many predictions were scored, and the sum of their scores: of classes, how many were right."""
    return scores.samples, scores.total


def compared(paired: PairedScores) -> tuple[float, float, float, float]:
    """Return (agreed, disagreed, only the new one right, only the old one right) of two classifiers."""
    agreement, change = paired.agreement.counts, paired.change.counts
    return agreement[-1], agreement[0], change[-1], change[0]
