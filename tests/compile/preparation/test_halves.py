"""A task is cut where its model begins, and only where that can be told."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.pass_models import FloatModel  # noqa: E402
from hedgerow.compile.preparation.halves import cut  # noqa: E402
from hedgerow.examples.zoo import raw_sensors  # noqa: E402
from hedgerow.schema import TensorSpec  # noqa: E402
from hedgerow.task import Dataset  # noqa: E402
from hedgerow.task_module import predict  # noqa: E402
from tests.compile.only import only  # noqa: E402

pytestmark = pytest.mark.heavy

TWO = (TensorSpec("level", (4,)), TensorSpec("kind", (), "int64"))


def task(preprocess, inputs=TWO):
    return replace(raw_sensors.task, inputs=inputs, preprocess=preprocess)


def test_without_preprocessing_there_is_nothing_to_cut():
    assert cut(task(None)) is None


def test_the_second_half_takes_what_preprocess_gives():
    halves = cut(task(lambda level, kind: (level.reshape(-1, 2, 2) / 3, kind + 1)))
    assert halves.schema.inputs == TWO
    assert halves.schema.outputs == (
        TensorSpec("prepared_0", (2, 2), "float32"),
        TensorSpec("prepared_1", (), "int64"),
    )


def test_a_prepared_tensor_never_has_the_name_of_an_input():
    halves = cut(task(lambda level: level / 3, (TensorSpec("prepared_0", (4,)),)))
    assert [spec.name for spec in halves.schema.outputs] == ["prepared_0_"]


@pytest.mark.parametrize(
    "preprocess",
    [
        lambda level, kind: level.T,
        lambda level, kind: level.mean(),
        lambda level, kind: (level, None),
        lambda level, kind: level.double(),
        lambda level, kind: torch.fft.rfft(level),
        lambda level, kind: level[:, :0],
        lambda level, kind: (),
    ],
    ids=["batch last", "no batch", "no tensor", "float64", "complex", "empty", "nothing"],
)
def test_what_no_border_can_have_is_left_in_one_piece(preprocess):
    assert cut(task(preprocess)) is None


def test_samples_are_prepared_in_order_whatever_their_number():
    halves = cut(raw_sensors.task)
    features = raw_sensors.drawn(600, seed=7).inputs["features"]
    found = halves.prepared({"features": features})["prepared_0"]
    wanted = np.clip((features - raw_sensors.MEAN.numpy()) / raw_sensors.SPREAD.numpy(), -4, 4)
    assert np.abs(found - wanted).max() < 1e-6


def test_read_only_and_reversed_arrays_are_prepared_too():
    features = raw_sensors.drawn(4, seed=7).inputs["features"][::-1]
    features.flags.writeable = False
    assert cut(raw_sensors.task).prepared({"features": features})["prepared_0"].shape == (4, 43)


def test_the_second_half_predicts_what_the_whole_predicts(bench_model):
    data = raw_sensors.drawn(300, seed=7)
    halves = cut(raw_sensors.task)
    source = FloatModel(task=raw_sensors.task, model=bench_model, calibration=data.take(range(16)), train=data)
    second = halves.second(source)
    found = only(predict(second.task, second.model, halves.prepared(data.inputs)))
    assert np.abs(found - only(predict(raw_sensors.task, bench_model, data.inputs))).max() < 1e-6
    assert second.train is None
    assert second.calibration.inputs["prepared_0"].shape == (16, 43)
    assert np.array_equal(second.calibration.target_values, data.target_values[:16])


def test_other_calibration_data_is_prepared_anew(bench_model):
    halves, first = cut(raw_sensors.task), raw_sensors.drawn(8, seed=1)
    source = FloatModel(task=raw_sensors.task, model=bench_model, calibration=first)
    one = halves.second(source).calibration.inputs["prepared_0"]
    other = Dataset({"features": first.inputs["features"] + 1}, first.target_values)
    two = halves.second(replace(source, calibration=other)).calibration.inputs["prepared_0"]
    assert not np.array_equal(one, two)
    assert halves.second(source).calibration.inputs["prepared_0"] is not two
