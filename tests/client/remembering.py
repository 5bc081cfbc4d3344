"""A release with state whose every answer is known by heart, in a runtime that is Python."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hedgerow.client.loading import ReadyModel
from hedgerow.client.slot_folders import OpenSlot
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs
from hedgerow.reference import Reference
from hedgerow.schema import TensorSpec
from tests.client.conftest import Release, with_golden

SCHEMA = ModelSchema(
    (TensorSpec("x", (4,), minimum=-8, maximum=8), TensorSpec("h", (2, 1, 4))),
    (TensorSpec("probabilities", (3,)), TensorSpec("h_next", (2, 1, 4))),
    Outputs.of(Classes(("a", "b", "c"))),
    {"h": "h_next"},
)


class Remembering:
    """A runtime, and a model: its state is the sum of all that it saw, its winner the number of steps modulo three."""

    drift = 0.0
    fails = False

    def load(self, _path: Path, _artifact) -> "Remembering":
        return self

    def predict(self, inputs):
        if self.fails:
            raise RuntimeError("out of arena")
        state = np.array(inputs["h"])
        winner = np.eye(3, dtype=np.float32)[state[:, 1, 0, 0].astype(int) % 3]
        state[:, 0, 0] += inputs["x"] * (1 + self.drift)
        state[:, 1] += 1
        return {"probabilities": winner, "h_next": state}


def streaming(made: Release, x: np.ndarray | None = None) -> Release:
    """Return the same release with state, and golden samples that are two sequences of the values *x*."""
    (artifact,) = made.manifest.artifacts
    artifact = replace(
        artifact,
        inputs=(Tensor("x", "x", (-1, 4), "float32"), Tensor("h", "h", (-1, 2, 1, 4), "float32")),
        outputs=(
            Tensor("probabilities", "p", (-1, 3), "float32"),
            Tensor("h_next", "hn", (-1, 2, 1, 4), "float32"),
        ),
        golden_tolerance=0.01,
    )
    release = Release(replace(made.manifest, model_schema=SCHEMA, artifacts=(artifact,), train_graphs=()), made.blobs)
    rows = np.arange(24, dtype=np.float32).reshape(6, 4) if x is None else x
    state, model = np.zeros((1, 2, 1, 4), np.float32), Remembering()
    taken, given = [], []
    for place, row in enumerate(rows):
        if place == len(rows) // 2:
            state = np.zeros_like(state)
        taken.append(state)
        given.append(model.predict({"x": row[None], "h": state}))
        state = given[-1]["h_next"]
    golden = {"input.x": rows, "input.h": np.concatenate(taken)}
    golden |= {f"output.{name}": np.concatenate([step[name] for step in given]) for name in given[0]}
    return with_golden(release, golden)


def ready_of(made: Release, model: Remembering | None = None) -> ReadyModel:
    """Return the model of a release in memory, without a slot on disk."""
    reference = Reference.decode(made.blobs[made.manifest.reference.sha256])
    slot = OpenSlot(Path("/nowhere"), made.manifest, made.manifest.artifacts[0], reference)
    return ReadyModel(slot, model or Remembering())
