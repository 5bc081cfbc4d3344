"""What a worker makes of an error before it answers."""

import errno

import pytest

from hedgerow.compile.errors import CompileError, DiskError, PassError
from hedgerow.compile.worker import _explained


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
