"""Scores of classifiers, in the counts of right and wrong predictions that tests think in."""

from hedgerow.score_counts import CHANGE_STEPS, PairedScores, ScoreCounts


def scored(correct: int, labelled: int) -> ScoreCounts:
    return ScoreCounts.at({0.0: labelled - correct, 1.0: correct})


def pairs(agreed=0, disagreed=0, both_right=0, only_new_right=0, only_old_right=0, both_wrong=0) -> PairedScores:
    change = {0.0: only_old_right, 0.5: both_right + both_wrong, 1.0: only_new_right}
    return PairedScores(scored(agreed, agreed + disagreed), ScoreCounts.at(change, CHANGE_STEPS))
