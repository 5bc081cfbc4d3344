"""Other tools quantize a small model as the benchmark asks them to."""

import pytest

torch = pytest.importorskip("torch")

from benchmarks.compile import measure, stage_of  # noqa: E402 - needs torch
from benchmarks.tools import TOOLS, NotRunError  # noqa: E402

from hedgerow.compile.pass_models import FloatModel  # noqa: E402
from hedgerow.examples.zoo import ZOO  # noqa: E402
from hedgerow.task import load_task  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # Converters and their dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def source() -> FloatModel:
    task = load_task(ZOO["mlp"].task)
    torch.manual_seed(0)
    calibration = task.calibration(task.load_data())
    return FloatModel(task=task, model=task.model().eval(), calibration=calibration)


@pytest.mark.parametrize("tool", ["onnxruntime quantize_static", "ai-edge-quantizer static_wi8_ai8"])
def test_a_tools_file_runs_and_is_measured(tool, source):
    kind, quantize = TOOLS[tool]
    row = measure(source.task, tool, stage_of(source, kind, quantize(source)), source.calibration)
    assert (row.tool, row.format) == (tool, kind)
    assert 3_426 < row.bytes < 15_000
    assert 0 < row.accuracy < 0.5  # it was not trained
    assert row.latency_ms > 0


def test_a_tool_whose_environment_is_absent_says_how_to_give_it(monkeypatch, source):
    monkeypatch.delenv("HEDGEROW_NNCF_PYTHON", raising=False)
    with pytest.raises(NotRunError, match="HEDGEROW_NNCF_PYTHON"):
        TOOLS["nncf quantize"][1](source)
