"""Every refusal says what to do about the check that failed."""

import pytest

from hedgerow.compile.edgetpu import CHECK
from hedgerow.compile.errors import Failure, VerificationError
from hedgerow.hardware.fit import CHECKS

OF_THE_GATE = ("weights", "size", "quantized", "accuracy", "parity", "golden", "train graph", CHECK)


def advice(check: str, *further: str) -> str:
    more = [Failure(name, "a", "b") for name in further]
    return str(VerificationError("cortex-m4", check, "a", "b", further=more)).partition("; ")[2]


@pytest.mark.parametrize("check", [*CHECKS, *OF_THE_GATE])
def test_every_check_has_advice_of_its_own(check):
    assert advice(check) != advice("a check that nobody knows")


@pytest.mark.parametrize("check", ["operators", "number types", "memory", "storage", "static shapes"])
def test_training_further_is_no_advice_for_a_model_that_does_not_fit(check):
    assert "train" not in advice(check)


def test_a_model_too_small_for_int8_is_told_about_float():
    assert advice("size").startswith("choose a float recipe")


def test_several_failures_get_each_piece_of_advice_once():
    assert advice("operators", "operator versions") == advice("operators")
    assert advice("memory", "storage") == f"{advice('memory')}; {advice('storage')}"


def test_several_failures_get_each_choice_once():
    assert advice("accuracy", "parity") == (
        "choose a recipe that keeps more bits, train further, or allow a larger --max-drop; "
        "calibrate with data that is more like the held-out data, or accept the difference with --min-snr and "
        "--min-agreement"
    )
    assert advice("all integer", "operators") == (
        "use layers that have an int8 form, choose an all-integer recipe; "
        "replace these layers in the model or leave this target out"
    )
    assert advice("parity", "memory").startswith("choose a recipe that keeps more bits, calibrate")
