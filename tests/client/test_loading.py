"""From a verified slot to a model that runs: each way in which that is refused, and whose fault it is."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hedgerow.client.errors import AgentFaultError, InstallError, RejectedError, TransferError
from hedgerow.client.loading import (
    find_runtime,
    load_model,
    load_train_step,
    replay_golden,
    try_model,
    try_train_graph,
)
from hedgerow.client.runtimes.linear import LinearRuntime, load_linear
from hedgerow.client.slot_folders import OpenSlot, SlotFolders
from hedgerow.errors import ExtraNotInstalledError
from hedgerow.installation import install_command
from tests.client.conftest import Release, with_golden, without_golden, without_train_graph
from tests.client.remembering import Remembering, streaming

ZEROS = np.zeros((2, 4), np.float32)


@pytest.fixture
def opened(tmp_path):
    def make(made: Release) -> OpenSlot:
        folders = SlotFolders(tmp_path / "state", "bench")
        files = {}
        for blob in made.manifest.blobs():
            path = tmp_path / blob.sha256
            path.write_bytes(made.blobs[blob.sha256])
            files[blob] = path
        return folders.open(folders.fill_idle(made.manifest.encode(), made.name, files))

    return make


@dataclass
class Answering:
    """A runtime whose model gives one answer to everything, and keeps what it was asked."""

    outputs: dict
    asked: list

    def load(self, _path: Path, _artifact):
        return self

    def predict(self, inputs):
        self.asked.append(inputs)
        return self.outputs


class Raising(LinearRuntime):
    """A runtime that raises where it loads."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def load(self, _path, _artifact):
        raise self.error


def raising(error: Exception):
    def runtimes(_name: str):
        raise error

    return runtimes


def test_an_unknown_runtime_is_rejected():
    with pytest.raises(RejectedError) as caught:
        find_runtime("onnx", "demo@1", load_linear)
    assert (caught.value.release, caught.value.expected) == ("demo@1", "the runtime onnx")
    assert str(caught.value).startswith("demo@1 is refused: expected the runtime onnx, found only ")
    assert str(caught.value).endswith("; install it or compile for another one")
    assert str(caught.value).count(";") == 1


def test_a_runtime_that_is_not_installed_is_rejected():
    absent = ExtraNotInstalledError("litert", "LiteRT")
    with pytest.raises(RejectedError) as caught:
        find_runtime("litert", "demo@1", raising(absent))
    assert str(caught.value) == (
        "demo@1 is refused: expected the runtime litert, found that it is not installed; run: "
        f"{install_command('LiteRT')}, or compile for another one"
    )


def test_a_runtime_that_cannot_be_loaded_may_be_tried_again():
    with pytest.raises(InstallError) as caught:
        find_runtime("ort", "demo@1", raising(ImportError("libstdc++ " + "x" * 400)))
    assert type(caught.value) is InstallError
    found = ("ImportError: libstdc++ " + "x" * 400)[:300]
    assert str(caught.value) == (
        f"loading the runtime ort: expected one that works here, found {found}; install it anew"
    )


def test_an_error_of_our_own_passes_a_runtime_as_it_is(opened, release):
    own = TransferError("GET", "an answer", "none")
    with pytest.raises(TransferError) as caught:
        find_runtime("ort", "demo@1", raising(own))
    assert caught.value is own
    with pytest.raises(TransferError) as caught:
        load_model(opened(release(1)), lambda _name: Raising(own))
    assert caught.value is own


def test_a_file_that_the_runtime_does_not_take_may_be_tried_again(opened, release):
    with pytest.raises(InstallError) as caught:
        load_model(opened(release(1)), lambda _name: Raising(ValueError("no such operator " + "x" * 400)))
    assert str(caught.value) == (
        "loading the artifact: expected a file for linear, found "
        f"{('ValueError: no such operator ' + 'x' * 400)[:300]}; it may be tried again"
    )


def test_golden_samples_that_are_no_arrays_are_refused(opened, release):
    ready = load_model(opened(with_golden(release(1), b"garbage")), load_linear)
    with pytest.raises(InstallError) as caught:
        replay_golden(ready)
    assert str(caught.value).startswith("the golden samples: expected ")
    assert str(caught.value).endswith("; compile the release again")


