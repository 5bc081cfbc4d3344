"""A file whose state has no batch in front is given each tensor with the dimensions that it has."""

from dataclasses import replace

import numpy as np
import pytest

from hedgerow.client.runtimes.static_batch import in_batches, static_batch
from hedgerow.client.runtimes.stepped import SteppedModel, is_stepped
from hedgerow.manifest.content import Tensor
from hedgerow.manifest.preparation import Preparation
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs
from hedgerow.schema import TensorSpec
from tests.root.documents import ARTIFACT, BLOB

SCHEMA = ModelSchema(
    (TensorSpec("frame", (3,)), TensorSpec("h", (2, 1, 3))),
    (TensorSpec("probabilities", (2,)), TensorSpec("h_next", (2, 1, 3))),
    Outputs.of(Classes(("no", "yes"))),
    {"h": "h_next"},
)
STEPPED = replace(
    ARTIFACT,
    inputs=(Tensor("frame", "frame", (1, 3), "float32"), Tensor("h", "h", (2, 1, 3), "float32")),
    outputs=(Tensor("probabilities", "p", (1, 2), "float32"), Tensor("h_next", "hn", (2, 1, 3), "float32")),
    prepare=None,
)


class Runtime:
    """Runs as the runtimes do, and keeps the shapes that the file was given."""

    def __init__(self, artifact) -> None:
        self.artifact, self.seen = artifact, []

    def predict(self, inputs):
        return in_batches(self._run, inputs, static_batch(self.artifact.inputs), self.artifact.inputs)

    def _run(self, values):
        self.seen.append({name: value.shape for name, value in values.items()})
        frame, h = values["frame"], values["h"]
        assert (frame.shape, h.shape) == ((1, 3), (2, 1, 3))
        return {"probabilities": np.stack([frame.sum(axis=1), h.sum(axis=(0, 2))], axis=1), "h_next": h + frame}


def test_rows_come_back_as_rows():
    rng = np.random.default_rng(0)
    inputs = {"frame": rng.normal(size=(4, 3)).astype(np.float32), "h": rng.normal(size=(4, 2, 1, 3))}
    runtime = Runtime(STEPPED)
    outputs = SteppedModel(runtime, STEPPED, SCHEMA).predict(inputs)

    assert runtime.seen == [{"frame": (1, 3), "h": (2, 1, 3)}] * 4
    assert (outputs["probabilities"].shape, outputs["h_next"].shape) == ((4, 2), (4, 2, 1, 3))
    np.testing.assert_allclose(outputs["probabilities"][:, 0], inputs["frame"].sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(outputs["h_next"][2], inputs["h"][2] + inputs["frame"][2], rtol=1e-5)


def test_an_empty_batch_has_outputs_of_the_right_shape():
    inputs = {"frame": np.zeros((0, 3), np.float32), "h": np.zeros((0, 2, 1, 3), np.float32)}
    outputs = SteppedModel(Runtime(STEPPED), STEPPED, SCHEMA).predict(inputs)

    assert (outputs["probabilities"].shape, outputs["h_next"].shape) == ((0, 2), (0, 2, 1, 3))


@pytest.mark.parametrize(
    ("frame", "h", "expected"),
    [((1, 3), (2, 1, 3), True), ((-1, 3), (-1, 2, 1, 3), False), ((3,), (2, 1, 3), False)],
)
def test_only_a_file_of_both_kinds_is_stepped(frame, h, expected):
    inputs = (Tensor("frame", "frame", frame, "float32"), Tensor("h", "h", h, "float32"))

    assert is_stepped(replace(STEPPED, inputs=inputs), SCHEMA) is expected


def test_what_prepares_samples_takes_what_the_caller_gives():
    prepare = Preparation(
        blob=BLOB, source=BLOB, inputs=STEPPED.inputs[:1], outputs=(Tensor("prepared_0", "o", (1, 9), "float32"),)
    )
    artifact = replace(STEPPED, inputs=(Tensor("prepared_0", "x", (1, 9), "int8"), STEPPED.inputs[1]), prepare=prepare)

    assert is_stepped(artifact, SCHEMA)


def test_a_release_without_state_is_not_stepped():
    assert not is_stepped(STEPPED, replace(SCHEMA, state={}))
