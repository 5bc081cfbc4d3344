import numpy as np
import pytest

from hedgerow.compile.reference_bins import fingerprint, make_reference
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import ANOMALOUS, NORMAL, Classes, Outputs, Reconstruction, Values
from hedgerow.schema import TensorSpec
from hedgerow.task import Dataset

SCHEMA = ModelSchema(
    (TensorSpec("speed", (1,)),), (TensorSpec("probabilities", (2,)),), Outputs.of(Classes(("slow", "fast")))
)
TRAIN = Dataset({"speed": np.arange(100, dtype=np.float32)[:, None]}, np.zeros(100, dtype=np.int64))
OUTPUTS = {"probabilities": np.stack([np.linspace(0.1, 0.4, 40), 1 - np.linspace(0.1, 0.4, 40)], axis=1)}
WANTED = {"probabilities": np.ones(40, dtype=np.int64)}


def test_inputs_and_outputs_are_counted():
    reference = make_reference(SCHEMA, TRAIN, OUTPUTS, WANTED)
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
    before = make_reference(SCHEMA, TRAIN, OUTPUTS, WANTED)
    bins = len(before.feature("speed").counts)
    counts = {"speed": [7] * bins, "missing:speed": [70, 3], "output.label": [20, 20], "missing:output.label": [9, 9]}
    after = make_reference(SCHEMA, TRAIN, OUTPUTS, WANTED, counts)
    assert (after.feature("speed").counts, after.feature("speed").missing) == ((7,) * bins, 3)
    assert after.feature("speed").edges == before.feature("speed").edges
    assert after.feature("output.label") == before.feature("output.label")


@pytest.mark.parametrize("counts", [{"speed": [1, 2]}, {"height": [1] * 10}, {"missing:speed": [1] * 3}])
def test_counts_in_other_bins_are_a_bug_of_the_caller(counts):
    with pytest.raises(ValueError, match="expected counts of"):
        make_reference(SCHEMA, TRAIN, OUTPUTS, WANTED, counts)


def test_the_fingerprint_depends_on_every_value():
    found = fingerprint([TRAIN, TRAIN.take([1, 2])])
    assert found == fingerprint([TRAIN, TRAIN.take([1, 2])])
    assert found != fingerprint([TRAIN, TRAIN.take([1, 3])])


def test_the_fingerprint_depends_on_the_target_values_of_each_output():
    x = {"x": np.zeros((2, 1), np.float32)}
    found = [
        fingerprint([Dataset(x, values)])
        for values in (
            None,
            np.zeros(2),
            {"a": np.zeros(2), "b": np.zeros(2)},
            {"a": np.zeros(2), "b": np.ones(2)},
        )
    ]
    assert len(set(found)) == 4


def test_each_of_several_outputs_is_counted_under_its_own_name():
    answers = Outputs({"kind": Classes(("slow", "fast")), "level": Values(("m",), tolerance=1.0)})
    schema = ModelSchema((TensorSpec("speed", (1,)),), answers.tensors(), answers)
    given = {"kind": OUTPUTS["probabilities"], "level": np.arange(40.0)[:, None]}
    wanted = {"kind": WANTED["probabilities"], "level": np.zeros((40, 1), dtype=np.float32)}
    reference = make_reference(schema, TRAIN, given, wanted)
    assert [feature.name for feature in reference.features] == [
        "speed", "output.kind.confidence", "output.level.m", "output.kind.label",
    ]  # fmt: skip
    assert reference.feature("output.level.m").counts == (4,) * 10


def test_answers_to_what_is_anomalous_are_not_what_a_device_is_compared_with():
    answers = Outputs.of(Reconstruction(threshold=1.0))
    schema = ModelSchema((TensorSpec("speed", (1,)),), answers.tensors(), answers)
    given = np.concatenate([np.linspace(0.1, 0.5, 21), np.full(20, 7.0)]).astype(np.float32)[:, None]
    wanted = np.repeat([NORMAL, -1, ANOMALOUS], [20, 1, 20])
    feature = make_reference(schema, TRAIN, {"anomaly": given}, {"anomaly": wanted}).feature("output.anomaly")
    assert sum(feature.counts) == 21
    assert feature.edges[-1] < 0.5
