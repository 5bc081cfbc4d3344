from dataclasses import replace

import numpy as np
import pytest

from hedgerow.compile.errors import CompileError, VerificationError
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.recipes import find_recipe
from hedgerow.compile.scoring import signal_to_noise_db
from hedgerow.compile.verify import (
    Measured,
    judge_artifact,
    judge_file,
    verify_artifact,
    verify_train_graph,
)
from hedgerow.hardware.fit import OperatorUse
from hedgerow.hardware.lookup import load_target
from hedgerow.outputs import Classes, Custom, Outputs, Reconstruction, Values

TARGET = load_target("raspberry-pi-4")
RECIPE = find_recipe(TARGET.recipe)
LABELS = np.arange(200, dtype=np.int64) % 10
FACTS = FileFacts(
    operators=frozenset({"Conv", "Softmax"}),
    number_types=frozenset({"float32", "int8"}),
    quantized_weights=990,
    float_weights=10,
)


def probabilities(wrong: int = 0) -> np.ndarray:
    """One-hot-like outputs, of which the first *wrong* name the next class."""
    chosen = (LABELS + (np.arange(200) < wrong)) % 10
    return np.where(np.arange(10) == chosen[:, None], 0.91, 0.01).astype(np.float32)


GOOD = Measured(
    size_bytes=300,
    float_bytes=1000,
    facts=FACTS,
    outputs=Outputs.of(Classes(tuple("abcdefghij"))),
    wanted={"probabilities": LABELS},
    float_answers={"probabilities": probabilities()},
    answers={"probabilities": probabilities() + np.float32(0.001)},
    replay_difference=0.0,
    replay_tolerance=0.01,
)


def refused(check: str, **changes) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        verify_artifact(TARGET, RECIPE, replace(GOOD, **changes), max_drop=0.015)
    error = caught.value
    assert isinstance(error, CompileError)
    assert (error.subject, error.check) == ("raspberry-pi-4", check)
    assert error.expected in str(error)
    assert error.found in str(error)
    return error


def test_a_good_artifact_passes_every_check():
    verdict = verify_artifact(TARGET, RECIPE, GOOD, max_drop=0.015)
    assert list(verdict.checks) == [
        "size", "quantized", "weights", "storage", "operators", "operator versions", "number types", "accuracy",
        "parity", "golden",
    ]  # fmt: skip
    assert set(verdict.checks.values()) == {"passed"}
    assert verdict.metrics["accuracy"] == verdict.metrics["float_accuracy"] == 1.0
    assert verdict.metrics["agreement"] == 1.0
    assert (verdict.metrics["bytes"], verdict.metrics["float_bytes"]) == (300, 1000)
    assert verdict.metrics["snr_db"] > 40


@pytest.mark.parametrize("size", [1000, 1012])
def test_an_artifact_as_large_as_float_or_larger_is_refused(size):
    assert refused("size", size_bytes=size).found == f"{size} bytes"


def test_an_artifact_that_the_target_cannot_store_is_refused():
    refused("storage", size_bytes=TARGET.flash_bytes + 1, float_bytes=TARGET.flash_bytes * 4)


@pytest.mark.parametrize(("quantized", "floating"), [(0, 1000), (899, 101), (0, 0)])
def test_an_artifact_whose_weights_are_still_float_is_refused(quantized, floating):
    error = refused("quantized", facts=replace(FACTS, quantized_weights=quantized, float_weights=floating))
    assert error.expected == "at least 90.0% of the weights in at most 8 bits"


def test_an_operator_outside_the_table_is_refused():
    assert refused("operators", facts=replace(FACTS, operators=frozenset({"Conv", "FlexErf"}))).found == "also FlexErf"


def test_a_number_type_outside_the_table_is_refused():
    assert refused("number types", facts=replace(FACTS, number_types=frozenset({"bfloat16"}))).found == "also bfloat16"


def test_lost_accuracy_is_refused():
    error = refused("accuracy", answers={"probabilities": probabilities(wrong=4)})
    assert error.expected == "at most 1.5 points below the float accuracy 1.0000"
    assert error.found == "0.9800"


