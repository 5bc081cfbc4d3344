"""Whose fault it is when a model does not load: the file's, the runtime's or ours."""

import logging

import pytest

from hedgerow.client.errors import AgentFaultError, InstallError
from hedgerow.client.loading import find_runtime, load_model
from hedgerow.client.runtimes.linear import LinearRuntime, load_linear
from hedgerow.client.slot_folders import OpenSlot
from hedgerow.reference import Reference


@pytest.fixture
def slot(tmp_path, release) -> OpenSlot:
    made = release(1)
    (tmp_path / "blobs").mkdir()
    for sha256, content in made.blobs.items():
        (tmp_path / "blobs" / sha256).write_bytes(content)
    return OpenSlot(tmp_path, made.manifest, made.manifest.artifacts[0], Reference(()))


class Foreign(LinearRuntime):
    """A runtime of somebody else's, which raises what it likes."""

    def load(self, *_unused):
        raise KeyError("no kernel\nfor node 7")


def test_a_model_loads(slot):
    assert load_model(slot, load_linear).release == "demo@1"


def test_what_a_runtime_raises_is_said_of_the_file(slot, caplog):
    with pytest.raises(InstallError, match="a file for linear, found KeyError: 'no kernel") as caught:
        load_model(slot, lambda _name: Foreign())
    assert not isinstance(caught.value, AgentFaultError)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caplog.records == []


def test_a_bug_of_ours_is_not_said_of_the_file(slot, monkeypatch, caplog):
    monkeypatch.setattr("hedgerow.client.runtimes.linear._LinearModel", None)
    with pytest.raises(AgentFaultError) as caught:
        load_model(slot, load_linear)
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
