"""What each kind of output makes of answers and target values, against independent calculations."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.decode import Fields
from hedgerow.errors import InputError
from hedgerow.outputs import (
    Classes,
    Custom,
    Labels,
    Outputs,
    Reconstruction,
    Tokens,
    Values,
    output_from_fields,
    output_to_record,
)
from hedgerow.reference import Reference, build_reference

CLASSES = Classes(("a", "b", "c"))
LABELS = Labels(("hot", "wet", "loud"))
VALUES = Values(("level", "flow"), tolerance=(0.5, 20.0), unit=("m", "l/s"))
FLAGS = Reconstruction(false_alarm_rate=0.1, threshold=2.0)
TOKENS = Tokens(("<", "x", "y"), positions=4)
ALL = (CLASSES, LABELS, VALUES, FLAGS, TOKENS)


def answers(output, samples, seed=0):
    """Return answers as a model may give them, one of them no number."""
    rng = np.random.default_rng(seed)
    found = rng.random((samples, *output.tensor("o").shape)).astype(np.float32) * 3
    found[samples // 2].flat[0] = np.nan
    return found


def targets(output, samples, seed=1):
    rng = np.random.default_rng(seed)
    if output.target_dtype == "float32":
        return rng.random((samples, *output.target_shape), np.float32)
    return rng.integers(0, 2, (samples, *output.target_shape))


@pytest.mark.parametrize("output", ALL, ids=lambda output: output.kind)
def test_every_kind_scores_between_nought_and_one_and_what_is_no_number_is_worth_nothing(output):
    scores = output.scores(answers(output, 9), targets(output, 9))

    assert (scores.dtype, scores.shape) == (np.float64, (9,))
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert np.isfinite(scores).all()
    if output.kind in {"classes", "labels", "reconstruction"}:
        assert scores[4] == 0


@pytest.mark.parametrize("output", ALL, ids=lambda output: output.kind)
def test_a_model_agrees_with_itself_wherever_it_answers(output):
    given = answers(output, 9)

    assert output.agreement(given, given).tolist() == [1.0] * 9


@pytest.mark.parametrize("output", ALL, ids=lambda output: output.kind)
def test_nothing_is_known_of_a_sample_without_a_target_value(output):
    nothing, wanted = output.unknown(3), targets(output, 3)

    assert (nothing.shape, str(nothing.dtype)) == ((3, *output.target_shape), output.target_dtype)
    assert not output.is_known(nothing).any()
    assert output.is_known(wanted).all()
    assert output.target_mistakes(wanted) == []
    assert output.mistakes() == []


@pytest.mark.parametrize("output", ALL, ids=lambda output: output.kind)
def test_what_is_counted_is_missing_where_the_answer_is_no_number(output):
    columns = output.features("o", answers(output, 9))

    assert columns
    assert all(column.shape == (9,) for column in columns.values())
    assert all(np.isnan(column[4]) and np.isfinite(np.delete(column, 4)).all() for column in columns.values())
    assert set(output.categories("o")) <= set(columns)


@pytest.mark.parametrize("output", ALL, ids=lambda output: output.kind)
def test_what_looks_at_nothing_answers_in_the_shape_of_the_output(output):
    words, answer = output.baseline(targets(output, 20))

    assert words
    assert (answer.shape, answer.dtype) == (output.tensor("o").shape, np.float32)


def test_the_most_frequent_class_is_right_as_often_as_it_occurs():
    wanted = np.array([2, 2, 2, 0, 1])
    words, answer = CLASSES.baseline(wanted)

    assert words == "always 'c', the most frequent class"
    assert CLASSES.scores(np.tile(answer, (5, 1)), wanted).mean() == 0.6


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_the_metrics_of_classes_are_those_of_scikit_learn(samples):
    metrics = pytest.importorskip("sklearn.metrics")
    wanted, said = (np.array([sample[place] for sample in samples]) for place in (0, 1))

    found = CLASSES.metrics(np.eye(3, dtype=np.float32)[said], wanted)

    present = sorted(set(wanted.tolist()))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        wanted, said, labels=present, average="macro", zero_division=0
    )
    assert found == pytest.approx(
        {"accuracy": metrics.accuracy_score(wanted, said), "precision": precision, "recall": recall, "f1": f1}
    )
    assert next(iter(found)) == "accuracy"


def test_classes_are_watched_through_their_winner():
    features = CLASSES.features("output", np.array([[0.2, 0.8, 0], [0.5, 0.5, 0]], np.float32))

    assert features["output.label"].tolist() == [1, 0]
    assert features["output.confidence"].tolist() == pytest.approx([0.8, 0.5], abs=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_confidence_and_no_class(value):
    given = np.array([[value, 0.8, 0], [0.1, 0.9, 0]])
    features = CLASSES.features("output", given)

    assert np.isnan(features["output.confidence"]).tolist() == [True, False]
    assert np.isnan(features["output.label"]).tolist() == [True, False]
    assert CLASSES.predicted(given).tolist() == [-1, 1]
    assert CLASSES.scores(given, np.array([0, 1])).tolist() == [0.0, 1.0]


def test_what_is_no_answer_costs_recall_and_no_precision():
    given = np.array([[0.1, 0.8, 0.1], [np.nan, 0, 0], [0.9, 0, 0.1]], np.float32)

    # Class 1: one of two, and nothing else was called so; class 2: none of one; class 0 does not occur.
    assert CLASSES.metrics(given, np.array([1, 1, 2])) == pytest.approx(
        {"accuracy": 1 / 3, "precision": 1 / 2, "recall": 1 / 4, "f1": 1 / 3}
    )


def test_metrics_of_very_many_classes_need_no_table_of_them():
    many = Classes(range(100_000))  # 80 GB for a table of all pairs
    given = np.zeros((2, 100_000), np.float32)
    given[0, 99_999] = given[1, 3] = 1

    assert many.metrics(given, np.array([99_999, 4]))["accuracy"] == 0.5


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 6), min_size=1, max_size=30))
def test_the_score_of_labels_is_the_f1_of_scikit_learn(samples):
    metrics = pytest.importorskip("sklearn.metrics")
    rows = np.array(samples)
    wanted, said = rows[:, :3], rows[:, 3:]

    found = LABELS.metrics(said.astype(np.float32), wanted)

    assert found["score"] == pytest.approx(metrics.f1_score(wanted, said, average="samples", zero_division=1))
    assert found["f1"] == pytest.approx(metrics.f1_score(wanted, said, average="micro", zero_division=0))
    assert found["all_right"] == pytest.approx(metrics.accuracy_score(wanted, said))


def test_saying_nothing_is_worth_nothing_where_something_is_there():
    wanted = np.array([[1, 0, 0], [0, 0, 0]])

    assert LABELS.scores(np.zeros((2, 3), np.float32), wanted).tolist() == [0.0, 1.0]


def test_a_value_is_worth_less_with_every_part_of_its_tolerance():
    given = np.array([[1.0, 100.0], [1.25, 110.0], [2.0, 150.0], [1.0, np.nan]], np.float32)
    wanted = np.array([[1.0, 100.0]] * 4, np.float32)

    assert VALUES.scores(given, wanted).tolist() == [1.0, 0.5, 0.0, 0.5]
    assert VALUES.errors(given, wanted)[1].tolist() == [0.5, 0.5]


def test_a_value_that_is_not_known_is_left_out_of_its_sample():
    wanted = np.array([[1.0, np.nan], [np.nan, np.nan]], np.float32)

    assert VALUES.scores(np.array([[1.25, 7.0], [1.0, 1.0]], np.float32), wanted).tolist() == [0.5, 0.0]
    assert VALUES.is_known(wanted).tolist() == [True, False]


def test_the_metrics_of_values_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(50, 2)) * (0.5, 20)
    given = wanted + rng.normal(size=(50, 2)) * (0.2, 8)
    scaled = [rows / np.array(VALUES.tolerance) for rows in (wanted, given)]

    found = VALUES.metrics(given, wanted)

    assert found["mae_tolerances"] == pytest.approx(metrics.mean_absolute_error(*scaled))
    assert found["rmse_tolerances"] == pytest.approx(metrics.mean_squared_error(*scaled) ** 0.5)
    assert found["r2"] == pytest.approx(metrics.r2_score(wanted, given))
    assert found["within_tolerance"] == (abs(scaled[0] - scaled[1]) <= 1).mean()


def test_the_median_has_the_best_score_of_all_constants_near_it():
    wanted = np.array([[1.0, 10], [1.1, 11], [1.2, 30], [1.25, 12], [3.0, 13]], np.float32)
    _, answer = VALUES.baseline(wanted)

    assert answer.tolist() == [pytest.approx(1.2), 12.0]


def test_the_metrics_of_flags_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, 2, 60)
    given = (rng.integers(0, 8, 60) / 2 + wanted)[:, None].astype(np.float32)

    found = FLAGS.metrics(given, wanted)

    assert found["auc"] == pytest.approx(metrics.roc_auc_score(wanted, given[:, 0]))
    assert found["false_alarm_rate"] == (given[wanted == 0, 0] >= 2).mean()
    assert found["detection_rate"] == metrics.recall_score(wanted, given[:, 0] >= 2)
    assert found["score"] == metrics.accuracy_score(wanted, given[:, 0] >= 2)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.sampled_from([0.01, 0.05, 0.1, 0.3]))
def test_the_threshold_flags_at_most_the_stated_share_of_normal_samples(scores, rate):
    normal = np.array(scores, np.float32)[:, None] + 1

    flagged = Reconstruction(rate).measured(normal, np.zeros(len(normal), np.int64)).flags(normal)

    assert flagged.mean() <= rate
    # One step lower would flag more than that, or the next lower sample is equal to the last that is not flagged.
    lower = Reconstruction(rate, threshold=float(normal[~flagged].max()))
    assert lower.flags(normal).mean() > rate


@pytest.mark.parametrize(
    ("wanted", "threshold"),
    [
        ([0, 0, 1, -1], 2.0),  # of those that were judged normal, and of no other
        ([-1, -1, 1, 1], 2.0),  # nobody judged one normal
        ([-1, -1, -1, -1], 9.0),
    ],
)
def test_the_threshold_is_measured_on_normal_samples_and_on_unjudged_ones_only_where_there_are_none(wanted, threshold):
    given = np.array([[1.0], [2.0], [5.0], [9.0]], np.float32)

    found = Reconstruction(0.1).measured(given, np.array(wanted))

    assert found.threshold == pytest.approx(threshold * 1.005)
    assert found.flags(given).tolist() == (given[:, 0] > threshold).tolist()
    assert found.measured(given * 2, np.array(wanted)) is found


def test_the_threshold_lies_between_what_is_flagged_and_what_is_not_so_that_rounding_flags_none():
    given = np.array([[1.0], [2.0], [2.01], [9.0]], np.float32)

    found = Reconstruction(0.4).measured(given[:3], np.zeros(3, np.int64))

    assert found.threshold == pytest.approx(2.005)
    assert found.flags(given * 1.001).tolist() == [False, False, True, True]


def test_a_model_that_gives_no_numbers_has_a_threshold_all_the_same_and_is_worth_nothing():
    given = np.full((4, 1), np.nan, np.float32)

    found = Reconstruction().measured(given, np.zeros(4, np.int64))

    assert found.mistakes() == []
    assert found.scores(given, np.zeros(4, np.int64)).tolist() == [0.0] * 4


def test_anomalous_samples_alone_set_no_threshold():
    with pytest.raises(InputError, match="expected normal samples in the held-out data"):
        Reconstruction().measured(np.ones((2, 1), np.float32), np.ones(2, np.int64))


def test_only_what_needs_it_is_measured_and_of_several_outputs_each_by_its_own():
    outputs = Outputs({"state": CLASSES, "anomaly": Reconstruction(0.1)})
    given = {"state": answers(CLASSES, 4), "anomaly": np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)}

    found = outputs.measured(given, {"state": np.zeros(4, np.int64), "anomaly": np.array([0, 0, 0, 1])})

    assert found["state"] is CLASSES
    assert found["anomaly"].threshold == pytest.approx(3.015)
    assert (outputs.can_score, found.can_score) == (False, True)


def test_flags_need_a_threshold():
    with pytest.raises(ValueError, match="expected a threshold, found none"):
        Reconstruction().flags(np.zeros((1, 1)))


def test_the_score_of_a_sequence_is_the_share_of_its_known_positions_that_are_right():
    said = np.array([[0, 1, 2, 1], [0, 0, 0, 0]])
    wanted = np.array([[0, 1, 1, -1], [1, 0, 0, 0]])
    given = np.eye(3, dtype=np.float32)[said]

    assert TOKENS.scores(given, wanted).tolist() == [pytest.approx(2 / 3), 0.75]
    assert TOKENS.metrics(given, wanted)["right_positions"] == 5 / 7


def test_perplexity_is_the_inverse_of_the_geometric_mean_of_what_was_right():
    given = np.full((1, 4, 3), 0.25, np.float32)
    given[0, :, 1] = [0.5, 0.25, 0.5, 0.125]

    assert TOKENS.metrics(given, np.full((1, 4), 1))["perplexity"] == pytest.approx((0.5 * 0.25 * 0.5 * 0.125) ** -0.25)


@pytest.mark.parametrize(
    ("output", "wanted", "sentence"),
    [
        (CLASSES, [0, 3], "the classes must lie in 0..2, found 0..3"),
        (LABELS, [[0, 1, 2]], "each label is 0 or 1, found 2"),
        (VALUES, [[0.0, np.inf]], "they hold NaN or infinity"),
        (FLAGS, [0, 2], "a sample is 0 (normal), 1 (anomalous) or -1 (not judged), found 2"),
        (TOKENS, [[0, 1, 2, 3]], "the tokens must lie in 0..2, or be -1 at padding; found 0..3"),
        (TOKENS, [[-1, -1, -1, -1]], "a sequence has no token that is not padding"),
    ],
)
def test_wrong_target_values_give_one_true_sentence(output, wanted, sentence):
    assert output.target_mistakes(np.array(wanted)) == [sentence]


@pytest.mark.parametrize(
    ("output", "wanted", "notes"),
    [
        (CLASSES, [0, 0], ["holds no sample of b, c"]),
        (CLASSES, [0, 1, 2], []),
        (LABELS, [[1, 0, 1], [1, 0, 0]], ["holds no sample with wet"]),
        (VALUES, [[1.0, 2.0]], []),
        (FLAGS, [0] * 9 + [1] * 90, ["holds 9 normal samples, of which a false-alarm rate of 0.1 flags none; of 10"]),
        (FLAGS, [-1] * 10, []),
        (TOKENS, [[0, 0, 0, 0]], []),
    ],
)
def test_what_may_surprise_in_sound_target_values_is_told(output, wanted, notes):
    found = output.notes(np.array(wanted))

    assert [note.startswith(part) for note, part in zip(found, notes, strict=True)] == [True] * len(notes)


def test_only_what_nobody_called_anomalous_is_learned_from():
    outputs = Outputs({"state": CLASSES, "anomaly": FLAGS})
    wanted = {"state": np.array([0, 1, 2]), "anomaly": np.array([0, 1, -1])}

    assert outputs.learnable(wanted).tolist() == [True, False, True]
    assert all(output.learnable(targets(output, 3)).all() for output in ALL if output is not FLAGS)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (Classes(("a",)), "it needs at least 2 class names, found 1 ('a'); give a list of them"),
        (Classes(("a", "a")), "each class needs a name of its own; found several of 'a'"),
        (Labels(("a", "")), "each label needs a name that is text and not empty, found ''"),
        (Labels(("a",), threshold=1.0), "the threshold must lie between 0 and 1, found 1.0"),
        (Values(("a", "b"), (1.0,)), "it needs a tolerance for each of 2 values, found 1"),
        (Values(("a",), (0.0,)), "each tolerance must lie between 1.17549e-38 and 3.40282e+38, found 0.0"),
        (Values(("a",), (1.0,), ("m", "s")), "it needs a unit for each of 1 values or none, found 2"),
        (Reconstruction(0.5), "the false-alarm rate must lie between 0 and 0.5, found 0.5"),
        (Reconstruction(threshold=-1.0), "the threshold must lie between 1.17549e-38 and 3.40282e+38, found -1.0"),
        (Tokens(("a", "b"), 0), "the positions must hold positive whole numbers, found [0]"),
        (Tokens(("a", ""), 2), "each token needs a name that is text and not empty, found ''"),
        (Tokens("ab", 2), "it needs at least 2 token names, found 1 ('ab'); give a list of them"),
        (Custom((2,), score=0.5), "its score must be a torch function (given, target values), found 0.5"),
    ],
)
def test_a_wrong_output_gives_one_true_sentence(output, sentence):
    assert output.mistakes() == [sentence]


def test_a_space_and_the_end_of_a_line_are_tokens_as_any_character_is():
    output = Tokens((" ", "\n", "a"), 2)

    assert output.mistakes() == []
    assert output_from_fields(Fields(output_to_record(output), "output")) == output


@pytest.mark.parametrize("names", [[str(name) for name in range(100_000)], ["a" * 256, "b"]], ids=["many", "long"])
def test_as_many_and_as_long_names_may_be_given_as_a_record_takes(names):
    output = Classes(names)

    assert output.mistakes() == []
    assert output_from_fields(Fields(output_to_record(output), "output")) == output


@pytest.mark.parametrize("output", ALL, ids=lambda output: output.kind)
def test_only_what_has_one_class_of_each_sample_has_a_table_of_classes(output):
    found = output.classified(answers(output, 9), targets(output, 9))

    assert (found is not None) == (output is CLASSES)
    if found is not None:
        assert (found.names, found.given[4]) == (("a", "b", "c"), -1)
        assert found.wanted.tolist() == targets(output, 9).tolist()


@pytest.mark.parametrize("output", ALL, ids=lambda output: output.kind)
def test_numbers_with_names_have_one_for_each_place_of_the_last_dimension(output):
    assert len(output.part_names) in {0, output.tensor("o").shape[-1]}
    assert bool(output.part_names) == (output is not FLAGS)


@given(
    st.lists(st.floats(0, 1e6, width=32) | st.just(float("nan")), min_size=1, max_size=20),
    st.floats(0.01, 100),
    st.floats(0.01, 100),
)
def test_anomaly_scores_of_another_model_are_flagged_by_its_own_threshold(scores, own, others):
    now, before = Reconstruction(threshold=own), Reconstruction(threshold=others)
    told = np.asarray(scores, np.float32)[:, None]

    translated = now.translated(told, before)

    assert now.is_like(before)
    assert now.flags(translated).tolist() == before.flags(told).tolist()
    wanted = (np.arange(len(scores)) % 2).astype(np.int64)
    assert now.scores(translated, wanted).tolist() == before.scores(told, wanted).tolist()


@pytest.mark.parametrize("output", ALL, ids=lambda output: output.kind)
def test_answers_of_a_model_with_the_same_record_mean_the_same_whatever_its_weight(output):
    told = answers(output, 9)

    assert output.is_like(replace(output, weight=3.0))
    np.testing.assert_array_equal(output.agreement(output.translated(told, output), told), np.ones(9))
    assert not any(output.is_like(other) for other in ALL if other is not output)


def test_a_threshold_that_is_not_there_flags_nothing_to_compare():
    assert not Reconstruction().is_like(Reconstruction(threshold=1.0))
    with pytest.raises(ValueError, match="expected two thresholds"):
        Reconstruction().translated(np.ones((1, 1)), Reconstruction(threshold=1.0))


@pytest.mark.parametrize("output", ALL, ids=lambda output: output.kind)
def test_a_target_value_that_is_not_known_is_no_mistake_and_one_that_is_wrong_is(output):
    assert output.value_mistakes(output.unknown(1)) == []
    assert output.value_mistakes(targets(output, 1)) == []
    wrong = np.full((1, *output.target_shape), np.inf if output.target_dtype == "float32" else 7, output.target_dtype)
    assert len(output.value_mistakes(wrong)) == 1


def test_one_of_several_values_may_be_unknown():
    assert VALUES.value_mistakes(np.asarray([[1.0, np.nan]], np.float32)) == []


def test_guessing_classes_is_right_as_often_as_there_are_fewer_of_them():
    assert CLASSES.chance == pytest.approx(1 / 3)
    assert [output.chance for output in (LABELS, VALUES, FLAGS, TOKENS)] == [0, 0, 0, 0]


def in_both(value):
    return np.float32([[value, 0]]), np.float64(np.float32([[value, 0]]))


def test_an_answer_at_the_threshold_is_the_same_label_in_float32_and_in_a_wider_copy():
    labels = Labels(("a", "b"), threshold=0.7)  # float32 holds 0.699999988
    narrow, wide = in_both(0.7)

    assert labels.predicted(narrow).tolist() == labels.predicted(wide).tolist() == [[1, 0]]
    assert labels.features("o", narrow)["o.labels"].tolist() == [1.0]
    assert labels.scores(wide, np.array([[1, 0]])).tolist() == [1.0]


def test_an_anomaly_at_the_threshold_is_the_same_flag_in_float32_and_in_a_wider_copy():
    flags = Reconstruction(threshold=0.7)
    narrow, wide = in_both(0.7)

    assert flags.flags(narrow).tolist() == flags.flags(wide).tolist() == [True]


@pytest.mark.parametrize(("own", "others"), [(0.7, 0.3), (1e30, 1e-30), (1e-30, 1e30)])
def test_translated_anomaly_scores_are_flagged_as_the_other_model_flagged_them(own, others):
    mine, other = Reconstruction(threshold=own), Reconstruction(threshold=others)
    given = np.float32([[0], [others], [np.nextafter(np.float32(others), np.float32(0))], [1], [np.inf], [np.nan]])

    with np.errstate(over="ignore"):
        translated = mine.translated(given, other)

    assert mine.flags(translated).tolist() == other.flags(given).tolist()


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_no_number_names_no_labels_and_not_all_or_none(value):
    assert LABELS.told(np.float32([value, 0.9, 0.1]))["labels"] is None
    assert LABELS.told(np.float32([0.1, 0.1, 0.1]))["labels"] == []


def test_a_label_that_is_called_labels_does_not_take_the_place_of_their_number():
    found = Labels(("labels", "x")).features("o", np.float32([[0.9, 0.8]]))

    assert {name: column.tolist() for name, column in found.items()} == {"o.labels": [2.0], "o.x": [pytest.approx(0.8)]}


def test_infinite_answers_of_two_models_are_compared_without_a_warning():
    far = np.full((1, 2), np.inf, np.float32)

    with np.errstate(all="raise"):
        assert VALUES.agreement(far, far).tolist() == [1.0]
        assert VALUES.agreement(far, -far).tolist() == [1.0]
        assert VALUES.agreement(far, np.zeros((1, 2), np.float32)).tolist() == [0.0]


SOUND = {
    "labels": lambda **said: Labels(("a",), **said),
    "values": lambda **said: Values(("a",), **{"tolerance": 1.0, **said}),
    "reconstruction": Reconstruction,
    "tokens": lambda **said: Tokens(("a", "b"), **{"positions": 3, **said}),
    "custom": lambda **said: Custom(**{"shape": (2,), **said}),
}


@pytest.mark.parametrize(
    ("kind", "said", "mistake"),
    [
        ("labels", {"threshold": "half"}, "the threshold must be a number, found 'half'"),
        ("labels", {"threshold": None}, "the threshold must be a number, found None"),
        ("labels", {"threshold": 1e-320}, "the threshold must be at least 1.17549e-38, found 1e-320"),
        ("labels", {"threshold": float("nan")}, "the threshold must be a number, found nan"),
        ("labels", {"threshold": True}, "the threshold must be a number, found True"),
        ("values", {"tolerance": "0.1"}, "each tolerance must be a number, found '0.1'"),
        ("values", {"tolerance": None}, "each tolerance must be a number, found None"),
        ("values", {"tolerance": 1e308}, "each tolerance must lie between 1.17549e-38 and 3.40282e+38, found 1e+308"),
        ("values", {"tolerance": 1e-300}, "each tolerance must lie between 1.17549e-38 and 3.40282e+38"),
        ("values", {"tolerance": [0.1, 0.1]}, "a tolerance for each of 1 values, found 2"),
        ("reconstruction", {"false_alarm_rate": None}, "the false-alarm rate must be a number, found None"),
        ("reconstruction", {"false_alarm_rate": 0.5}, "the false-alarm rate must lie between 0 and 0.5, found 0.5"),
        ("reconstruction", {"threshold": "x"}, "the threshold must be a number, found 'x'"),
        ("reconstruction", {"threshold": float("inf")}, "the threshold must be a number, found inf"),
        ("reconstruction", {"threshold": 1e308}, "the threshold must lie between 1.17549e-38 and 3.40282e+38"),
        ("tokens", {"positions": "3"}, "the positions must hold positive whole numbers, found ['3']"),
        ("tokens", {"positions": 3.5}, "the positions must hold positive whole numbers, found [3.5]"),
        ("tokens", {"positions": 2**52}, "the positions must hold at most 16777216 numbers in all"),
        ("custom", {"shape": 3.0}, "the shape must hold positive whole numbers, found [3.0]"),
        ("custom", {"shape": "x"}, "the shape must hold positive whole numbers, found ['x']"),
        ("custom", {"wanted_shape": (2**30, 2**30)}, "the wanted_shape must hold at most 16777216 numbers"),
        ("custom", {"tolerance": "x"}, "the tolerance must be a number, found 'x'"),
        ("custom", {"tolerance": 5e-324}, "the tolerance must lie between 1.17549e-38 and 3.40282e+38"),
    ],
)
def test_a_number_that_no_answer_could_be_held_against_is_a_mistake_in_words(kind, said, mistake):
    (found,) = SOUND[kind](**said).mistakes()

    assert found.startswith(mistake) or mistake in found


@pytest.mark.parametrize("number", [np.float32(0.25), np.float64(0.25), 0.25])
def test_numbers_of_any_type_are_pythons_own_in_a_record(number):
    output = Values(("a",), tolerance=number)

    assert json.dumps([output.to_record(), Custom(shape=np.int64(2), tolerance=number).to_record()])
    assert (output.mistakes(), output.tolerances) == ([], (0.25,))


@pytest.mark.parametrize(
    ("make", "mistake"),
    [
        (lambda: Classes({"a", "b"}), "must be a sequence, whose order says which is which, found a set"),
        (lambda: Classes(["a", "b" * 257]), "a name of at most 256 characters, found one of 257"),
        (lambda: Labels(["a" * 57]), "a name of at most 56 characters, found one of 57"),
        (lambda: Values(["a" * 57], tolerance=1), "a name of at most 56 characters, found one of 57"),
        (lambda: Values(range(4097), tolerance=1), "at most 4,096 value names, found 4,097"),
        (lambda: Classes(range(100_001)), "at most 100,000 class names, found 100,001"),
        (lambda: Tokens(["a", "\ud800"], 1), "a name in Unicode, found half of a surrogate pair"),
    ],
)
def test_names_that_no_record_could_hold_are_a_mistake(make, mistake):
    (found,) = make().mistakes()

    assert mistake in found


@pytest.mark.parametrize("output", [Classes(range(5000)), Values(range(4096), tolerance=1)], ids=lambda o: o.kind)
def test_an_output_of_very_many_parts_is_watched_through_some_that_a_release_and_a_window_can_hold(output):
    outputs = Outputs.of(output)
    (name,) = outputs
    given = {name: np.random.default_rng(0).random((40, *output.tensor(name).shape), np.float32)}

    features = outputs.features(given)

    reference = build_reference(features, {})
    assert Reference.decode(reference.encode()) == reference
    assert len(features) == (1 if output.kind == "classes" else 128)
    assert outputs.categories() == {}


def test_sixteen_outputs_share_what_can_be_watched():
    outputs = Outputs({f"o{place}": Values(range(100), tolerance=1) for place in range(16)})
    given = {name: np.zeros((1, 100), np.float32) for name in outputs}

    features = outputs.features(given)

    assert len(features) == 128
    assert [name for name in features if name.startswith("output.o15.")] == [f"output.o15.{n}" for n in range(8)]


def test_of_very_many_classes_without_a_sample_the_first_are_named():
    assert Classes(range(2000)).notes(np.array([3])) == ["holds no sample of 0, 1, 2, 4, 5, 6, 7, 8 and 1,991 more"]
    assert Labels(range(9)).notes(np.zeros((1, 9), np.int64)) == [
        "holds no sample with 0, 1, 2, 3, 4, 5, 6, 7 and 1 more"
    ]


def scored_by(score):
    return Custom((2,), score=score).scores(np.zeros((3, 2), np.float32), np.zeros(3, np.float32))


def raises(given, wanted):
    raise RuntimeError("no\nscore")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("score", "said"),
    [
        (raises, "it raised RuntimeError: no score$"),
        (lambda given: given, "it raised TypeError: .* takes 1 positional argument but 2 were given"),
        (
            lambda given, wanted: given.requires_grad_().sum().backward(),
            "it raised RuntimeError: .* does not require grad",
        ),
        (lambda given, wanted: 0.5, "expected one score for each of 3 samples, found float"),
        (lambda given, wanted: None, "expected one score for each of 3 samples, found NoneType"),
        (lambda given, wanted: given, r"found the shape \(3, 2\)"),
        (lambda given, wanted: wanted * float("nan"), r"expected scores in \[0, 1\], found nan to nan"),
        (lambda given, wanted: wanted - 1, r"expected scores in \[0, 1\], found -1 to -1"),
    ],
)
def test_a_score_function_that_fails_is_named_by_what_it_did(score, said):
    with pytest.raises(InputError, match=said):
        scored_by(score)


@pytest.mark.heavy
def test_a_score_function_may_compute_in_half_precision_and_change_what_it_got():
    given, wanted = np.ones((3, 2), np.float32), np.ones(3, np.float32)
    custom = Custom((2,), score=lambda given, wanted: (given.zero_()[:, 0] + wanted.zero_() + 0.5).bfloat16())

    assert custom.scores(given, wanted).tolist() == [0.5] * 3
    assert (given.tolist(), wanted.tolist()) == ([[1, 1]] * 3, [1] * 3)


def test_the_last_value_is_scored_where_it_and_the_next_one_are_known():
    nan = np.nan
    wanted = np.array([[1.0, 1.5, nan, 3.0, 3.5], [0.0, 2.0, 2.0, 2.25, 2.25]], np.float32)[..., None]

    # Known pairs: a difference of 0.5 twice, of 2, 0, 0.25 and 0, in tolerances of 1.
    score = Outputs.of(Values(("level",), tolerance=1.0)).last_value_score({"values": wanted})
    assert score == pytest.approx((0.5 + 0.5 + 0.0 + 1.0 + 0.75 + 1.0) / 6)


@pytest.mark.parametrize(
    ("outputs", "wanted"),
    [
        (Outputs.of(CLASSES), {"probabilities": np.zeros((2, 3), np.int64)}),
        (Outputs.of(Values(("level",), tolerance=1.0)), {"values": np.zeros((2, 1, 1), np.float32)}),
        (Outputs.of(Values(("level",), tolerance=1.0)), {"values": np.full((2, 3, 1), np.nan, np.float32)}),
    ],
    ids=["classes", "one step", "unknown"],
)
def test_there_is_no_score_of_the_last_value_where_nobody_forecasts(outputs, wanted):
    assert outputs.last_value_score(wanted) is None
