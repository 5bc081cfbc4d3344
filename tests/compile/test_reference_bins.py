import numpy as np
import pytest

from hedgerow.compile.reference_bins import fingerprint, make_reference
from hedgerow.schema import ModelSchema, TensorSpec
from hedgerow.task import Dataset, TaskData

SCHEMA = ModelSchema((TensorSpec("speed", (1,)),), (TensorSpec("probabilities", (2,)),), ("slow", "fast"))
TRAIN = Dataset({"speed": np.arange(100, dtype=np.float32)[:, None]}, np.zeros(100, dtype=np.int64))
OUTPUTS = np.stack([np.linspace(0.1, 0.4, 40), 1 - np.linspace(0.1, 0.4, 40)], axis=1)


def test_inputs_and_outputs_are_counted():
    reference = make_reference(SCHEMA, TRAIN, OUTPUTS)
    assert {feature.name: sum(feature.counts) for feature in reference.features} == {
        "speed": 67,
        "output.confidence": 40,
        "output.label": 40,
    }
    assert reference.feature("speed").edges[0] == pytest.approx(1.0, abs=1e-5), (
        "a third of the values cuts the bins: 1, 4, 7"
    )
    assert (reference.feature("speed").counts[0], reference.feature("speed").counts[-1]) == (1, 2), "0; 98 and 99"
    assert reference.feature("output.label").counts == (0, 40)
    assert reference.feature("output.label").categories == ("slow", "fast")


def test_device_counts_replace_those_of_inputs_only():
    before = make_reference(SCHEMA, TRAIN, OUTPUTS)
    bins = len(before.feature("speed").counts)
    counts = {"speed": [7] * bins, "missing:speed": [70, 3], "output.label": [20, 20], "missing:output.label": [9, 9]}
    after = make_reference(SCHEMA, TRAIN, OUTPUTS, counts)
    assert (after.feature("speed").counts, after.feature("speed").missing) == ((7,) * bins, 3)
    assert after.feature("speed").edges == before.feature("speed").edges
    assert after.feature("output.label") == before.feature("output.label")


@pytest.mark.parametrize("counts", [{"speed": [1, 2]}, {"height": [1] * 10}, {"missing:speed": [1] * 3}])
def test_counts_in_other_bins_are_a_bug_of_the_caller(counts):
    with pytest.raises(ValueError, match="expected counts of"):
        make_reference(SCHEMA, TRAIN, OUTPUTS, counts)


def test_the_fingerprint_depends_on_every_value():
    data = TaskData(train=TRAIN, held_out=TRAIN.take([1, 2]))
    other = TaskData(train=TRAIN, held_out=TRAIN.take([1, 3]))
    assert fingerprint(data) == fingerprint(TaskData(train=TRAIN, held_out=TRAIN.take([1, 2])))
    assert fingerprint(data) != fingerprint(other)
