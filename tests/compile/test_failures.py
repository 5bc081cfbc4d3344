import pytest

from hedgerow.compile.errors import VerificationError
from hedgerow.compile.failures import decode_failure, encode_failure
from hedgerow.decode import Fields
from hedgerow.errors import ExtraNotInstalledError, HedgerowError, TaskError, UnknownNameError


@pytest.mark.parametrize(
    "error",
    [
        VerificationError("x86-gateway", "size", "fewer bytes", "more bytes"),
        TaskError("'digits'", ["no inputs", "no labels"]),
        UnknownNameError("target", "toaster", ["x86-gateway"]),
        ExtraNotInstalledError("compiling", "compile", "torch"),
    ],
)
def test_an_error_comes_back_with_class_sentence_and_facts(error):
    found = decode_failure(Fields(encode_failure(error), "failure"))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)


@pytest.mark.parametrize(
    ("module", "kind"), [("os", "system"), ("hedgerow.task", "Task"), ("hedgerow.errors", "Nothing")]
)
def test_a_name_that_is_no_error_of_ours_becomes_the_root_class(module, kind):
    record = {"module": module, "kind": kind, "message": "sentence", "facts": "{}"}
    found = decode_failure(Fields(record, "failure"))
    assert type(found) is HedgerowError
    assert str(found) == "sentence"
