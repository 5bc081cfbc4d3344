"""Rows hold a model's tensors as views, and processes that are forked see the same memory."""

import os

import pytest

pytestmark = pytest.mark.heavy
torch = pytest.importorskip("torch")

from hedgerow.server.cohort.shared_rows import ModelRow, RowLayout, shared_bytes  # noqa: E402

TENSORS = {
    "conv.weight": torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).view(2, 3, 4, 5),
    "steps": torch.tensor(7),
    "half": torch.ones(3, dtype=torch.float64),
    "bias": torch.tensor([1.0, -2.0, 0.5]),
    "none": torch.zeros(0, 4),
}


def test_a_row_gives_back_what_was_copied_into_it() -> None:
    layout = RowLayout(TENSORS)
    row = ModelRow.of(layout, torch.zeros(layout.row_bytes, dtype=torch.uint8))
    for name, tensor in TENSORS.items():
        row.tensors[name].copy_(tensor)
    assert list(row.tensors) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert row.tensors[name].dtype == tensor.dtype
        assert torch.equal(row.tensors[name], tensor)
    assert layout.row_bytes % 64 == 0


def test_weights_of_convolutions_lie_channels_last() -> None:
    layout = RowLayout(TENSORS)
    rows = torch.zeros(3, layout.row_bytes, dtype=torch.uint8)
    assert layout.has_channels_last
    one = layout.views(rows[1])["conv.weight"]
    one.copy_(TENSORS["conv.weight"])
    assert one.is_contiguous(memory_format=torch.channels_last)
    stacked = layout.views(rows)["conv.weight"]
    assert stacked.shape == (3, 2, 3, 4, 5)
    assert torch.equal(stacked[1], TENSORS["conv.weight"])
    assert not stacked[0].any()


def test_tied_tensors_share_a_place() -> None:
    weight = torch.ones(4, 2)
    layout = RowLayout({"first": weight, "other": torch.ones(4, 2), "second": weight})
    assert layout.unique == ("first", "other")
    views = layout.views(torch.zeros(layout.row_bytes, dtype=torch.uint8))
    views["second"].fill_(3)
    assert views["first"].eq(3).all()
    assert not views["other"].any()


def test_segments_cover_each_dtype_once_with_floats_first() -> None:
    layout = RowLayout(TENSORS)
    assert [segment.dtype for segment in layout.segments] == [torch.float32, torch.float64, torch.int64]
    row = torch.zeros(layout.row_bytes, dtype=torch.uint8)
    layout.segments[0].view(row).fill_(2.0)
    views = layout.views(row)
    assert views["bias"].eq(2).all()
    assert views["conv.weight"].eq(2).all()
    assert int(views["steps"]) == 0


def test_a_forked_process_writes_into_the_same_memory() -> None:
    shared = shared_bytes(1000)
    assert not shared.any()
    process_id = os.fork()
    if process_id == 0:
        shared.numpy()[5] = 9
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]) == 0
    assert shared[5] == 9
    assert shared.sum() == 9
