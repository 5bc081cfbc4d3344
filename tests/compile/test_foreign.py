"""Processes that die, hang and lie in the place of one that looks at a file from elsewhere."""

import json
import os
import signal
import textwrap
from pathlib import Path

import numpy as np
import psutil
import pytest

from hedgerow.compile import foreign
from hedgerow.compile.errors import ForeignFileError, InternalError, RuntimeRefusedError
from hedgerow.compile.foreign import ForeignFile
from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Tensor
from tests.root.decoder_table import FACTS

TAKEN = (Tensor("x", "x", (1, 2), "float32"),)
GIVEN = (Tensor("y", "y", (1, 2), "float32"),)
BEGIN = """
import json, os, signal, sys, time
def serve(channel):
    request = json.loads(channel.receive())
    def say(**message):
        channel.send(json.dumps(message).encode())
"""
ARENA = {"bytes": 16, "kernels": "k", "version": "1", "scratch_bytes": None, "scratch_omitted": "x"}


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Give what puts a script in the place of the worker; it is a process of its own, as the worker is."""

    def put(script: str) -> ForeignFile:
        (tmp_path / "stand_in_worker.py").write_text(BEGIN + textwrap.indent(script, "    "))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(foreign, "_MODULE", "stand_in_worker")
        monkeypatch.setattr(foreign, "check_installed", lambda *_: None)
        return ForeignFile("model.tflite", "tflite", b"bytes", timeout_s=20.0)

    return put


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGKILL", "SIGILL"])
def test_a_process_that_a_signal_ends_is_one_sentence_with_signal_runtime_file_and_step(name, worker):
    script = f'say(step="running")\nprint("double free")\nsys.stdout.flush()\nos.kill(os.getpid(), signal.{name})'
    with worker(script) as file, pytest.raises(ForeignFileError) as caught:
        file.arena()
    error = caught.value
    assert (error.file, error.runtime, error.step, error.signal_name) == (
        "model.tflite",
        "TensorFlow Lite Micro",
        "running",
        name,
    )
    assert str(error).startswith(
        "running model.tflite in TensorFlow Lite Micro: expected a process that ends by itself, found the signal "
        f"{name} (last output: double free); "
    )


def test_a_process_that_dies_after_its_answer_gave_none(worker):
    """LiteRT corrupts its memory while it runs, and dies when it lets go of it."""
    script = f'say(step="running")\nsay(answer={{"arena": {ARENA!r}}})\nos.kill(os.getpid(), signal.SIGSEGV)'
    with worker(script) as file, pytest.raises(ForeignFileError) as caught:
        file.arena()
    assert caught.value.signal_name == "SIGSEGV"


def test_a_process_that_hangs_is_ended(worker, tmp_path):
    script = f'open({str(tmp_path / "started")!r}, "w").write(str(os.getpid()))\nsay(step="loading")\ntime.sleep(600)'
    with worker(script) as file:
        file._timeout_s = 3.0
        with pytest.raises(ForeignFileError, match=r"^loading .* no end within 3 s;"):
            file.arena()
    process = int((tmp_path / "started").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_process_that_answers_and_does_not_end_is_ended(worker, monkeypatch):
    monkeypatch.setattr(foreign, "_END_TIMEOUT_S", 0.5)
    script = f'say(answer={{"arena": {ARENA!r}}})\nchannel.close()\ntime.sleep(600)'
    with worker(script) as file, pytest.raises(ForeignFileError, match=r"no end within 0\.5 s of its answer"):
        file.arena()


def test_a_process_without_an_answer_is_told_with_its_exit_code_and_last_word(worker):
    with worker('print("so long")\nsys.exit(3)') as file, pytest.raises(ForeignFileError) as caught:
        file.arena()
    assert caught.value.found == "exit code 3 and no answer (last output: so long)"
    assert caught.value.signal_name == ""


@pytest.mark.parametrize(
    "script",
    [
        'os.write(channel.fileno(), b"no message\\n")',
        'channel.send(b"not json")',
        'say(answer={"arena": {"bytes": -1}})',
        'say(answer={"arena": 1})',
        "say(surprise={})",
        'say(step="../../etc")',
        'say(failed={"module": "os", "kind": "system", "message": "m", "facts": "[]"})',
    ],
)
def test_an_answer_that_is_none_is_refused(script, worker):
    with worker(script) as file, pytest.raises(DecodeError):
        file.arena()


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda file: file.facts(), {"facts": FACTS}),
        (lambda file: file.border(), {"inputs": [], "outputs": []}),
        (lambda file: file.arena(), {"arena": ARENA}),
        (
            lambda file: file.replay("litert", {"x": np.zeros((1, 2))}, (TAKEN, GIVEN)),
            {"difference": 0.0, "executed_by": "LiteRT"},
        ),
    ],
    ids=["facts", "border", "arena", "replay"],
)
def test_an_answer_with_a_key_that_nobody_knows_is_refused(ask, answer, worker):
    with worker(f"say(answer={ {**answer, 'more': 1}!r})") as file, pytest.raises(DecodeError) as caught:
        ask(file)
    assert caught.value.where == "message.answer"
    assert caught.value.found == "also more"


def test_an_arena_is_taken_as_it_is(worker):
    with worker(f'say(step="running")\nsay(answer={{"arena": {ARENA!r}}})') as file:
        assert file.arena().to_record() == ARENA


@pytest.mark.parametrize(
    "outputs",
    [{"z": np.zeros((2, 2), np.float32)}, {"y": np.zeros((2, 2), np.int8)}, {"y": np.zeros((3, 2), np.float32)}],
)
def test_predictions_of_another_kind_are_refused(outputs, worker, tmp_path):
    from hedgerow.weights import encode_arrays

    (tmp_path / "made").write_bytes(encode_arrays(outputs))
    script = (
        f'import shutil\nshutil.copy({str(tmp_path / "made")!r}, request["folder"] + "/outputs")\n'
        'say(answer={"difference": 0.0, "executed_by": "nobody"})'
    )
    with worker(script) as file, pytest.raises(DecodeError, match="predictions"):
        file.replay("litert", {"x": np.zeros((2, 2))}, (TAKEN, GIVEN))


def test_predictions_that_are_not_there_are_refused(worker):
    script = 'say(answer={"difference": 0.0, "executed_by": "nobody"})'
    with worker(script) as file, pytest.raises(DecodeError, match="predictions"):
        file.replay("litert", {"x": np.zeros((2, 2))}, (TAKEN, GIVEN))


def test_nothing_is_left_behind(worker, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    before = set(Path("/proc/self/fd").iterdir())
    with worker("os.kill(os.getpid(), signal.SIGSEGV)") as file, pytest.raises(ForeignFileError):
        file.arena()
    monkeypatch.setattr("tempfile.tempdir", None)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_the_process_is_bounded_before_it_touches_the_file_and_our_own_bug_is_told_as_one(tmp_path):
    """The real worker, asked for a work that does not exist: that is not the file's fault."""
    from hedgerow.children.module_child import ModuleChild
    from hedgerow.compile.foreign_worker import MEMORY_BYTES

    # A pipe in the place of the file: the process waits for somebody to write, and its bounds can be read.
    os.mkfifo(tmp_path / "model")
    with ModuleChild("hedgerow.compile.foreign_worker", limit_bytes=2**20, name="foreign") as child:
        request = {"work": "nothing", "kind": "onnx", "folder": str(tmp_path)}
        child.channel.send(json.dumps(request).encode())
        with (tmp_path / "model").open("wb"):
            limits = psutil.Process(child.process_id).rlimit(psutil.RLIMIT_AS)
        failed = json.loads(child.channel.receive() or b"{}")["failed"]
        assert child.wait(30)
        assert child.end().code == 0
    assert limits == (MEMORY_BYTES, MEMORY_BYTES)
    assert failed["kind"] == "InternalError"
    assert "KeyError" in failed["message"]
    assert "Traceback" in json.loads(failed["facts"])["details"]