def test_golden_samples_without_an_output_are_refused(opened, release):
    ready = load_model(opened(with_golden(release(1), {"input.x": ZEROS})), load_linear)
    with pytest.raises(InstallError) as caught:
        replay_golden(ready)
    assert str(caught.value) == (
        "the golden samples: expected probabilities of shape (2, 3), found none; compile the release again"
    )


def test_golden_samples_of_another_shape_are_refused(opened, release):
    golden = {"input.x": ZEROS, "output.probabilities": np.zeros((2, 4), np.float32)}
    ready = load_model(opened(with_golden(release(1), golden)), load_linear)
    with pytest.raises(InstallError) as caught:
        replay_golden(ready)
    assert str(caught.value) == (
        "the golden samples: expected probabilities of shape (2, 3), found shape (2, 4); compile the release again"
    )


def test_a_model_without_an_output_of_the_golden_samples_is_refused(opened, release):
    golden = {"input.x": ZEROS, "output.b": ZEROS, "output.a": ZEROS}
    slot = opened(with_golden(release(1), golden))
    with pytest.raises(InstallError) as caught:
        replay_golden(load_model(slot, lambda _name: Answering({}, [])))
    assert str(caught.value) == (
        "the golden samples: expected the outputs a, b, found a model without them; compile it again"
    )


@pytest.mark.parametrize(
    ("given", "difference"),
    [(1e-4, None), (2e-4, "0.0002"), (-2e-4, "0.0002"), (np.nan, "1.79769e+308"), (np.inf, "1.79769e+308")],
)
def test_outputs_within_the_tolerance_pass_and_others_are_refused_with_their_distance(
    opened, release, given, difference
):
    golden = {"input.x": ZEROS[:1], "output.probabilities": np.zeros((1, 3), np.float64)}
    slot, outputs = opened(with_golden(release(1), golden)), {"probabilities": np.array([[0.0, given, 0.0]])}
    ready = load_model(slot, lambda _name: Answering(outputs, []))
    if difference is None:
        assert replay_golden(ready) == given
        return
    with pytest.raises(InstallError) as caught:
        replay_golden(ready)
    assert caught.value.expected == "outputs within 0.0001 of those at build time"
    assert str(caught.value).endswith(
        "; this device computes differently; compile with a wider tolerance or for another target"
    )
    if np.isfinite(given):
        assert caught.value.found == f"a difference of {difference}"


def test_golden_samples_are_given_to_the_model_by_the_names_of_the_schema(opened, release):
    asked = []
    golden = {"input.x": ZEROS + 1, "output.probabilities": np.zeros((2, 3), np.float32)}
    answering = Answering({"probabilities": np.zeros((2, 3), np.float32)}, asked)
    assert replay_golden(load_model(opened(with_golden(release(1), golden)), lambda _name: answering)) == 0.0
    ((inputs,), names) = asked, list(asked[0])
    assert names == ["x"]
    assert np.array_equal(inputs["x"], ZEROS + 1)


def test_a_release_without_golden_samples_is_run_on_zeros_in_its_trial(opened, release):
    asked, entered = [], []
    slot = opened(without_golden(release(1)))
    ready = try_model(slot, lambda _name: Answering({}, asked), entered.append)
    assert ready.release == "demo@1"
    assert entered == ["load", "replay"]
    (inputs,) = asked
    assert {name: (array.shape, str(array.dtype), array.any()) for name, array in inputs.items()} == {
        "x": ((1, 4), "float32", False)
    }
    assert replay_golden(ready) is None


def test_golden_samples_of_other_inputs_are_refused_in_the_trial(opened, release):
    slot = opened(with_golden(release(1), {"input.y": ZEROS}))
    with pytest.raises(InstallError) as caught:
        try_model(slot, load_linear, lambda _step: None)
    assert str(caught.value) == (
        "the golden samples: expected inputs of the schema, found expected the inputs x, found y; "
        "compile the release again"
    )


