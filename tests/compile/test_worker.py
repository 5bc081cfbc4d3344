"""What a worker makes of an error before it answers."""

import errno

import pytest

from hedgerow.compile.errors import CompileError, DiskError, InternalError, PassError
from hedgerow.compile.failures import decode_failure
from hedgerow.compile.messages import Job, SentRecipe
from hedgerow.compile.profile.memory import peak_bytes
from hedgerow.compile.recipes import find_recipe
from hedgerow.compile.worker import _explained, _work_through
from hedgerow.decode import Fields
from hedgerow.hardware import load_target


def raised(error: CompileError, cause: Exception) -> CompileError:
    try:
        raise error from cause
    except CompileError as exc:
        return exc


def test_a_full_disk_is_told_as_such_however_deep_a_library_hid_it():
    full = OSError(errno.ENOSPC, "No space left on device", "model.onnx")
    assert str(_explained(full)).startswith("expected files that can be read and written, found: No space left")
    assert isinstance(_explained(raised(PassError("export-tflite", "it failed"), full)), DiskError)


@pytest.mark.parametrize(
    "said", ["RuntimeError: write: No space left on device", "RuntimeError: [MIL FileWriter]: Unknown error occurred"]
)
def test_native_code_that_could_not_write_is_known_by_its_words(said):
    found = _explained(PassError("export-coreml", said))
    assert isinstance(found, DiskError)
    assert said in str(found)


def test_any_other_error_stays_what_it_is():
    error = raised(PassError("export-onnx", "no such operator"), FileNotFoundError(errno.ENOENT, "No such file"))
    assert _explained(error) is error


class Bench:
    """A workbench whose foundation is nothing: the units below do not look at it."""

    def foundation(self, *_arguments):
        return None


@pytest.mark.heavy
def test_a_bug_of_ours_costs_its_unit_alone_and_is_told_as_ours(monkeypatch):
    units = pytest.importorskip("hedgerow.compile.units")

    def do_unit(_foundation, unit, _job, _report):
        return {"done": unit.name} if unit.name != "x86-gateway" else {"peak": peak_bytes(None)}

    monkeypatch.setattr(units, "do_unit", do_unit)
    job = Job(
        toolchain="onnx",
        task="task.py:task",
        checkpoint="",
        weights_sha256="",
        folder="",
        search_path=(),
        max_drop=0.015,
        limit_s=600.0,
        artifacts=dict.fromkeys(("x86-gateway", "raspberry-pi-4"), SentRecipe.of(find_recipe("onnx-float"))),
        targets={name: load_target(name) for name in ("x86-gateway", "raspberry-pi-4")},
        train_formats=(),
        train_options=(),
        reference=False,
        counts={},
    )
    sent = []
    _work_through(job, Bench(), sent.append)
    refused, answered = [message for message in sent if {"refused", "artifact"} & message.keys()]
    assert answered == {"artifact": {"done": "raspberry-pi-4"}}
    assert refused["refused"]["name"] == "x86-gateway"
    error = decode_failure(Fields(refused["refused"]["failure"], "failure"))
    assert type(error) is InternalError
    assert error.step == "compiling x86-gateway by onnx-float"
    assert "peak_bytes" in error.details
    assert error.exit_code == 70