def test_a_bug_of_ours_is_told_as_one():
    error = InternalError("reading a tflite file", "IndexError: list index out of range", "Traceback ...")
    assert str(error) == (
        "reading a tflite file: expected no error of Hedgerow's own, found IndexError: list index out of range; this "
        "is a bug in Hedgerow, not in what you gave it: report it with the traceback"
    )
    assert (error.exit_code, error.details) == (70, "Traceback ...")


@pytest.mark.heavy
def test_a_file_that_aborts_litert_costs_its_process_alone(scrambled):
    pytest.importorskip("ai_edge_litert")
    with ForeignFile("keyword.tflite", "tflite", scrambled) as file:
        border = file.border()
        samples = {tensor.name: np.zeros((2, *tensor.shape[1:])) for tensor in border[0]}
        with pytest.raises(ForeignFileError) as caught:
            file.replay("litert", samples, border)
    assert caught.value.signal_name in {signal.SIGSEGV.name, signal.SIGABRT.name, signal.SIGBUS.name}
    assert (caught.value.runtime, caught.value.step) == ("LiteRT", "running")


@pytest.mark.heavy
def test_a_runtime_that_does_not_take_a_file_says_so_and_lives(own_int8_file):
    pytest.importorskip("onnxruntime")
    with ForeignFile("own.tflite", "tflite", own_int8_file) as file:
        border = file.border()
        samples = {tensor.name: np.zeros((2, *tensor.shape[1:])) for tensor in border[0]}
        with pytest.raises(RuntimeRefusedError, match="a file that ONNX Runtime loads"):
            file.replay("onnxruntime", samples, border)


