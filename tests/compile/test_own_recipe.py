"""A recipe and a pass of a user's own, as docs/compile.md shows them, through the command and its workers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hedgerow.cli import main

pytestmark = pytest.mark.heavy

BLOCK = re.compile(r"<!-- recipe -->\n```python\n(.*?)```\n<!-- /recipe -->", re.DOTALL)
(DOCUMENTED,) = BLOCK.findall((Path(__file__).parents[2] / "docs" / "compile.md").read_text())
ROUNDED = "np.rint(weights / step) * step"


def compiled(digits, checkpoint, folder, capsys):
    """Compile by ``mine.py:RECIPE`` in *folder*; return the exit code and what ``--json`` prints."""
    command = ["compile", str(checkpoint), "--task", digits, "--target", "x86-gateway", "--jobs", "1", "--json"]
    code = main([*command, "--recipe", f"x86-gateway={folder}/mine.py:RECIPE", "--out", str(folder / "build")])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_documented_recipe_is_compiled_recorded_and_cached(
    digits, digits_checkpoint, tmp_path, capsys, monkeypatch
):
    onnx = pytest.importorskip("onnx")
    monkeypatch.setenv("HEDGEROW_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text(DOCUMENTED)
    code, record = compiled(digits, digits_checkpoint, tmp_path, capsys)
    [artifact] = record["artifacts"]
    assert (code, record["refused"], record["cached"]) == (0, [], 0)
    assert artifact["recipe"] == f"{tmp_path}/mine.py:RECIPE"
    assert artifact["passes"] == ["export-onnx", "share-weights(values=255)", "trim-onnx"]
    model = onnx.load_model(tmp_path / "build" / "blobs" / artifact["sha256"])
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    matrices = [value for value in weights if value.ndim > 1 and value.dtype == np.float32]
    assert 100 < max(len(np.unique(matrix)) for matrix in matrices) <= 255

    assert compiled(digits, digits_checkpoint, tmp_path, capsys)[1]["cached"] == 1

    # Other code under the same settings is another pass: nothing comes from the cache, and what it raises names it.
    (tmp_path / "mine.py").write_text(DOCUMENTED.replace(ROUNDED, f'{ROUNDED} / {{}}["scale"]'))
    code, record = compiled(digits, digits_checkpoint, tmp_path, capsys)
    [refused] = record["refused"]
    assert (code, record["cached"], refused["check"]) == (1, 0, "pass")
    assert refused["reason"].startswith(
        "share-weights: expected a model that this step can convert, but it failed: Key"
    )
    assert "details" not in refused


RETURN = "return replace(stage, content=model.SerializeToString(deterministic=True))"
LAST = DOCUMENTED.replace("ShareWeights(values=255), TrimOnnx()", "ShareWeights(values=255)")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("return replace(stage, content=b'')", "onnx: expected "),
        ("return replace(stage, content=b'garbage' * 99)", "onnx: expected "),
        ("return replace(stage, content='text')", "it gave a str as the file's content"),
        ("return replace(stage, outputs=())", "it names the outputs \\[\\] "),
        ("model.graph.node[0].op_type = 'Nothing'; " + RETURN, ".*Nothing"),
        ("from hedgerow.errors import HedgerowError; raise HedgerowError('no table')", "HedgerowError: no table"),
        ("raise PermissionError(13, 'Permission denied', '/no/table')", "PermissionError: .*'/no/table'"),
    ],
)
def test_whatever_goes_wrong_in_a_pass_of_ones_own_names_the_pass(
    digits, digits_checkpoint, tmp_path, capsys, monkeypatch, code, said
):
    pytest.importorskip("onnx")
    monkeypatch.setenv("HEDGEROW_CACHE", str(tmp_path / "cache"))
    assert RETURN in LAST
    (tmp_path / "mine.py").write_text(LAST.replace(RETURN, code))
    ended, record = compiled(digits, digits_checkpoint, tmp_path, capsys)
    [refused] = record["refused"]
    assert (ended, refused["check"]) == (1, "pass")
    wanted = f"share-weights: expected a model that this step can convert, but it failed: {said}"
    assert re.match(wanted, refused["reason"]), refused["reason"]