def test_a_drop_of_exactly_the_budget_is_allowed():
    verdict = verify_artifact(
        TARGET, RECIPE, replace(GOOD, answers={"probabilities": probabilities(wrong=3)}), max_drop=0.015
    )
    assert verdict.metrics["accuracy"] == pytest.approx(0.985)


def test_an_artifact_that_is_better_than_float_passes():
    measured = replace(
        GOOD, float_answers={"probabilities": probabilities(wrong=3)}, answers={"probabilities": probabilities()}
    )
    assert verify_artifact(TARGET, RECIPE, measured, max_drop=0.0).checks["accuracy"] == "passed"


def test_outputs_that_are_no_numbers_are_refused():
    broken = probabilities()
    broken[0, 0] = np.nan
    assert refused("accuracy", answers={"probabilities": broken}).found == "NaN or infinity"


def test_right_classes_with_destroyed_probabilities_are_refused():
    flat = np.where(np.arange(10) == LABELS[:, None], 0.101, 0.0999).astype(np.float32)
    refused("parity", answers={"probabilities": flat})


def test_equally_accurate_artifacts_that_disagree_with_float_are_refused():
    wrong = (np.arange(200) >= 188)[:, None]
    answers = np.where(wrong, 0.1, probabilities())
    refused("parity", float_answers={"probabilities": probabilities(wrong=12)}, answers={"probabilities": answers})


@pytest.mark.parametrize("difference", [0.02, float("nan")])
def test_golden_samples_that_do_not_replay_are_refused(difference):
    refused("golden", replay_difference=difference)


IPHONE = load_target("iphone-15")
COREML = replace(
    GOOD,
    facts=replace(FACTS, operators=frozenset({"conv"}), number_types=frozenset({"float16", "int8"})),
    by_reference=True,
)


def test_what_can_neither_run_nor_be_evaluated_here_is_not_run_and_has_no_accuracy():
    why = "there is no evaluation of the operator sort"
    measured = replace(COREML, answers=None, replay_difference=None, not_run=why)
    verdict = verify_artifact(IPHONE, find_recipe(IPHONE.recipe), measured, max_drop=0.015)
    absent = {name for name, state in verdict.checks.items() if state == "not run"}
    assert absent == {"accuracy", "parity", "golden", "runs on device"}
    assert set(verdict.not_run) == absent
    assert verdict.not_run["accuracy"] == why
    assert set(verdict.metrics) == {"bytes", "float_bytes", "float_accuracy"}


def test_a_reference_evaluation_checks_the_outputs_and_says_that_no_device_ran_them():
    verdict = verify_artifact(IPHONE, find_recipe(IPHONE.recipe), COREML, max_drop=0.015)
    assert {name for name, state in verdict.checks.items() if state == "not run"} == {"runs on device"}
    assert "evaluated one by one instead" in verdict.not_run["runs on device"]
    assert verdict.metrics["accuracy"] == 1.0
    assert "runs on device" not in verify_artifact(TARGET, RECIPE, GOOD, max_drop=0.015).checks


def test_everything_that_failed_is_in_one_error():
    facts = replace(FACTS, operators=frozenset({"FlexErf"}), has_nan=True)
    measured = replace(GOOD, size_bytes=1012, facts=facts, answers={"probabilities": probabilities(wrong=40)})
    with pytest.raises(VerificationError) as caught:
        verify_artifact(TARGET, RECIPE, measured, max_drop=0.015)
    assert [failure[0] for failure in caught.value.failures] == ["size", "weights", "operators", "accuracy", "parity"]
    assert caught.value.check == "size"
    for name in ("'size'", "'weights'", "FlexErf", "0.8000"):
        assert name in str(caught.value)


def test_a_judgement_names_what_passed_and_what_failed_without_raising():
    verdict = judge_artifact(TARGET, RECIPE, replace(GOOD, size_bytes=1012), max_drop=0.015)
    assert verdict.checks["size"] == "failed"
    assert {state for name, state in verdict.checks.items() if name != "size"} == {"passed"}
    assert [failure.check for failure in verdict.failures] == ["size"]


def test_weights_that_are_no_numbers_are_refused():
    assert refused("weights", facts=replace(FACTS, has_nan=True)).found == "NaN or infinity"


