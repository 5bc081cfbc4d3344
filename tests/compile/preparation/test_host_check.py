"""The C of a preparation is compiled and run on this machine, and whatever it does otherwise than torch is found."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hedgerow.compile.preparation.c_file import prepare_source
from hedgerow.compile.preparation.c_interface import Interface
from hedgerow.compile.preparation.c_values import Array, View, literal, row_major
from hedgerow.compile.preparation.c_writer import CProgram, CWriter
from hedgerow.compile.preparation.host_check import (
    CBuildError,
    PrepareCheck,
    check_prepare,
    find_c_compiler,
    run_prepare,
)
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.schema import TensorSpec
from hedgerow.tensor_border import to_stored

needs_compiler = pytest.mark.skipif(find_c_compiler() is None, reason="needs a C compiler")
TAKEN, GIVEN = TensorSpec("x", (3,), unit="bar"), TensorSpec("prepared_0", (3,))
SCHEMA = ModelSchema((TAKEN,), (GIVEN,))
STORED = Tensor("prepared_0", "args_0", (1, 3), "int8", 0.5, -7)
VALUES = np.array([[0.0, 1.0, -1.0], [0.25, 0.75, 70.0], [1e9, -1e9, 3.3]], np.float32)


def doubled(factor: float = 2.0) -> CProgram:
    """A program by hand: twice the input."""
    writer, shape = CWriter(), (1, 3)
    taken = View(Array("x", "float32", 3), shape, row_major(shape))
    given = writer.pointwise(shape, "float32", [taken], lambda x: f"{x} * {literal(factor, 'float32')}")
    return CProgram(tuple(writer.statements), tuple(writer.constants), (taken,), (given,))


def interface(tensor: Tensor = STORED) -> Interface:
    return Interface("7 pumps", SCHEMA, [tensor])


def checked(tensor: Tensor = STORED, factor: float = 2.0, **options) -> PrepareCheck:
    source = prepare_source(interface(tensor), doubled(factor))
    return check_prepare(interface(tensor), source, {"x": VALUES}, {"prepared_0": VALUES * 2}, **options)


@needs_compiler
def test_the_same_numbers_pass_and_say_what_compiled_them():
    found = checked()
    assert (found.expected, found.found, found.not_run) == ("", "", "")
    assert found.executed_by.startswith("C99 compiled by ")


@needs_compiler
def test_other_numbers_are_found_with_how_far_and_in_how_many_samples():
    found = checked(factor=4.0)
    assert found.expected == "what preprocess gives, within 1 step of the file's integers"
    # By hand: 2.0 more of 0.5 each is 4 steps for the first sample, 3.3 * 2 / 0.5 = 13 for the last; 70 is cut in both.
    assert found.found == "prepared_0 up to 13 steps off, in 3 of 3 samples"


@needs_compiler
def test_a_difference_of_one_step_is_allowed_and_none_in_real_numbers():
    near = 2.0 * (1 + 1e-6)
    assert checked(factor=near).found == ""
    real = Tensor("prepared_0", "args_0", (1, 3), "float32")
    assert checked(real, factor=2.0).found == ""


@needs_compiler
def test_each_type_of_a_file_is_written_as_the_border_stores_it():
    edges = np.array(
        [[x, math.nextafter(x, 9e9), math.nextafter(x, -9e9)] for x in np.arange(-70, 70, 0.125)], "float32"
    )
    edges = np.vstack([edges, np.array([[np.nan, np.inf, -np.inf]], np.float32)])
    for dtype, zero_point in (("int8", -128), ("int8", 5), ("uint8", 128), ("int16", 0)):
        tensor = replace(STORED, dtype=dtype, zero_point=zero_point, scale=0.25)
        found = run_prepare(
            interface(tensor), prepare_source(interface(tensor), doubled()), {"x": edges}, find_c_compiler()
        )
        assert np.array_equal(found["prepared_0"], to_stored(edges * np.float32(2), tensor))


def test_without_a_compiler_nothing_is_run_and_the_reason_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    found = checked(search_path=str(tmp_path))
    assert found == PrepareCheck(not_run="no C compiler (cc, gcc, clang) is on the PATH")


@needs_compiler
def test_a_compiler_that_refuses_is_told_in_its_own_words():
    found = check_prepare(interface(), "not C", {"x": VALUES}, {"prepared_0": VALUES})
    assert found.found.startswith("the C compiler ended with 1: ")
    assert "error" in found.found


@needs_compiler
def test_a_warning_is_an_error():
    source = prepare_source(interface(), doubled()).replace("prepare_real(x, real", "prepare_real(x, real", 1)
    source += "static int left_over(void) { return 1; }\n"
    with pytest.raises(CBuildError, match="left_over"):
        run_prepare(interface(), source, {"x": VALUES}, find_c_compiler())


@needs_compiler
def test_a_program_that_dies_is_no_result():
    source = prepare_source(interface(), doubled())
    source = source.replace("#include", "#include <stdlib.h>\n#include", 1).replace("{\n", "{\n    abort();\n", 2)
    with pytest.raises(CBuildError, match="the compiled C ended with -6"):
        run_prepare(interface(), source, {"x": VALUES}, find_c_compiler())


def test_the_header_says_units_and_names_both_functions():
    header = interface().header
    assert "void m7_pumps_model_prepare(const float x[3], int8_t prepared_0[3]);" in header
    assert "void m7_pumps_model_prepare_real(const float x[3], float prepared_0[3]);" in header
    assert "x in bar" in header
    assert "#ifndef HEDGEROW_M7_PUMPS_MODEL_PREPARE_H_" in header


def test_the_environments_compiler_is_taken_first(tmp_path, monkeypatch):
    mine = tmp_path / "mycc"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("CC", str(mine))
    assert find_c_compiler(str(tmp_path)) == str(mine)
