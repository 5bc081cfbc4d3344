"""Tests of hedgerow.client.sample_file."""

from itertools import islice

import numpy as np
import pytest

from hedgerow.client import SourceContext
from hedgerow.client.errors import AgentSettingsError
from hedgerow.client.sample_file import stream


def context(path, device="d1", **options):
    return SourceContext(device, path.parent, {"file": str(path), "rate_per_s": "0", **options})


def test_the_samples_come_again_and_again_in_an_order_that_is_the_devices_own(tmp_path):
    np.savez(tmp_path / "s.npz", x=np.arange(10, dtype=np.float32).reshape(5, 2), labels=np.array([0, 1, 2, -1, 1]))

    first, again = (list(islice(stream(context(tmp_path / "s.npz")), 10)) for _ in range(2))
    other = list(islice(stream(context(tmp_path / "s.npz", device="d2")), 5))

    rows = [sample.inputs["x"].tolist() for sample in first]
    assert sorted(rows[:5]) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert rows[5:] == rows[:5] == [sample.inputs["x"].tolist() for sample in again][:5]
    assert rows[:5] != [sample.inputs["x"].tolist() for sample in other]
    wanted = {tuple(sample.inputs["x"]): int(sample.target_value[""]) for sample in first}
    assert wanted == {(0, 1): 0, (2, 3): 1, (4, 5): 2, (6, 7): -1, (8, 9): 1}
    assert {(sample.use, sample.begins) for sample in first} == {("serve", False)}


def test_sequences_are_streams_that_begin_anew(tmp_path):
    np.savez(
        tmp_path / "s.npz", x=np.arange(6, dtype=np.float32).reshape(2, 3), labels=np.array([[0, 1, 0], [1, 1, 1]])
    )

    found = list(islice(stream(context(tmp_path / "s.npz", sequences="1")), 6))

    assert [sample.begins for sample in found] == [True, False, False, True, False, False]
    assert sorted([float(found[0].inputs["x"]), float(found[3].inputs["x"])]) == [0, 3]
    assert [int(sample.target_value[""]) for sample in found if sample.inputs["x"] < 3] == [0, 1, 0]


def test_several_outputs_have_target_values_by_their_names(tmp_path):
    arrays = {"target_values.state": np.array([1, -1]), "target_values.level": np.array([[0.5], [np.nan]], np.float32)}
    np.savez(tmp_path / "s.npz", x=np.arange(2, dtype=np.float32), **arrays)

    found = {int(sample.inputs["x"]): sample.target_value for sample in islice(stream(context(tmp_path / "s.npz")), 2)}

    assert (int(found[0]["state"]), found[0]["level"].tolist()) == (1, [0.5])
    assert (int(found[1]["state"]), np.isnan(found[1]["level"]).tolist()) == (-1, [True])


def test_a_file_without_labels_gives_samples_without(tmp_path):
    np.savez(tmp_path / "s.npz", x=np.ones((2, 1), np.float32))

    assert [sample.target_value for sample in islice(stream(context(tmp_path / "s.npz")), 3)] == [None, None, None]


@pytest.mark.parametrize(
    ("arrays", "options", "sentence"),
    [
        (None, {}, r"expected arrays by name in .*s\.npz, found none \(No such file or directory\); correct the file"),
        ({"x": np.ones(2)}, {"file": ""}, r"expected arrays by name in \., found none \(Is a directory\)"),
        (
            {"x": np.ones(2), "y": np.ones(3)},
            {},
            r"expected as many samples in each array of .*, found 2, 3; correct it",
        ),
        (
            {"x": np.ones(2), "labels": np.ones(2, int), "target_values": np.ones(2)},
            {},
            r"s\.npz: expected target values as 'labels' or as 'target_values', found both; leave one out",
        ),
        ({"labels": np.ones(2)}, {}, r"expected as many samples in each array of .*, found 2; correct it"),
        ({"x": np.ones(2)}, {"rate_per_s": "fast"}, "--source-option rate_per_s: expected a number; correct it"),
    ],
)
def test_what_is_no_file_of_samples_is_told(tmp_path, arrays, options, sentence):
    if arrays is not None:
        np.savez(tmp_path / "s.npz", **arrays)

    with pytest.raises(AgentSettingsError, match=sentence):
        next(stream(context(tmp_path / "s.npz", **options)))
    with pytest.raises(AgentSettingsError, match=r"expected --source-option file=SAMPLES\.npz, found none"):
        next(stream(SourceContext("d1", tmp_path)))
