"""The expected numbers are worked out by hand from CMSIS-NN's get_buffer_size functions with DSP instructions."""

import pytest

from hedgerow.compile.cmsis_nn import KernelCall, scratch_bytes


def call(operator: str, taken, weights, given, **changes) -> KernelCall:
    facts = {"number_type": "int8", "weight_type": "int8" if weights else ""} | changes
    return KernelCall(operator=operator, taken=taken, weights=weights, given=given, **facts)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # arm_convolve_s8: two columns of int16, each 3 * 3 * 3 = 27 rounded up to 28.
        (call("CONV_2D", (1, 32, 32, 3), (16, 3, 3, 3), (1, 32, 32, 16)), 2 * 28 * 2),
        (call("CONV_2D", (1, 8, 8, 64), (64, 3, 3, 64), (1, 8, 8, 64)), 2 * 576 * 2),
        # arm_convolve_1x1_s8_fast: armclang's two columns of the input's channels; gcc asks for none.
        (call("CONV_2D", (1, 8, 8, 64), (64, 1, 1, 64), (1, 8, 8, 64)), 2 * 64 * 2),
        # A dilated or grouped 1 x 1 convolution is no 1 x 1 convolution to CMSIS-NN.
        (call("CONV_2D", (1, 8, 8, 6), (64, 1, 1, 3), (1, 8, 8, 64)), 2 * 8 * 2),
        # arm_depthwise_conv_3x3_s8 needs none, arm_depthwise_conv_s8_opt a column of int16 for each channel.
        (call("DEPTHWISE_CONV_2D", (1, 8, 8, 64), (1, 3, 3, 64), (1, 8, 8, 64)), 0),
        (call("DEPTHWISE_CONV_2D", (1, 49, 10, 64), (1, 5, 3, 64), (1, 49, 10, 64)), 64 * 5 * 3 * 2),
        (call("DEPTHWISE_CONV_2D", (1, 8, 8, 8), (1, 5, 5, 16), (1, 8, 8, 16)), 0),
        (call("AVERAGE_POOL_2D", (1, 8, 8, 64), (), (1, 1, 1, 64)), 64 * 4),
        (call("FULLY_CONNECTED", (1, 640), (128, 640), (1, 128)), 0),
        # More than two dimensions are a 1 x 1 convolution, with the one scale written out for each channel.
        (call("FULLY_CONNECTED", (1, 4, 64), (12, 64), (1, 4, 12)), 2 * 12 * 4 + 2 * 64 * 2),
        (call("FULLY_CONNECTED", (1, 4, 64), (12, 64), (1, 4, 12), is_per_channel=True), 2 * 64 * 2),
        (call("SOFTMAX", (1, 10), (), (1, 10)), 0),
        (call("CONV_2D", (1, 8, 8, 3), (4, 3, 3, 3), (1, 8, 8, 4), number_type="float32", weight_type="float32"), 0),
    ],
)
def test_one_operator_asks_for_what_its_formula_says(asked, expected):
    assert scratch_bytes([asked]) == (expected, "")


def test_a_graph_asks_for_the_most_of_any_one_operator():
    small = call("AVERAGE_POOL_2D", (1, 8, 8, 64), (), (1, 1, 1, 64))
    large = call("CONV_2D", (1, 8, 8, 64), (64, 3, 3, 64), (1, 8, 8, 64))
    assert scratch_bytes([small, large, small]) == (2304, "")
    assert scratch_bytes([]) == (0, "")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (call("SVDF", (1, 96), (32, 96), (1, 32)), "the formula for SVDF is not covered"),
        (
            call("CONV_2D", (1, 8, 8, 3), (4, 3, 3, 3), (1, 8, 8, 4), number_type="int16"),
            "the formula for CONV_2D on int16 with int8 is not covered",
        ),
    ],
)
def test_what_no_formula_covers_makes_the_whole_unknown(asked, said):
    assert scratch_bytes([call("SOFTMAX", (1, 10), (), (1, 10)), asked]) == (None, said)