@pytest.mark.heavy
def test_both_runtimes_of_tflite_run_our_own_file_and_say_what_ran(own_int8_file):
    from hedgerow.compile.arena import installed_version

    with ForeignFile("own.tflite", "tflite", own_int8_file) as file:
        border = file.border()
        rng = np.random.default_rng(0)
        samples = {tensor.name: rng.normal(size=(4, *tensor.shape[1:])) for tensor in border[0]}
        litert = file.replay("litert", samples, border)
        assert litert.difference == 0.0
        assert litert.executed_by.startswith("LiteRT ")
        assert litert.executed_by.endswith("XNNPACK delegate")
        if installed_version() is None:
            return
        micro = file.replay("tflite-micro", samples, border, arena_bytes=file.arena().bytes)
    assert micro.difference == 0.0
    assert installed_version() in micro.executed_by
    [name] = micro.outputs
    # Ten steps of an int8 probability, as two right executions of one integer model differ.
    assert np.abs(micro.outputs[name] - litert.outputs[name]).max() <= 10 / 256


def one_operator(name: str, kind: str = "FLOAT32", given: str | None = None) -> bytes:
    """Return a file of one operator on four numbers."""
    from tools.operator_tables.tflite_model import TfliteModel

    model = TfliteModel()
    graph = model.graph()
    taken = graph.tensor(kind, (1, 4))
    out = graph.tensor(given or kind, (1, 4))
    graph.record.inputs, graph.record.outputs = [taken], [out]
    graph.operator(name, [taken], [out])
    return model.content()


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("content", "operator", "expected", "found"),
    [
        (
            ("MATRIX_DIAG",),
            "MATRIX_DIAG",
            "operators that TensorFlow Lite Micro has",
            "MATRIX_DIAG, which it does not have",
        ),
        (("FlexErf",), "CUSTOM", "operators that TensorFlow Lite Micro has", "FlexErf, which it does not have"),
        (
            ("ABS", "FLOAT32", "INT8"),
            "ABS",
            "operators that TensorFlow Lite Micro computes",
            "ABS (operator 0, which gives 'main/1'): input->type != output->type (FLOAT32 != INT8)",
        ),
    ],
)
def test_an_operator_that_the_interpreter_of_microcontrollers_refuses_is_named_in_one_sentence(
    content, operator, expected, found
):
    pytest.importorskip("tflite_micro")
    with (
        ForeignFile("one.tflite", "tflite", one_operator(*content)) as file,
        pytest.raises(RuntimeRefusedError) as caught,
    ):
        file.arena()
    error = caught.value
    assert (error.operator, error.expected, error.found) == (operator, expected, found)
    assert str(error) == (
        f"expected {expected}, found: {found}; replace these layers in the model or leave this target out"
    )
    assert error.failure() == ("operators", expected, found)


@pytest.mark.heavy
def test_a_sample_that_is_predicted_once_is_predicted_as_in_a_replay(own_int8_file):
    with ForeignFile("own.tflite", "tflite", own_int8_file) as file:
        border = file.border()
        samples = {tensor.name: np.random.default_rng(1).normal(size=(3, *tensor.shape[1:])) for tensor in border[0]}
        once, twice = file.predict("litert", samples, border), file.replay("litert", samples, border)
    [name] = once.outputs
    assert np.array_equal(once.outputs[name], twice.outputs[name])
    assert once.executed_by == twice.executed_by
