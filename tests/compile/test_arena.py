import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.compile.arena import LARGEST_BYTES, STEP_BYTES, Arena, installed_version, smallest_arena
from hedgerow.decode import Fields
from hedgerow.errors import DecodeError


@given(st.integers(1, LARGEST_BYTES))
def test_the_search_finds_the_least_step_that_works(needed):
    found = smallest_arena(lambda size: size >= needed)
    assert found % STEP_BYTES == 0
    assert found - STEP_BYTES < needed <= found


def test_what_works_in_no_arena_has_none_and_is_tried_once():
    tried = []
    assert smallest_arena(lambda size: bool(tried.append(size))) is None
    assert tried == [LARGEST_BYTES]


def test_an_arena_comes_back_and_a_wrong_one_is_refused():
    arena = Arena(bytes=6784, kernels="reference", version="0.1", scratch_bytes=None, scratch_omitted="not covered")
    assert Arena.from_fields(Fields(arena.to_record(), "arena")) == arena
    for wrong in ({"bytes": 0}, {"bytes": LARGEST_BYTES + 1}, {"scratch_bytes": -1}, {"more": 1}):
        with pytest.raises(DecodeError):
            Arena.from_fields(Fields({**arena.to_record(), **wrong}, "arena"))


@pytest.mark.heavy
@pytest.mark.skipif(installed_version() is None, reason="needs the extra mcu")
def test_the_interpreter_takes_exactly_the_arena_that_was_found_and_no_step_less(own_int8_file):
    from tflite_micro.python.tflite_micro import runtime

    from hedgerow.compile.foreign import ForeignFile

    with ForeignFile("own.tflite", "tflite", own_int8_file) as file:
        arena = file.arena()
    assert arena.version == installed_version()
    runtime.Interpreter.from_bytes(own_int8_file, arena_size=arena.bytes)
    for less in (arena.bytes - STEP_BYTES, int(arena.bytes * 0.95)):
        with pytest.raises(RuntimeError, match="failed to allocate"):
            runtime.Interpreter.from_bytes(own_int8_file, arena_size=less)


@pytest.mark.heavy
@pytest.mark.skipif(installed_version() is None, reason="needs the extra mcu")
def test_an_arena_that_is_too_small_may_kill_the_interpreter_and_is_too_small(own_int8_file, monkeypatch):
    """Seen with the zoo's autoencoder: some sizes below the smallest end the process by SIGSEGV."""
    import os
    import signal

    from hedgerow.compile.runners import tflite_micro

    def allocates(_content, size):
        if size < 40_000:
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    monkeypatch.setattr(tflite_micro, "_allocates", allocates)
    assert tflite_micro.find_arena(own_int8_file).bytes == 40_000


# Of the nine reference models of MLPerf Tiny, the eight that TensorFlow Lite Micro runs.
RUN = (
    "ad01_fp32",
    "ad01_int8",
    "kws_ref_model_int8",
    "pretrainedResnet",
    "pretrainedResnet_quant",
    "str_ww_ref_model",
    "vww_96_float",
    "vww_96_int8",
)


@pytest.mark.heavy
@pytest.mark.skipif(installed_version() is None, reason="needs the extra mcu")
@pytest.mark.parametrize("name", RUN)
def test_a_reference_model_allocates_with_the_headers_figure_and_not_with_five_percent_less(name, mlperf_tiny):
    import re

    from tflite_micro.python.tflite_micro import runtime

    from hedgerow.compile.c_array import CModel, c_header
    from hedgerow.compile.foreign import ForeignFile
    from hedgerow.compile.model_file import read_model_file

    content = (mlperf_tiny / f"{name}.tflite").read_bytes()
    with ForeignFile(f"{name}.tflite", "tflite", content) as file:
        model, arena = read_model_file(file), file.arena()
    header = c_header(
        CModel(
            name="model",
            target="cortex-m7",
            architecture="armv7e-m",
            content=content,
            inputs=model.inputs,
            outputs=model.outputs,
            schema=model.schema,
            arena=arena,
        )
    )
    figure = int(re.search(r"#define MODEL_MODEL_ARENA_BYTES (\d+)\n", header)[1])
    runtime.Interpreter.from_bytes(content, arena_size=figure)
    with pytest.raises(RuntimeError, match="failed to allocate"):
        runtime.Interpreter.from_bytes(content, arena_size=int(figure * 0.95))


@pytest.mark.heavy
@pytest.mark.skipif(installed_version() is None, reason="needs the extra mcu")
def test_a_model_that_no_arena_holds_is_refused_in_the_interpreters_words(mlperf_tiny):
    from hedgerow.compile.errors import RuntimeRefusedError
    from hedgerow.compile.foreign import ForeignFile

    content = (mlperf_tiny / "kws_ref_model_float32.tflite").read_bytes()
    with (
        ForeignFile("kws.tflite", "tflite", content) as file,
        pytest.raises(RuntimeRefusedError, match="Hybrid models are not supported on TFLite Micro"),
    ):
        file.arena()
