import hashlib
from dataclasses import replace

import numpy as np
import pytest

from hedgerow.checkpoint import Checkpoint, save_checkpoint
from hedgerow.errors import CheckpointError
from hedgerow.fleet.errors import RetrainError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.checkpoints import checkpoint_folder, keep_checkpoint, kept_checkpoint
from hedgerow.weights import encode_arrays
from tests.fleet.virtual_fleet import make_manifest

WEIGHTS = {"w": np.arange(3, dtype=np.float32)}


@pytest.fixture
def source(tmp_path):
    checkpoint = Checkpoint(weights=WEIGHTS, task="toy", run="r", round=1, strategy="fedavg", grid="fleet", seed=0)
    save_checkpoint(tmp_path / "run", checkpoint)
    return tmp_path / "run"


def manifest_of(weights):
    manifest = make_manifest("toy@1")
    sha256 = hashlib.sha256(encode_arrays(weights)).hexdigest()
    return replace(manifest, lineage=replace(manifest.lineage, checkpoint_sha256=sha256))


def test_a_release_keeps_the_checkpoint_it_was_compiled_from(tmp_path, source):
    folder, manifest = FleetFolder(tmp_path / "fleet"), manifest_of(WEIGHTS)
    with pytest.raises(CheckpointError):
        kept_checkpoint(folder, manifest)
    kept = keep_checkpoint(folder, manifest, source)
    assert kept == checkpoint_folder(folder, "toy@1")
    np.testing.assert_array_equal(kept_checkpoint(folder, manifest).weights["w"], WEIGHTS["w"])
    assert keep_checkpoint(folder, manifest, kept) == kept


def test_another_checkpoint_is_refused_when_it_is_kept_and_when_it_is_used(tmp_path, source):
    folder, other = FleetFolder(tmp_path / "fleet"), manifest_of({"w": WEIGHTS["w"] + 1})
    with pytest.raises(RetrainError, match="another"):
        keep_checkpoint(folder, other, source)
    assert not checkpoint_folder(folder, "toy@1").exists()
    keep_checkpoint(folder, manifest_of(WEIGHTS), source)
    with pytest.raises(RetrainError, match="another"):
        kept_checkpoint(folder, other)
