"""The pump bench's model, trained once, and samples that nothing in the compiler has seen."""

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from hedgerow.checkpoint import Checkpoint, save_checkpoint  # noqa: E402
from hedgerow.compile.foundation import Foundation, foundation_of  # noqa: E402
from hedgerow.examples.zoo import raw_sensors  # noqa: E402
from hedgerow.task import Dataset, TaskData  # noqa: E402
from hedgerow.task_module import LogitsModule, model_weights  # noqa: E402


def make_foundation(task, model, data=None) -> Foundation:
    """Return what a worker keeps of a trained model."""
    data = TaskData(raw_sensors.TRAIN, raw_sensors.HELD_OUT) if data is None else data
    return foundation_of(task, model, data)


@pytest.fixture(scope="session")
def bench_model():
    torch.set_num_threads(1)
    features, labels = (
        torch.from_numpy(raw_sensors.TRAIN.inputs["features"]),
        torch.from_numpy(raw_sensors.TRAIN.target_values),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = raw_sensors.model()
        module, optimizer = LogitsModule(raw_sensors.task, model), torch.optim.Adam(model.parameters(), lr=0.003)
        for _epoch in range(15):
            for chosen in torch.randperm(len(labels)).split(64):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(module(features[chosen]), labels[chosen]).backward()
                optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def bench(bench_model) -> Foundation:
    return make_foundation(raw_sensors.task, bench_model)


@pytest.fixture(scope="session")
def scaled_bench(bench_model) -> Foundation:
    """The same function, by a multiplication and a subtraction, which every quantizer knows."""
    factor, shift = 1 / raw_sensors.SPREAD, raw_sensors.MEAN / raw_sensors.SPREAD
    task = replace(raw_sensors.task, preprocess=lambda features: (features * factor - shift).clamp(-4, 4))
    return make_foundation(task, bench_model)


@pytest.fixture(scope="session")
def fresh() -> Dataset:
    """Samples that were drawn for tests alone."""
    return raw_sensors.drawn(2000, seed=3)


@pytest.fixture(scope="session")
def bench_checkpoint(bench_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "checkpoint"
    about = {"round": 1, "strategy": "central", "grid": "in-process", "seed": 0, "parent": "zoo-raw-sensors@1"}
    checkpoint = Checkpoint(
        weights=model_weights(bench_model), task="zoo-raw-sensors", run="run-0", metrics={"accuracy": 0.8}, **about
    )
    save_checkpoint(folder, checkpoint)
    return folder
