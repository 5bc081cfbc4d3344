import random

import pytest

pytest.importorskip("onnx")
pytest.importorskip("ai_edge_litert")

from tools import fuzz_model_files
from tools.fuzz_model_files import Fate, fate_of, fuzz, mutated

from hedgerow.compile import targets_cli, third_party
from hedgerow.compile.errors import InternalError
from tests.compile.foreign_models import linear_onnx, samples, write_samples

pytestmark = pytest.mark.heavy


@pytest.fixture
def whole(tmp_path):
    values, labels = samples(24)
    (tmp_path / "plain.onnx").write_bytes(linear_onnx())
    return tmp_path / "plain.onnx", write_samples(tmp_path / "data.npz", x=values, labels=labels)


def test_damage_depends_on_the_seed_alone_and_is_damage():
    content = linear_onnx()
    made = [mutated(content, random.Random(seed)) for seed in range(20)]
    assert made == [mutated(content, random.Random(seed)) for seed in range(20)]
    assert sum(each != content for each in made) >= 19


def test_a_whole_file_is_packed_and_no_file_at_all_is_refused(whole, tmp_path):
    path, data = whole
    assert fate_of(path, data) == Fate("packed", "", (), is_measured=True)
    (tmp_path / "none.onnx").write_bytes(b"none")
    refused = fate_of(tmp_path / "none.onnx", data)
    assert refused.kind == "refused"
    assert refused.said.startswith("none.onnx: expected ")
    assert refused.refused_by == ("file",)


def test_every_whole_file_is_packed_and_measured_so_that_damage_alone_is_refused(tmp_path):
    for name, (content, data) in fuzz_model_files._files(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        fate = fate_of(tmp_path / name, data)
        assert (name, fate.kind, fate.is_measured) == (name, "packed", True)


def test_a_bug_that_the_check_alone_meets_is_counted(whole, monkeypatch):
    def fail(*_args: object, **_options: object) -> None:
        raise InternalError("reading", "KeyError: 1", "Traceback")

    monkeypatch.setattr(targets_cli, "check_model", fail)
    assert fate_of(*whole).kind == "internal"


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ValueError("odd"), "raised"), (InternalError("reading", "KeyError: 1", "Traceback"), "internal")],
)
def test_what_goes_wrong_is_counted_and_the_file_is_kept(error, kind, whole, tmp_path, monkeypatch):
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(third_party, "judge_as_it_is" if kind == "raised" else "read_model_file", fail)
    monkeypatch.setattr(fuzz_model_files, "mutated", lambda content, _rng: content)
    path, data = whole
    result = fuzz({"plain.onnx": (path.read_bytes(), data)}, 1, seed=0, kept=tmp_path / "kept")
    assert result["fates"] == {kind: 1}
    assert [(each["number"], each["file"]) for each in result["wrong"]] == [(0, "plain.onnx")]
    assert (tmp_path / "kept" / "0-plain.onnx").read_bytes() == path.read_bytes()


def test_an_end_that_takes_longer_than_a_minute_is_counted_as_slow(whole):
    times = iter([0.0, 61.0])
    assert fate_of(*whole, clock=lambda: next(times)).kind == "slow"


def test_a_hundred_damaged_files_are_packed_or_refused_in_a_sentence(tmp_path):
    result = fuzz(fuzz_model_files._files(tmp_path), 100, seed=0, kept=tmp_path / "kept")
    assert result["wrong"] == []
    assert result["mutations"] == 100
    # Damage comes as far as the runtimes, and not only to the parsers.
    assert result["measured"] >= 10
    assert {"file", "process", "golden"} & result["refused_by"].keys() >= {"file", "golden"}