def test_a_float_recipe_promises_neither_fewer_bytes_nor_integers():
    recipe = find_recipe("onnx-float")
    facts = replace(FACTS, quantized_weights=0, float_weights=1000)
    measured = replace(GOOD, size_bytes=1000, facts=facts, answers={"probabilities": probabilities()})
    verdict = verify_artifact(TARGET, recipe, measured, max_drop=0.015)
    assert not {"size", "quantized"} & set(verdict.checks)
    assert set(verdict.checks.values()) == {"passed"}


MICRO = load_target("cortex-m4")
INTEGER = FileFacts(
    operators=frozenset({"CONV_2D"}),
    operator_versions={"CONV_2D": 3},
    number_types=frozenset({"int8", "int32"}),
    border_types=frozenset({"int8"}),
    quantized_weights=1000,
    float_weights=0,
)


@pytest.mark.parametrize(
    ("check", "facts"),
    [
        ("number types", {"uses": frozenset({OperatorUse("CONV_2D", "int16", 4)})}),
        ("ranks", {"uses": frozenset({OperatorUse("TRANSPOSE", "int8", 6)})}),
        ("all integer", {"number_types": frozenset({"int8", "float32"})}),
        ("integer border", {"border_types": frozenset({"float32"})}),
        ("static shapes", {"dynamic_shapes": True}),
    ],
)
def test_what_a_microcontroller_cannot_hold_is_refused(check, facts):
    asked, failures = judge_file(MICRO, "tflite", 1000, INTEGER)
    assert check in asked
    assert failures == ()
    _asked, failures = judge_file(MICRO, "tflite", 1000, replace(INTEGER, **facts))
    assert [failure.check for failure in failures] == [check]


def test_memory_and_latency_are_judged_where_they_are_known():
    asked, failures = judge_file(MICRO, "tflite", 1000, INTEGER, activation_bytes=10**6, latency_ms=10.0**6)
    assert asked[-2:] == ("memory", "latency")
    assert [failure.check for failure in failures] == ["memory", "latency"]


def test_a_train_graph_that_steps_elsewhere_is_refused():
    verify_train_graph("onnx", 9.9e-6)
    for difference in (1.1e-5, float("nan"), float("inf")):
        with pytest.raises(VerificationError, match="train graph"):
            verify_train_graph("onnx", difference)


