"""A gate decides by evidence of quality, errs at most as often as it says, and says what stopped it or is missing."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.fleet.rollout import gates
from hedgerow.fleet.rollout.floors import Floor, measured_floor
from hedgerow.fleet.rollout.gates import Decision, GatePlan, GateVerdict, Judge, measurement_alpha
from hedgerow.outputs import Classes, Custom, Labels, Outputs, Reconstruction, Tokens, Values
from hedgerow.score_counts import CHANGE_STEPS, PairedScores, ScoreCounts
from hedgerow.window import Window
from tests.fleet.exact_evidence import bounds, log_evidence
from tests.scores import pairs, scored

PLAN = GatePlan()
FLOOR = Floor(0.95, "which was asked for")
CLASSES = Outputs.of(Classes(("no", "yes")))
OTHERS = {
    "labels": Outputs.of(Labels(("hot", "wet"))),
    "values": Outputs.of(Values(("level", "flow"), tolerance=1.0)),
    "reconstruction": Outputs.of(Reconstruction(threshold=2.0)),
    "tokens": Outputs.of(Tokens(("lo", "hi"), positions=3)),
    "several": Outputs({"state": Classes(("a", "b")), "level": Values("level", tolerance=1.0)}),
}
"""Every kind that a device scores, but classes."""
CALLED = {
    "labels": ("F1 of the samples", "labelled"),
    "values": ("worth of the values", "scored"),
    "reconstruction": ("share of right flags", "judged"),
    "tokens": ("share of right positions", "scored"),
    "several": ("score", "scored"),
}


def judge(plan, sample, floor, outputs=CLASSES) -> GateVerdict:
    return gates.judge(plan, sample, floor, outputs)


def window(samples: int, *, labelled: int = 0, correct: int = 0, paired: PairedScores | None = None) -> Window:
    return Window(
        release="digits@2",
        index=0,
        started_at=0.0,
        ended_at=1.0,
        samples=samples,
        features={},
        scores=scored(correct, labelled),
        paired=paired or PairedScores(),
    )


def paired(both: int, new: int, old: int, neither: int = 0) -> Window:
    total = both + new + old + neither
    counts = pairs(both + neither, new + old, both, new, old, neither)
    return window(total, labelled=total, correct=both + new, paired=counts)


def test_the_margin_is_two_points():
    assert (PLAN.maximum_accuracy_drop, PLAN.alpha, PLAN.floor) == (0.02, 0.05, None)


def test_no_window_waits():
    assert judge(PLAN, None, FLOOR).decision is Decision.WAIT
    assert judge(PLAN, window(0), FLOOR).decision is Decision.WAIT


@pytest.mark.parametrize("changed", [0, 5, 10, 20])
def test_an_equal_model_above_the_floor_passes_with_2000_paired_samples(changed):
    """Up to 1 % of the samples won and 1 % lost."""
    verdict = judge(PLAN, paired(1950 - 2 * changed, changed, changed, 50), FLOOR)

    assert verdict.decision is Decision.GO, verdict.reason
    assert verdict.evidence["change_low"] > -0.02
    assert verdict.evidence["score_low"] > verdict.evidence["floor"] == 0.95


def test_an_equal_model_that_is_right_about_nothing_is_stopped_by_the_floor():
    """Both models are wrong on all that the devices see: equal, and useless."""
    verdict = judge(PLAN, paired(0, 0, 0, 250), FLOOR)

    assert verdict.decision is Decision.ABORT
    assert verdict.stopped_by is Judge.FLOOR
    assert verdict.reason.startswith("below the floor: accuracy 0.0% (0.0% to ")
    assert "the floor is 95.0%, which was asked for" in verdict.reason
    assert "changed by +0.0 points" in verdict.reason


def test_a_model_that_is_worse_than_the_one_before_is_stopped_by_it_although_it_is_above_the_floor():
    verdict = judge(PLAN, paired(900, 2, 98), Floor(0.8, "which was asked for"))

    assert verdict.decision is Decision.ABORT
    assert verdict.stopped_by is Judge.PREDECESSOR
    assert verdict.reason.startswith("worse than the model before: it changed by -9.6 points")
    assert "accuracy 90.2%" in verdict.reason


def test_broken_weights_are_stopped_by_a_few_samples():
    assert judge(PLAN, paired(3, 0, 17, 0), FLOOR).decision is Decision.ABORT


def test_a_drop_near_the_margin_waits_for_more():
    assert judge(PLAN, paired(965, 5, 25, 5), Floor(0.9, "which was asked for")).decision is Decision.WAIT


def test_to_go_on_both_must_be_convinced():
    better_than_before_but_near_the_floor = paired(900, 60, 0, 40)
    above_the_floor_but_like_before_or_worse = paired(970, 5, 20, 5)

    verdict = judge(PLAN, better_than_before_but_near_the_floor, FLOOR)
    assert verdict.decision is Decision.WAIT
    assert verdict.reason.endswith("a decision needs bounds on one side of the floor's limit")
    verdict = judge(PLAN, above_the_floor_but_like_before_or_worse, Floor(0.9, "which was asked for"))
    assert verdict.decision is Decision.WAIT
    assert verdict.reason.endswith("a decision needs bounds on one side of the model before's limit")


def test_fewer_than_the_minimum_never_pass():
    assert judge(GatePlan(minimum_samples=2000), paired(1999, 0, 0), FLOOR).decision is Decision.WAIT
    assert judge(GatePlan(minimum_samples=2000), paired(2000, 0, 0), FLOOR).decision is Decision.GO


def test_a_first_release_is_held_against_the_floor_alone():
    floor = measured_floor(0.96, 250, PLAN.maximum_accuracy_drop, measurement_alpha(PLAN))
    assert floor.score == pytest.approx(0.908, abs=0.001)

    assert judge(PLAN, window(250, labelled=250, correct=242), floor).decision is Decision.GO
    verdict = judge(PLAN, window(250, labelled=250, correct=150), floor)
    assert (verdict.decision, verdict.stopped_by) == (Decision.ABORT, Judge.FLOOR)
    assert "the 96.0% (at least 92.8%) measured on 250 samples before release less 2 points" in verdict.reason
    assert judge(PLAN, window(250, labelled=250, correct=225), floor).decision is Decision.WAIT


def test_a_measured_floor_takes_its_half_of_the_level():
    """Evidence between 1 / alpha and 2 / alpha stops by a floor that was asked for, and not yet by a measured one."""
    sample = window(100, labelled=100, correct=86)
    asked, measured = Floor(0.945, "which was asked for"), Floor(0.945, "which was measured", measurement_alpha(PLAN))

    assert judge(PLAN, sample, asked).decision is Decision.ABORT
    assert judge(PLAN, sample, measured).decision is Decision.WAIT


def test_without_a_floor_nothing_goes_on_and_the_reason_says_so():
    for evidence in (window(5000, labelled=5000, correct=5000), paired(5000, 0, 0)):
        verdict = judge(PLAN, evidence, None)
        assert verdict.decision is Decision.WAIT
        assert "no accuracy above chance was measured before release, so there is no floor" in verdict.reason
    assert judge(PLAN, paired(900, 2, 98), None).stopped_by is Judge.PREDECESSOR


def test_without_labels_nothing_goes_on_and_the_reason_says_so():
    for plan in (PLAN, GatePlan(maximum_disagreement=0.1)):
        for evidence in (window(99), window(10**6), window(10**6, paired=pairs(agreed=10**6))):
            verdict = judge(plan, evidence, FLOOR)
            assert verdict.decision is Decision.WAIT
            assert "nothing is known of quality" in verdict.reason


def test_without_labels_disagreement_can_stop_a_release():
    plan = GatePlan(maximum_disagreement=0.1)

    verdict = judge(plan, window(300, paired=pairs(agreed=200, disagreed=100)), FLOOR)
    assert (verdict.decision, verdict.stopped_by) == (Decision.ABORT, Judge.DISAGREEMENT)
    assert judge(plan, window(300, paired=pairs(agreed=270, disagreed=30)), FLOOR).decision is Decision.WAIT


def test_plans_and_verdicts_survive_storage():
    for plan in (PLAN, GatePlan(0.01, 0.05, 0.2, 7, 0.9)):
        assert GatePlan.from_fields(Fields(json.loads(json.dumps(plan.to_record())), "plan")) == plan
    for verdict in (judge(PLAN, paired(2000, 0, 0), FLOOR), judge(PLAN, paired(0, 0, 0, 99), FLOOR)):
        assert GateVerdict.from_fields(Fields(json.loads(json.dumps(verdict.to_record())), "verdict")) == verdict


def test_a_plan_that_was_stored_before_there_were_floors_has_none():
    record = PLAN.to_record()
    del record["floor"]

    assert GatePlan.from_fields(Fields(record, "plan")) == PLAN


def test_a_verdict_by_an_unknown_judge_is_refused():
    record = judge(PLAN, paired(0, 0, 0, 99), FLOOR).to_record() | {"stopped_by": "a coin"}

    with pytest.raises(DecodeError, match="stopped_by"):
        GateVerdict.from_fields(Fields(record, "verdict"))


def test_wrong_plans_are_named():
    assert len(GatePlan(0.0, 1.5, 2.0, 0, 1.0).mistakes()) == 5
    assert PLAN.mistakes() == []


# Golden figures: with 50 digits (tests/fleet/exact_evidence.py), or by hand


def test_what_an_operator_reads_of_a_release_that_passes_is_exact():
    verdict = judge(PLAN, window(500, labelled=500, correct=472), Floor(0.9, "which was asked for"))
    assert verdict.reason == (
        "accuracy 94.4% (90.6% to 97.0%) on 500 labelled samples; the floor is 90.0%, which was asked for"
    )
    low, high = bounds((28, 472), 0.05)
    assert verdict.evidence == {
        "samples": 500.0,
        "score": 0.944,
        "score_low": pytest.approx(low, abs=2e-5),
        "score_high": pytest.approx(high, abs=2e-5),
        "floor": 0.9,
    }
    assert (verdict.decision, verdict.stopped_by) == (Decision.GO, None)


@pytest.mark.parametrize(
    ("new", "old", "change", "words"),
    [
        (20, 5, 0.15, "it changed by +15.0 points (-0.2 to +30.8)"),
        (5, 20, -0.15, "it changed by -15.0 points (-30.8 to +0.2)"),
    ],
)
def test_a_change_of_accuracy_has_its_sign_and_its_size(new, old, change, words):
    verdict = judge(PLAN, paired(70, new, old, 5), Floor(0.5, "which was asked for"))
    low, high = bounds((old, 75, new), 0.05, (0, 0.5, 1))
    assert verdict.evidence["change"] == pytest.approx(change)
    assert verdict.evidence["change_low"] == pytest.approx(2 * low - 1, abs=4e-5)
    assert verdict.evidence["change_high"] == pytest.approx(2 * high - 1, abs=4e-5)
    assert f"{words} against the model before on 100 of the same samples; -2.0 points are accepted" in verdict.reason


def test_what_is_accepted_is_said_in_points():
    verdict = judge(replace(PLAN, maximum_accuracy_drop=0.1), paired(70, 5, 20, 5), Floor(0.5, "asked"))
    assert "; -10.0 points are accepted; " in verdict.reason


def test_a_release_goes_on_with_the_first_sample_that_convinces():
    """138 samples of which 4 are wrong are enough at 5 %, and 137 are not."""
    floor = Floor(0.9, "which was asked for")
    assert log_evidence((4, 133), 0.9) < math.log(20) <= log_evidence((4, 134), 0.9) < math.log(40)
    assert judge(PLAN, window(137, labelled=137, correct=133), floor).decision is Decision.WAIT
    assert judge(PLAN, window(138, labelled=138, correct=134), floor).decision is Decision.GO
    assert judge(GatePlan(alpha=0.025), window(138, labelled=138, correct=134), floor).decision is Decision.WAIT


def test_what_a_measured_floor_may_take_of_the_level_is_not_there_to_stop_by():
    """8 wrong ones of 23 speak 33 to 1 against a floor of 90 %: enough for 5 %, too little for 2.5 %."""
    assert math.log(20) < log_evidence((15, 8), 1 - 0.9) < math.log(40)
    sample = window(23, labelled=23, correct=15)
    assert measurement_alpha(GatePlan(alpha=0.05)) == 0.025
    assert judge(PLAN, sample, Floor(0.9, "asked")).decision is Decision.ABORT
    assert judge(PLAN, sample, Floor(0.9, "measured", 0.025)).decision is Decision.WAIT
    assert judge(PLAN, sample, Floor(0.9, "measured", 0.0)).decision is Decision.ABORT


def test_two_judges_stop_by_the_mean_of_their_evidence():
    """400 samples, 40 lost and 10 won: 29 to 1 against the margin, and nothing against the floor."""
    against = log_evidence((10, 350, 40), 0.51, (0, 0.5, 1))
    below = log_evidence((360, 40), 1 - 0.8)
    mean = math.log((math.exp(against) + math.exp(below)) / 2)
    assert mean < math.log(20) < against
    sample, floor = paired(350, 10, 40), Floor(0.8, "which was asked for")
    assert judge(PLAN, sample, floor).decision is Decision.WAIT
    looser = GatePlan(alpha=1.001 * math.exp(-mean))
    assert judge(looser, sample, floor).stopped_by is Judge.PREDECESSOR
    assert judge(GatePlan(alpha=0.999 * math.exp(-mean)), sample, floor).decision is Decision.WAIT


def test_what_an_operator_reads_of_disagreement_is_exact():
    plan = GatePlan(maximum_disagreement=0.1)
    verdict = judge(plan, window(300, paired=pairs(agreed=200, disagreed=100)), FLOOR)
    low, high = bounds((200, 100), 0.05)
    assert verdict.evidence == {
        "samples": 0.0,
        "disagreement": 1 / 3,
        "disagreement_low": pytest.approx(low, abs=2e-5),
        "disagreement_high": pytest.approx(high, abs=2e-5),
    }
    assert verdict.reason == (
        f"too much disagreement: the models disagree on 33.3% ({low:.1%} to {high:.1%}) of 300 samples; "
        "at most 10.0% is accepted"
    )
    waits = judge(plan, window(50, paired=pairs(agreed=45, disagreed=5)), FLOOR)
    assert waits.reason.startswith("the models disagree on 10.0% (")
    assert waits.reason.endswith("of 50 samples; none of 50 samples is labelled, so nothing is known of quality; label "
        "some on these devices, or start the rollout ungated")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "edges", "beyond"),
    [
        ("alpha", (0.0, 1.0), (-0.01, 1.01)),
        ("maximum_accuracy_drop", (0.0, 1.0), (-0.01, 1.01)),
        ("maximum_disagreement", (0.0, 1.0, None), (-0.01, 1.01)),
        ("minimum_samples", (1,), (0,)),
        ("floor", (0.0, 1.0, None), (-0.01, 1.01)),
    ],
)
def test_a_stored_plan_may_hold_its_bounds_and_nothing_beyond_them(name, edges, beyond):
    for value in edges:
        record = {**PLAN.to_record(), name: value}
        assert GatePlan.from_fields(Fields(record, "plan")).to_record() == record
    for value in beyond:
        with pytest.raises(DecodeError, match=name):
            GatePlan.from_fields(Fields({**PLAN.to_record(), name: value}, "plan"))
    with pytest.raises(DecodeError, match="more"):
        GatePlan.from_fields(Fields({**PLAN.to_record(), "more": 1}, "plan"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpha": 0.0}, "gate: alpha must lie between 0 and 1, not 0"),
        ({"alpha": 1.0}, "gate: alpha must lie between 0 and 1, not 1"),
        ({"maximum_accuracy_drop": 0.0}, "gate: maximum_accuracy_drop must lie between 0 and 1, not 0"),
        ({"maximum_accuracy_drop": 1.0}, "gate: maximum_accuracy_drop must lie between 0 and 1, not 1"),
        ({"maximum_disagreement": 0.0}, "gate: maximum_disagreement must lie between 0 and 1, not 0"),
        ({"maximum_disagreement": 1.0}, "gate: maximum_disagreement must lie between 0 and 1, not 1"),
        ({"floor": 0.0}, "gate: floor must lie between 0 and 1, not 0"),
        ({"floor": 1.0}, "gate: floor must lie between 0 and 1, not 1"),
        ({"minimum_samples": 0}, "gate: minimum_samples must be at least 1, not 0"),
    ],
)
def test_a_plan_at_a_bound_that_makes_no_sense_is_named(changes, words):
    assert replace(PLAN, **changes).mistakes() == [words]
    assert replace(PLAN, minimum_samples=1, maximum_disagreement=0.5, floor=0.5).mistakes() == []


@pytest.mark.parametrize(
    ("name", "value"), [("decision", "MAYBE"), ("reason", "x" * 4097), ("evidence", 1), ("more", 1)]
)
def test_a_stored_verdict_is_whole_or_refused(name, value):
    verdict = GateVerdict(Decision.ABORT, "x" * 4096, {"score": -1.5}, stopped_by=Judge.FLOOR)
    assert GateVerdict.from_fields(Fields(verdict.to_record(), "verdict")) == verdict
    with pytest.raises(DecodeError, match=name):
        GateVerdict.from_fields(Fields({**verdict.to_record(), name: value}, "verdict"))


def test_as_many_samples_as_the_minimum_are_enough_of_them():
    verdict = judge(GatePlan(minimum_samples=50), window(50, labelled=50, correct=45), Floor(0.85, "asked"))
    assert verdict.reason == (
        f"{accuracy_in_words(45, 50)}; the floor is 85.0%, asked; a decision needs bounds on one side of the floor's "
        "limit"
    )


def test_a_disagreement_at_the_bound_is_accepted_and_one_above_it_is_not():
    sample = window(300, paired=pairs(agreed=200, disagreed=100))
    low = judge(GatePlan(maximum_disagreement=0.1), sample, FLOOR).evidence["disagreement_low"]
    assert judge(GatePlan(maximum_disagreement=low), sample, FLOOR).decision is Decision.WAIT
    below = GatePlan(maximum_disagreement=math.nextafter(low, 0))
    assert judge(below, sample, FLOOR).decision is Decision.ABORT


def test_what_an_operator_reads_before_there_is_evidence_is_exact():
    for evidence in (None, window(0)):
        found = judge(PLAN, evidence, FLOOR)
        assert found == GateVerdict(
            Decision.WAIT, "no device has sent a window of the new release yet", {"samples": 0.0}
        )
    unlabelled = judge(PLAN, window(7), FLOOR)
    assert unlabelled.evidence == {"samples": 0.0}
    assert unlabelled.reason == (
        "none of 7 samples is labelled, so nothing is known of quality; label some on these devices, or start the "
        "rollout ungated"
    )
    few = judge(PLAN, window(50, labelled=50, correct=50), Floor(0.5, "asked"))
    assert few.reason.endswith("; the floor is 50.0%, asked; a decision needs at least 100 labelled samples")


def accuracy_in_words(right: int, labelled: int) -> str:
    low, high = bounds((labelled - right, right), 0.05)
    return f"accuracy {right / labelled:.1%} ({low:.1%} to {high:.1%}) on {labelled} labelled samples"


def change_in_words(samples: int, new: int, old: int) -> str:
    low, high = bounds((old, samples - new - old, new), 0.05, (0, 0.5, 1))
    change, low, high = (new - old) / samples, 2 * low - 1, 2 * high - 1
    return (
        f"it changed by {change * 100:+.1f} points ({low * 100:+.1f} to {high * 100:+.1f}) against the model before "
        f"on {samples} of the same samples"
    )


MARGIN = "-2.0 points are accepted"
NEEDS = (
    "a decision needs at least 100 labelled samples and bounds on one side of the floor's limit and bounds on one side "
    "of the model before's limit"
)
NO_FLOOR = (
    "no accuracy above chance was measured before release, so there is no floor; start the rollout with one, or ungated"
)


@pytest.mark.parametrize(
    ("sample", "floor", "decision", "parts"),
    [
        (
            paired(0, 0, 0, 250),
            0.95,
            Decision.ABORT,
            (
                f"below the floor: {accuracy_in_words(0, 250)}",
                "the floor is 95.0%, asked",
                change_in_words(250, 0, 0),
            ),
        ),
        (
            window(250, labelled=250, correct=100),
            0.95,
            Decision.ABORT,
            (f"below the floor: {accuracy_in_words(100, 250)}", "the floor is 95.0%, asked"),
        ),
        (
            paired(300, 2, 98),
            0.7,
            Decision.ABORT,
            (f"worse than the model before: {change_in_words(400, 2, 98)}", MARGIN, accuracy_in_words(302, 400)),
        ),
        (
            paired(300, 2, 98),
            None,
            Decision.ABORT,
            (f"worse than the model before: {change_in_words(400, 2, 98)}", MARGIN),
        ),
        (window(500, labelled=500, correct=472), None, Decision.WAIT, ("500 labelled samples came", NO_FLOOR)),
        (paired(450, 1, 1, 48), None, Decision.WAIT, (change_in_words(500, 1, 1), MARGIN, NO_FLOOR)),
        (
            paired(45, 1, 1, 3),
            0.85,
            Decision.WAIT,
            (
                accuracy_in_words(46, 50),
                "the floor is 85.0%, asked",
                change_in_words(50, 1, 1),
                MARGIN,
                NEEDS,
            ),
        ),
        (
            paired(450, 1, 1, 48),
            0.85,
            Decision.GO,
            (accuracy_in_words(451, 500), "the floor is 85.0%, asked", change_in_words(500, 1, 1), MARGIN),
        ),
    ],
)
def test_what_an_operator_reads_of_a_decision_is_one_sentence_with_what_it_rests_on(sample, floor, decision, parts):
    verdict = judge(PLAN, sample, None if floor is None else Floor(floor, "asked"))
    assert (verdict.decision, verdict.reason) == (decision, "; ".join(parts))


def spread_window(mean: float, change: float, samples: int = 400) -> Window:
    """Scores a tenth below and above *mean*, and changes a tenth below and above *change*."""
    half = samples // 2
    halves = [(1 + change + aside) / 2 for aside in (-0.1, 0.1)]
    return replace(
        window(samples),
        scores=ScoreCounts.at({mean - 0.1: half, mean + 0.1: half}),
        paired=PairedScores(ScoreCounts.at({0.9: samples}), ScoreCounts.at(dict.fromkeys(halves, half), CHANGE_STEPS)),
    )


@pytest.mark.parametrize("kind", OTHERS)
def test_a_gate_passes_an_equal_release_stops_a_worse_one_and_calls_the_score_by_its_name(kind):
    name, known = CALLED[kind]
    plan, floor = replace(PLAN, maximum_accuracy_drop=0.1), Floor(0.6, "asked")

    equal = judge(plan, spread_window(0.75, 0.0), floor, OTHERS[kind])
    worse = judge(plan, spread_window(0.75, -0.3), floor, OTHERS[kind])
    low = judge(plan, spread_window(0.3, 0.0), floor, OTHERS[kind])

    assert (equal.decision, equal.stopped_by) == (Decision.GO, None), equal.reason
    assert equal.reason.startswith(f"{name} 75.0% (")
    assert f") on 400 {known} samples; the floor is 60.0%, asked; it changed by +0.0 points" in equal.reason
    assert (worse.decision, worse.stopped_by) == (Decision.ABORT, Judge.PREDECESSOR)
    assert worse.reason.startswith("worse than the model before: it changed by -30.0 points (")
    assert (low.decision, low.stopped_by) == (Decision.ABORT, Judge.FLOOR)
    assert low.reason.startswith(f"below the floor: {name} 30.0% (")
    assert "accuracy" not in equal.reason + worse.reason + low.reason


@pytest.mark.parametrize("kind", ["labels", "values", "tokens", "several"])
def test_without_scores_nothing_goes_on_whatever_the_models_agree_on(kind):
    plan = GatePlan(maximum_disagreement=0.2)
    verdict = judge(plan, window(5000, paired=pairs(agreed=5000)), Floor(0.6, "asked"), OTHERS[kind])

    asked = "label some" if kind == "labels" else "give target values"
    assert verdict.decision is Decision.WAIT
    assert verdict.reason.endswith(
        f"none of 5000 samples is {CALLED[kind][1]}, so nothing is known of quality; {asked} on these devices, or "
        "start the rollout ungated"
    )


BY_AGREEMENT = {
    "custom": (Outputs.of(Custom((2,))), "no answer is scored on devices"),
    "reconstruction": (OTHERS["reconstruction"], "none of them is judged"),
    "no threshold": (Outputs.of(Reconstruction()), "no answer is scored on devices"),
    "several": (Outputs({"state": Classes(("a", "b")), "mood": Custom((2,))}), "no answer is scored on devices"),
}


@pytest.mark.parametrize("kind", BY_AGREEMENT)
def test_where_no_score_need_come_agreement_alone_decides_and_the_verdict_says_so(kind):
    outputs, why = BY_AGREEMENT[kind]
    plan = GatePlan(maximum_disagreement=0.2)

    def by(agreed, disagreed):
        return judge(plan, window(agreed + disagreed, paired=pairs(agreed, disagreed)), None, outputs)

    alike, unlike, near, few = by(380, 20), by(200, 200), by(330, 70), by(50, 0)
    alone = f"400 samples came; {why}, so that agreement with the model before alone decides; the models disagree on "

    assert (alike.decision, alike.stopped_by) == (Decision.GO, None)
    assert alike.reason.startswith(f"{alone}5.0% (")
    assert alike.reason.endswith(") of 400 samples; at most 20.0% is accepted")
    low, high = bounds((380, 20), 0.05)
    assert (alike.evidence["disagreement_low"], alike.evidence["disagreement_high"]) == (
        pytest.approx(low, abs=2e-5),
        pytest.approx(high, abs=2e-5),
    )
    assert (unlike.decision, unlike.stopped_by) == (Decision.ABORT, Judge.DISAGREEMENT)
    assert unlike.reason.startswith(f"too much disagreement: {alone}50.0% (")
    assert near.decision is Decision.WAIT
    assert near.reason.endswith("; at most 20.0% is accepted; a decision needs bounds on one side of that limit")
    assert few.decision is Decision.WAIT
    assert few.reason.endswith("; a decision needs at least 100 compared samples")


@pytest.mark.parametrize("kind", BY_AGREEMENT)
def test_agreement_alone_decides_nothing_without_a_bound_or_a_comparison(kind):
    outputs, why = BY_AGREEMENT[kind]
    unbounded = judge(GatePlan(), window(400, paired=pairs(400)), None, outputs)
    alone = judge(GatePlan(maximum_disagreement=0.2), window(400), None, outputs)

    begin = f"400 samples came; {why}, so that agreement with the model before alone decides"
    assert (unbounded.decision, alone.decision) == (Decision.WAIT, Decision.WAIT)
    assert unbounded.reason == f"{begin}; start the rollout with a bound on disagreement, or ungated"
    assert alone.reason == (
        f"{begin}, and no device compared them: none ran a model before, or its inputs or outputs are others"
    )


def test_flags_that_somebody_has_judged_are_scores_and_decide():
    outputs = OTHERS["reconstruction"]
    plan = GatePlan(maximum_disagreement=0.2)
    sample = window(500, labelled=300, correct=150, paired=pairs(agreed=500))

    verdict = judge(plan, sample, Floor(0.9, "asked"), outputs)

    assert (verdict.decision, verdict.stopped_by) == (Decision.ABORT, Judge.FLOOR)


def test_a_release_that_agrees_as_little_as_is_accepted_passes_at_most_as_often_as_alpha():
    """A thousand rollouts of 400 samples, each looked at after every 20; the truth lies at the bound."""
    rng, passed = np.random.default_rng(11), 0
    plan, outputs = GatePlan(maximum_disagreement=0.2), BY_AGREEMENT["custom"][0]
    for _ in range(1000):
        unlike = np.cumsum(rng.binomial(20, 0.2, 20))
        for look, disagreed in enumerate(unlike.tolist(), start=1):
            found = judge(plan, window(20 * look, paired=pairs(20 * look - disagreed, disagreed)), None, outputs)
            if found.decision is not Decision.WAIT:
                passed += found.decision is Decision.GO
                break

    assert passed / 1000 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)
