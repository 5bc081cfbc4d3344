"""The zoo's train graphs are compared with torch: a row for each model and format, near enough, or the refusal."""

import json

import pytest

torch = pytest.importorskip("torch")

from benchmarks import zoo_parity  # noqa: E402 - needs torch
from benchmarks.train_graph import main  # noqa: E402
from click.testing import CliRunner  # noqa: E402

from hedgerow.compile.errors import UntranslatableError  # noqa: E402
from hedgerow.compile.train_graph.parity import FORMATS  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # torch, litert-torch and their dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def test_a_model_of_the_zoo_steps_as_torch_does_in_both_formats():
    result = CliRunner().invoke(main, ["--zoo", "raw_sensors", "--steps", "20", "--json"])
    assert result.exception is None
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["rows"] == []
    assert [(row["model"], row["format"], row["steps"]) for row in found["parity"]] == [
        ("raw_sensors", kind, 20) for kind in FORMATS
    ]
    for row in found["parity"]:
        assert row["passed"], row
        # 3,413 numbers in and out are names and shapes; the graph itself holds none of them.
        assert row["bytes"] > 5_000
        assert row["refused"] is None
        assert row["torch_alone"] > row["many_steps"] / 10


def test_a_model_without_a_train_graph_has_the_reason_in_its_row(monkeypatch):
    def refuse(_source, _kind):
        raise UntranslatableError(("aten.cumprod",))

    monkeypatch.setattr(zoo_parity, "export_train_graph", refuse)
    (row,) = zoo_parity.zoo_parity(["mlp"], ["onnx"])
    assert (row["passed"], row["one_step"], row["bytes"]) == (False, None, None)
    assert "cannot hold the operators aten.cumprod" in row["refused"]
