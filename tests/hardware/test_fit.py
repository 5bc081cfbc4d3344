from dataclasses import replace

import pytest

from hedgerow.hardware.fit import CHECKS, Misfit, ModelFacts, OperatorUse, fit
from hedgerow.hardware.lookup import load_target

MCU = load_target("cortex-m4")
GATEWAY = load_target("x86-gateway")
PHONE = load_target("android-arm64")
JETSON = load_target("jetson-orin-nano")
SMALL = ModelFacts(
    format="tflite",
    size_bytes=98_496,
    operators={"CONV_2D": 3, "ADD": 2, "SOFTMAX": 2},
    number_types=frozenset({"int8", "int32"}),
    border_types=frozenset({"int8"}),
    dynamic_shapes=False,
    asymmetric_tensors=17,
    activation_bytes=53_000,
    latency_ms=210.0,
)
QDQ = ModelFacts(
    format="onnx",
    size_bytes=100_000,
    operators={"Conv": 20, "QuantizeLinear": 20, "DequantizeLinear": 20},
    number_types=frozenset({"float32", "int8"}),
    border_types=frozenset({"float32"}),
    dynamic_shapes=True,
    asymmetric_tensors=0,
    activation_bytes=200_000,
)


def only(target, facts) -> Misfit:
    (misfit,) = fit(target, facts)
    assert misfit.check in CHECKS
    assert str(misfit) == f"{misfit.check}: expected {misfit.expected}, found {misfit.found}"
    return misfit


def test_a_model_within_every_limit_fits():
    assert fit(MCU, SMALL) == ()
    assert fit(GATEWAY, QDQ) == ()
    assert fit(JETSON, QDQ) == ()


def test_another_format_is_the_only_thing_said():
    misfit = only(MCU, replace(QDQ, size_bytes=2**40))
    assert (misfit.check, misfit.expected, misfit.found) == ("format", "tflite, which tflite-micro runs", "onnx")


def test_an_unknown_operator_is_named():
    misfit = only(MCU, replace(SMALL, operators={**SMALL.operators, "GELU": 2, "FlexErf": 1}))
    assert misfit.check == "operators"
    assert misfit.names == ("FlexErf", "GELU")
    assert misfit.found == "also FlexErf, GELU"


def test_a_version_above_the_tables_is_named_with_both_numbers():
    misfit = only(PHONE, replace(SMALL, operators={**SMALL.operators, "FULLY_CONNECTED": 15}))
    assert str(misfit) == (
        "operator versions: expected FULLY_CONNECTED up to version 14, found FULLY_CONNECTED version 15"
    )


def test_the_highest_version_of_the_table_still_fits():
    assert fit(PHONE, replace(SMALL, operators={"FULLY_CONNECTED": 14})) == ()


def test_a_table_with_0_takes_any_version_and_an_unknown_version_is_no_misfit():
    target = replace(MCU, operators={"CONV_2D": 0, "ADD": 2})
    assert fit(target, replace(SMALL, operators={"CONV_2D": 99, "ADD": 0})) == ()


def test_an_operator_set_that_the_runtime_lacks_is_a_version_too_new():
    assert only(JETSON, replace(QDQ, operators={"Conv": 21})).check == "operator versions"


def test_one_float_tensor_is_too_much_where_all_must_be_integer():
    misfit = only(MCU, replace(SMALL, number_types=SMALL.number_types | {"float32"}))
    assert (misfit.check, misfit.names) == ("all integer", ("float32",))


def test_a_float_border_is_told_apart_from_float_inside():
    facts = replace(SMALL, number_types=SMALL.number_types | {"float32"}, border_types=frozenset({"float32"}))
    assert [misfit.check for misfit in fit(MCU, facts)] == ["all integer", "integer border"]


def test_a_number_type_outside_the_table_is_named():
    misfit = only(MCU, replace(SMALL, number_types=SMALL.number_types | {"uint16"}))
    assert (misfit.check, misfit.names) == ("number types", ("uint16",))
    assert misfit.expected == "tensors of bool, int16, int32, int4, int64, int8, uint32, uint64, uint8"


def used(*uses: tuple[str, str, int]) -> frozenset[OperatorUse]:
    return frozenset(OperatorUse(*use) for use in uses)


def test_a_number_type_that_the_runtime_has_no_kernel_for_is_named_with_its_operator():
    facts = replace(SMALL, number_types=SMALL.number_types | {"int16"})
    fitting = used(("CONV_2D", "int16/int8", 4), ("SOFTMAX", "int16", 2), ("ADD", "int8", 4))
    assert fit(MCU, replace(facts, uses=fitting)) == ()
    misfit = only(MCU, replace(facts, uses=fitting | used(("CONV_2D", "int16", 4), ("GATHER", "int16", 2))))
    assert (misfit.check, misfit.names) == ("number types", ("CONV_2D", "GATHER"))
    assert misfit.expected == "CONV_2D on float32, int16/int8, int8, int8/int4, GATHER on float32, int8"
    assert misfit.found == "CONV_2D on int16, GATHER on int16"


