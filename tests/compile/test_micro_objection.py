import pytest

from hedgerow.compile.micro_objection import MicroObjection, read_objection

ABSENT = "Didn't find op for builtin opcode 'MATRIX_DIAG'\nFailed to get registration from op code MATRIX_DIAG\n \n"
HYBRID = (
    "tensorflow/lite/micro/kernels/conv_common.cc Hybrid models are not supported on TFLite Micro.\n"
    "Node CONV_2D (number 7) failed to prepare with status 1\n"
)
TYPES = (
    "tensorflow/lite/micro/kernels/elementwise.cc:112 input->type != output->type (FLOAT32 != INT8)\n"
    "Node ABS (number 0) failed to prepare with status 1\n"
)


def test_an_operator_that_is_absent_is_named():
    objection = read_objection(ABSENT)
    assert objection == MicroObjection(operator="MATRIX_DIAG", is_absent=True)
    assert objection.sentence() == "MATRIX_DIAG, which it does not have"


def test_an_operator_of_somebody_elses_is_named_by_the_file():
    objection = read_objection("Failed to get registration from op code CUSTOM\n \n")
    assert objection == MicroObjection(operator="CUSTOM", is_absent=True)
    assert objection.sentence() == "CUSTOM, which it does not have"
    assert objection.sentence(("FlexErf",)) == "FlexErf, which it does not have"
    assert objection.sentence(("FlexErf", "Other")) == "FlexErf or Other, which it does not have"


@pytest.mark.parametrize(
    ("printed", "wanted"),
    [
        (HYBRID, ("CONV_2D", 7, "Hybrid models are not supported on TFLite Micro.")),
        (TYPES, ("ABS", 0, "input->type != output->type (FLOAT32 != INT8)")),
        ("Node GATHER (number 3) failed to invoke with status 1\n", ("GATHER", 3, "")),
        (ABSENT + TYPES, ("ABS", 0, "input->type != output->type (FLOAT32 != INT8)")),
    ],
)
def test_an_operator_that_fails_is_named_with_its_place_and_the_reason(printed, wanted):
    objection = read_objection(printed)
    assert (objection.operator, objection.number, objection.said) == wanted
    assert not objection.is_absent


def test_the_sentence_names_the_layer_where_it_is_known():
    objection = read_objection(HYBRID)
    assert objection.sentence() == "CONV_2D (operator 7): Hybrid models are not supported on TFLite Micro."
    assert objection.sentence(layer="stem").startswith("CONV_2D (operator 7, which gives 'stem'): Hybrid")
    silent = read_objection("Node GATHER (number 3) failed to invoke with status 1")
    assert silent.sentence() == "GATHER (operator 3): it fails without a word"


def test_what_fits_no_arena_is_told_with_its_bytes():
    printed = "Failed to resize buffer. Requested: 3200000, available 99360, missing: 3100640\n"
    objection = read_objection(printed)
    assert (objection.operator, objection.is_absent) == ("", False)
    assert objection.sentence().startswith("it asks for 3,200,000 bytes at once")


def test_other_words_are_passed_on_and_silence_is_told():
    assert read_objection("one\ntwo\n\nthree\n").sentence() == "two; three"
    assert read_objection(" \n").sentence() == "an objection without a word"