def test_a_release_without_a_train_graph_has_none_to_load(opened, release):
    slot = opened(without_train_graph(release(1)))
    entered = []
    for call in (
        lambda: load_train_step(slot, load_linear),
        lambda: try_train_graph(slot, load_linear, entered.append),
    ):
        with pytest.raises(InstallError) as caught:
            call()
        assert str(caught.value) == ("loading the train graph: expected one in demo@1, found none; compile one into it")
    assert entered == ["load"]


def test_a_train_graph_takes_one_step_of_its_trial(opened, release):
    entered = []
    try_train_graph(opened(release(1)), load_linear, entered.append)
    assert entered == ["load", "step"]


class Foreign(LinearRuntime):
    """A runtime of somebody else's, which raises what it likes."""

    def load(self, *_unused):
        raise KeyError("no kernel\nfor node 7")


def test_a_model_loads(opened, release):
    assert load_model(opened(release(1)), load_linear).release == "demo@1"


def test_what_a_runtime_raises_is_said_of_the_file(opened, release, caplog):
    with pytest.raises(InstallError, match="a file for linear, found KeyError: 'no kernel") as caught:
        load_model(opened(release(1)), lambda _name: Foreign())
    assert not isinstance(caught.value, AgentFaultError)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caplog.records == []


def test_a_bug_of_ours_is_not_said_of_the_file(opened, release, monkeypatch, caplog):
    monkeypatch.setattr("hedgerow.client.runtimes.linear._LinearModel", None)
    with pytest.raises(AgentFaultError) as caught:
        load_model(opened(release(1)), load_linear)
    said = str(caught.value)
    assert said.startswith("loading the artifact: expected no error of the agent's own, found TypeError: 'NoneType'")
    assert "this is a bug in Hedgerow, not in the release" in said
    assert "a file for" not in said
    [record] = caplog.records
    assert (record.levelno, record.exc_info[0]) == (logging.ERROR, TypeError)


def test_a_bug_of_ours_while_a_runtime_is_looked_up_is_not_said_of_the_runtime(monkeypatch):
    monkeypatch.setattr("hedgerow.client.runtimes.linear.LinearRuntime", None)
    with pytest.raises(AgentFaultError, match="loading the runtime linear: expected no error of the agent's own"):
        find_runtime("linear", "demo@1", load_linear)


def test_a_bug_of_ours_is_an_installation_that_failed_and_may_be_tried_again():
    assert issubclass(AgentFaultError, InstallError)


def test_golden_samples_of_a_model_with_state_are_replayed_as_sequences(opened, release):
    class Watched(Remembering):
        def __init__(self) -> None:
            self.counts: list[float] = []

        def predict(self, inputs):
            self.counts.append(float(inputs["h"][0, 1, 0, 0]))
            return super().predict(inputs)

    model = Watched()
    ready = load_model(opened(streaming(release(1))), lambda _name: model)

    assert replay_golden(ready) == 0.0
    assert model.counts == [0, 1, 2, 0, 1, 2]


def test_a_device_that_remembers_otherwise_is_found_where_its_own_state_is_carried(opened, release):
    x = np.ones((40, 4), np.float32)
    model = Remembering()
    model.drift = 0.009  # each step alone stays within the tolerance of 0.01
    ready = load_model(opened(streaming(release(1), x)), lambda _name: model)

    with pytest.raises(InstallError, match=r"outputs within 0.01 of those at build time, found a difference of 0.18"):
        replay_golden(ready)


def test_samples_with_a_state_of_their_own_are_replayed_each_alone(opened, release):
    made = streaming(release(1))
    golden = {
        "input.x": np.ones((3, 4), np.float32),
        "input.h": np.full((3, 2, 1, 4), 5, np.float32),
        "output.probabilities": np.eye(3, dtype=np.float32)[[2, 2, 2]],
        "output.h_next": np.full((3, 2, 1, 4), 6, np.float32),
    }
    ready = load_model(opened(with_golden(made, golden)), lambda _name: Remembering())

    assert replay_golden(ready) == 0.0


def test_a_model_with_state_and_no_golden_samples_is_tried_on_zeros(opened, release):
    tried = try_model(opened(without_golden(streaming(release(1)))), lambda _name: Remembering(), lambda _step: None)

    assert tried.release == "demo@1"