def test_signal_to_noise_of_known_numbers():
    assert signal_to_noise_db(np.array([10.0]), np.array([9.0])) == pytest.approx(20.0)
    assert signal_to_noise_db(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 200.0
    assert signal_to_noise_db(np.array([1.0]), np.array([np.nan])) == -200.0
    assert signal_to_noise_db(np.array([0.0]), np.array([1.0])) == -200.0


def test_a_signal_that_is_nothing_and_stays_nothing_has_no_noise():
    assert signal_to_noise_db(np.zeros(3), np.zeros(3)) == 200.0


def test_a_state_that_is_stored_otherwise_where_it_comes_out_is_refused_and_one_that_is_not_is_a_check():
    int8 = "int8[2, 1, 128] x 0.5 from 3"
    error = refused("state", state={"c": (int8, int8), "h": (int8, "int8[2, 1, 128] x 0.25 from 3")})
    assert error.expected == "the state h stored alike at both ends, to be copied as it is"
    assert error.found == "int8[2, 1, 128] x 0.5 from 3 in, int8[2, 1, 128] x 0.25 from 3 out"

    same = judge_artifact(TARGET, RECIPE, replace(GOOD, state={"h": (int8, int8)}), max_drop=0.015)
    assert same.checks["state"] == "passed"
    assert "state" not in judge_artifact(TARGET, RECIPE, GOOD, max_drop=0.015).checks


NUMBERS = Outputs.of(Values(("level",), tolerance=1.0))
LEVELS = np.linspace(-2, 2, 200, dtype=np.float32)[:, None]


def of_values(off: float, **changes) -> Measured:
    """A float model that is right, and an artifact that is *off* by so many tolerances everywhere."""
    return replace(
        GOOD,
        outputs=NUMBERS,
        wanted={"values": LEVELS},
        float_answers={"values": LEVELS},
        answers={"values": LEVELS + np.float32(off)},
        **changes,
    )


def test_a_regression_is_judged_by_the_worth_of_its_values_and_no_check_is_called_accuracy():
    verdict = judge_artifact(TARGET, RECIPE, of_values(0.01), max_drop=0.015)
    assert "accuracy" not in {*verdict.checks, *verdict.metrics}
    assert verdict.checks["score"] == "passed"
    assert verdict.metrics["float_score"] == 1.0
    assert verdict.metrics["score"] == pytest.approx(0.99, abs=1e-6)
    assert verdict.metrics["agreement"] == pytest.approx(0.99, abs=1e-6)


def test_a_regression_that_loses_more_than_the_budget_is_refused_in_its_own_words():
    with pytest.raises(VerificationError) as caught:
        verify_artifact(TARGET, RECIPE, of_values(0.06), max_drop=0.015)
    first, second = caught.value.failures
    assert first == ("score", "at most 1.5 points below the float worth of the values 1.0000", "0.9400")
    assert second[1] == "at least 15 dB and 95.0% agreement in tolerances"


def test_what_nobody_knows_the_target_values_of_has_no_score_and_is_compared_all_the_same():
    measured = of_values(0.01, replay_tolerance=0.1)
    measured = replace(measured, wanted={"values": np.full((200, 1), np.nan, np.float32)})
    verdict = judge_artifact(TARGET, RECIPE, measured, max_drop=0.0)
    assert verdict.checks["score"] == "not run"
    assert verdict.not_run["score"] == "no target value of the held-out data is known"
    assert verdict.checks["parity"] == "passed"
    assert not {"score", "float_score", "held_out_samples"} & set(verdict.metrics)


def test_an_output_without_a_score_function_is_judged_by_agreement_alone():
    measured = of_values(0.2, replay_tolerance=0.1)
    measured = replace(
        measured, outputs=Outputs({"values": Custom((1,))}), wanted={"values": np.zeros(200, np.float32)}
    )
    verdict = judge_artifact(TARGET, RECIPE, measured, max_drop=0.0)
    assert verdict.not_run["score"] == "there is no score function for values here"
    assert [failure.check for failure in verdict.failures] == ["parity"]
    assert verdict.metrics["agreement"] == pytest.approx(0.8, abs=1e-6)


def test_each_of_several_outputs_is_near_enough_by_itself():
    outputs = Outputs({"kind": Classes(tuple("abcdefghij")), "level": Values(("level",), tolerance=1.0, weight=3.0)})
    floats = {"kind": probabilities(), "level": LEVELS}
    measured = replace(
        GOOD,
        outputs=outputs,
        wanted={"kind": LABELS, "level": LEVELS},
        float_answers=floats,
        answers={"kind": probabilities(), "level": LEVELS + np.float32(0.08)},
    )
    verdict = judge_artifact(TARGET, RECIPE, measured, max_drop=0.1)
    [failure] = verdict.failures
    assert failure.check == "parity"
    assert failure.expected == "level: at least 15 dB and 95.0% agreement in tolerances"
    assert failure.found == "level: 23.2 dB and 92.0% (the score, 0.9400, is within its budget)"
    assert verdict.metrics["snr_db"] == verdict.metrics["snr_db.level"] == pytest.approx(23.2, abs=0.05)
    assert verdict.metrics["snr_db.kind"] == 200.0
    assert verdict.metrics["agreement"] == pytest.approx(0.94, abs=1e-6)
    assert verdict.metrics["agreement.level"] == pytest.approx(0.92, abs=1e-6)


def test_flags_agree_where_both_sides_flag_a_sample():
    outputs = Outputs.of(Reconstruction(threshold=1.0))
    floats = np.linspace(0.5, 1.5, 200, dtype=np.float32)[:, None]
    measured = replace(
        GOOD,
        outputs=outputs,
        wanted={"anomaly": (floats[:, 0] >= 1).astype(np.int64)},
        float_answers={"anomaly": floats},
        answers={"anomaly": floats - np.float32(0.051)},
    )
    verdict = judge_artifact(TARGET, RECIPE, measured, max_drop=0.1)
    assert verdict.metrics["float_score"] == 1.0
    assert verdict.metrics["score"] == verdict.metrics["agreement"] == 0.95
