"""An artifact that takes prepared samples is two files on a device: stored, checked, loaded and run in order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hedgerow.client.errors import SlotDamagedError
from hedgerow.client.loading import load_model, replay_golden
from hedgerow.client.runtimes.prepared import first_half
from hedgerow.client.slot_folders import OpenSlot, SlotFolders, needed_blobs
from hedgerow.client.slots import Slot
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Tensor
from hedgerow.manifest.preparation import Preparation
from hedgerow.weights import encode_arrays
from tests.client.conftest import Release, blob_of

PREPARED = Tensor("prepared_0", "args_0", (1, 4), "float32")
X = np.arange(8, dtype=np.float32).reshape(2, 4)


class Times:
    """A runtime whose files hold one digit: a model multiplies by it, from its first input to its first output."""

    def load(self, path: Path, artifact: Artifact) -> "Times":
        found = Times()
        found.factor, found.artifact = np.float32(int(path.read_text())), artifact
        return found

    def predict(self, inputs):
        return {self.artifact.outputs[0].name: inputs[self.artifact.inputs[0].name] * self.factor}


@pytest.fixture
def made(release) -> Release:
    """demo@1 whose model multiplies by 3 what was multiplied by 2 before."""
    plain = release(1)
    golden = encode_arrays({"input.x": X, "output.probabilities": X * 6})
    contents = {"model": b"3", "prepare": b"2", "source": b"/* C */", "golden": golden}
    blobs = {name: blob_of(content) for name, content in contents.items()}
    artifact = plain.manifest.artifacts[0]
    prepare = Preparation(
        blob=blobs["prepare"], source=blobs["source"], inputs=artifact.inputs, outputs=(replace(PREPARED, tensor="o"),)
    )
    artifact = replace(
        artifact, blob=blobs["model"], golden=blobs["golden"], inputs=(PREPARED,), prepare=prepare, golden_tolerance=0
    )
    kept = plain.blobs | {blobs[name].sha256: content for name, content in contents.items()}
    return Release(replace(plain.manifest, artifacts=(artifact,)), kept)


@pytest.fixture
def folders(tmp_path, made) -> SlotFolders:
    found, files = SlotFolders(tmp_path / "state", "bench"), {}
    for blob in needed_blobs(made.manifest, made.manifest.artifacts[0]):
        path = tmp_path / blob.sha256
        path.write_bytes(made.blobs[blob.sha256])
        files[blob] = path
    found.fill_idle(made.manifest.encode(), made.name, files)
    return found


@pytest.fixture
def opened(folders) -> OpenSlot:
    return folders.open(Slot.A)


def test_a_device_stores_what_prepares_and_not_its_source(made):
    artifact = made.manifest.artifacts[0]
    needed = needed_blobs(made.manifest, artifact)
    assert artifact.prepare.blob in needed
    assert artifact.prepare.source not in needed


def test_a_release_holds_both(made):
    artifact = made.manifest.artifacts[0]
    assert {artifact.prepare.blob, artifact.prepare.source} <= set(made.manifest.blobs())


def test_the_two_files_run_one_after_the_other(opened):
    ready = load_model(opened, lambda _name: Times())
    assert np.array_equal(ready.model.predict({"x": X})["probabilities"], X * 6)


def test_golden_samples_are_replayed_from_raw_inputs(opened):
    assert replay_golden(load_model(opened, lambda _name: Times())) == 0.0


def test_serving_needs_what_prepares(folders, made):
    blob = made.manifest.artifacts[0].prepare.blob
    (folders.slot_folder(Slot.A) / "blobs" / blob.sha256).write_text("9")
    with pytest.raises(SlotDamagedError, match="a blob with SHA-256"):
        folders.open(Slot.A, must_be_whole=False)


def test_an_artifact_that_takes_raw_samples_has_no_first_half(release):
    assert first_half(release(1).manifest.artifacts[0]) is None


def test_the_first_half_takes_what_the_schema_says(made):
    artifact = made.manifest.artifacts[0]
    before = first_half(artifact)
    assert (before.inputs, before.outputs) == (artifact.prepare.inputs, artifact.prepare.outputs)
    assert (before.golden, before.prepare) == (None, None)
