import subprocess
import sys

import pytest

import hedgerow.compile


def test_importing_compile_loads_no_converter():
    code = (
        "import sys, hedgerow.compile.cli; from hedgerow.compile import Build, compile_checkpoint; "
        "heavy = ('torch', 'onnx', 'onnxruntime', 'litert_torch', 'coremltools', 'rich'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"


def test_every_public_name_can_be_had():
    assert all(callable(getattr(hedgerow.compile, name)) for name in hedgerow.compile.__all__)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hedgerow.compile.nothing