def test_what_is_not_known_of_a_use_is_no_misfit():
    unknown = used(("CONV_2D", "", 0), ("SOFTMAX", "int8", 0), ("SignalNobodyTried", "float64", 9))
    target = replace(
        MCU, operators={**MCU.operators, "SignalNobodyTried": 0}, number_types=MCU.number_types | {"float64"}
    )
    facts = replace(SMALL, operators={**SMALL.operators, "SignalNobodyTried": 1}, uses=unknown)
    assert fit(target, facts) == ()


def test_a_type_that_is_refused_already_is_not_named_again_with_every_operator():
    facts = replace(SMALL, number_types=SMALL.number_types | {"float64"}, uses=used(("ADD", "float64", 2)))
    assert [misfit.check for misfit in fit(GATEWAY, replace(QDQ, uses=used(("Add", "float64", 0))))] == []
    assert [misfit.check for misfit in fit(MCU, facts)] == ["all integer"]


def test_dimensions_that_the_runtime_does_not_compute_are_named():
    assert fit(MCU, replace(SMALL, uses=used(("TRANSPOSE", "int8", 5)))) == ()
    misfit = only(MCU, replace(SMALL, uses=used(("TRANSPOSE", "int8", 6), ("TRANSPOSE", "float32", 6))))
    assert str(misfit) == "ranks: expected TRANSPOSE of 1, 2, 3, 4, 5 dimensions, found TRANSPOSE of 6"


def test_the_dimensions_of_a_type_go_before_those_of_its_operator():
    ranks = {"PRELU": frozenset({4}), "PRELU int8": frozenset({4, 5})}
    target = replace(MCU, operator_types={}, operator_ranks=ranks)
    assert fit(target, replace(SMALL, uses=used(("PRELU", "int8", 5)))) == ()
    assert only(target, replace(SMALL, uses=used(("PRELU", "int16", 5)))).check == "ranks"


@pytest.mark.parametrize(("tensors", "fits"), [(0, True), (3, False), (None, True)])
def test_tensorrt_refuses_zero_points(tensors, fits):
    misfits = fit(JETSON, replace(QDQ, asymmetric_tensors=tensors))
    assert [misfit.check for misfit in misfits] == ([] if fits else ["symmetric"])


def test_a_microcontroller_needs_fixed_shapes_and_a_gateway_does_not():
    assert only(MCU, replace(SMALL, dynamic_shapes=True)).check == "static shapes"
    assert fit(GATEWAY, replace(QDQ, dynamic_shapes=True)) == ()


def test_a_microcontroller_finds_constants_in_the_flatbuffer_only():
    misfit = only(MCU, replace(SMALL, outside_constants=2))
    assert str(misfit) == "inline constants: expected every constant inside the flatbuffer, found 2 behind it"
    assert fit(load_target("android-arm64"), replace(SMALL, outside_constants=2)) == ()


def test_storage_is_full_at_one_byte_more():
    assert fit(MCU, replace(SMALL, size_bytes=MCU.flash_bytes)) == ()
    misfit = only(MCU, replace(SMALL, size_bytes=MCU.flash_bytes + 1))
    assert misfit.check == "storage"
    assert misfit.found == f"{MCU.flash_bytes + 1} bytes"


def test_an_arena_holds_activations_alone_because_weights_stay_in_flash():
    assert fit(MCU, replace(SMALL, activation_bytes=MCU.arena_bytes)) == ()
    misfit = only(MCU, replace(SMALL, activation_bytes=MCU.arena_bytes + 1))
    assert str(misfit) == "memory: expected at most the target's 98304 bytes of tensor arena, found 98305 bytes"


def test_without_an_arena_weights_and_activations_share_the_memory():
    half = GATEWAY.ram_bytes // 2
    assert fit(GATEWAY, replace(QDQ, size_bytes=half, activation_bytes=half)) == ()
    assert only(GATEWAY, replace(QDQ, size_bytes=half, activation_bytes=half + 1)).check == "memory"


def test_a_prediction_may_not_take_longer_than_the_target_says():
    assert only(MCU, replace(SMALL, latency_ms=1001.0)).check == "latency"
    assert fit(GATEWAY, replace(QDQ, latency_ms=1e6)) == ()


def test_nothing_is_concluded_from_facts_that_nobody_could_read():
    facts = ModelFacts(format="tflite", size_bytes=1, operators={"ADD": 0}, number_types=frozenset({"int8"}))
    assert fit(MCU, facts) == ()


def test_everything_in_the_way_is_told_at_once_and_long_lists_are_cut():
    facts = replace(
        SMALL,
        operators={f"CUSTOM_{index:02}": 1 for index in range(20)},
        number_types=frozenset({"float32", "uint16"}),
        size_bytes=2**30,
    )
    misfits = fit(MCU, facts)
    assert [misfit.check for misfit in misfits] == ["operators", "number types", "all integer", "storage"]
    assert misfits[0].found.endswith("CUSTOM_11 and 8 more")
    assert len(misfits[0].names) == 20
