"""A TFLite file's operators are measured alone, each as the file has it."""

import pytest

torch = pytest.importorskip("torch")

from benchmarks.tflite_profile import OperatorTime, by_operator, operator_times, partitions  # noqa: E402 - needs torch

from hedgerow.compile.passes.tflite.exporter import tflite_bytes  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # litert-torch and its dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Products(torch.nn.Module):
    def forward(self, one, other):
        return (one @ other) * torch.round(one @ one), one @ one


def test_each_operator_is_there_once_with_whose_kernel_ran_it():
    content = tflite_bytes(Products().eval(), (torch.rand(8, 8), torch.rand(8, 8)))
    times = operator_times(content, budget_s=0.001)
    found = {(row.operator, row.by): row for row in times}
    assert found["BATCH_MATMUL", "XNNPACK"].count == 2
    assert found["BATCH_MATMUL", "XNNPACK"].shapes == "8x8 8x8 -> 8x8"
    assert found["MUL", "XNNPACK"].count == 1
    assert all(row.each_ms > 0 for row in times)
    assert partitions(content) >= 1


def test_kinds_are_added_up_and_the_most_costly_is_first():
    rows = [
        OperatorTime(operator="MUL", shapes="1 -> 1", by="XNNPACK", count=2, each_ms=0.5),
        OperatorTime(operator="CONV_2D", shapes="2 -> 2", by="LiteRT", count=1, each_ms=3.0),
        OperatorTime(operator="MUL", shapes="3 -> 3", by="XNNPACK", count=1, each_ms=0.25),
    ]
    assert by_operator(rows) == [
        {"operator": "CONV_2D", "by": "LiteRT", "count": 1, "ms": 3.0},
        {"operator": "MUL", "by": "XNNPACK", "count": 3, "ms": 1.25},
    ]
