"""The model zoo: every task is a right one, and the MLPerf Tiny models have MLPerf Tiny's size."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

from hedgerow.errors import TaskError
from hedgerow.examples.zoo import ZOO
from hedgerow.task import load_task

# mlcommons/tiny at 1afd2c9, weights and biases of the reference files.
MLPERF_TINY = {"resnet8": 77_706, "ds_cnn": 22_604, "mobilenet_v1_025": 210_850, "autoencoder": 265_864}


def folded_parameters(model) -> int:
    """Return the parameters once BatchNorm is folded into the layer before it, which then has a bias."""
    from torch import nn

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    folded = {id(parameter) for norm in norms for parameter in norm.parameters()}
    kept = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in folded)
    return kept + sum(norm.num_features for norm in norms)


def test_naming_the_zoo_needs_no_torch():
    code = "import sys, hedgerow.examples.zoo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_models_of_mlperf_tiny_promise_its_parameter_counts():
    assert {name: ZOO[name].parameters for name in MLPERF_TINY} == MLPERF_TINY


@pytest.mark.heavy
@pytest.mark.parametrize("name", ZOO)
def test_a_task_of_the_zoo_has_no_mistakes_and_the_promised_parameters(name):
    from hedgerow.server.check import check_task

    task = load_task(ZOO[name].task)
    report = check_task(task, clients=4)
    assert report.samples["held_out"] >= 300
    assert report.stages[-1].shape[-1] == len(task.answers.alone.part_names)
    assert folded_parameters(task.model()) == ZOO[name].parameters


@pytest.mark.heavy
def test_training_centrally_twice_gives_the_same_weights_and_a_model_that_learned():
    from hedgerow.examples.zoo.training import train_centrally
    from hedgerow.task_module import model_weights, predict

    task = load_task(ZOO["mlp"].task)
    data = task.load_data()
    one, two = (train_centrally(task, data, epochs=3, learning_rate=0.01, seed=1) for _ in range(2))
    for name, values in model_weights(one).items():
        np.testing.assert_array_equal(values, model_weights(two)[name])
    assert task.measure(predict(task, one, data.held_out.inputs), task.wanted(data.held_out))["accuracy"] > 0.7


@pytest.mark.heavy
def test_without_the_photographs_the_cifar_task_says_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setenv("HEDGEROW_DATA", str(tmp_path))
    task = load_task("hedgerow.examples.zoo.resnet8_cifar:task")
    with pytest.raises(TaskError, match="set HEDGEROW_DATA to the folder that holds cifar10-subset"):
        task.load_data()


@pytest.mark.heavy
def test_records_of_photographs_are_read_and_damaged_files_refused(monkeypatch, tmp_path):
    from hedgerow.examples.zoo import resnet8_cifar

    rng = np.random.default_rng(0)
    records = rng.integers(0, 10, (4, 3073)).astype(np.uint8)
    (tmp_path / "cifar10-subset").mkdir()
    for name in resnet8_cifar.FILES.values():
        (tmp_path / "cifar10-subset" / name).write_bytes(gzip.compress(records.tobytes()))
    monkeypatch.setenv("HEDGEROW_DATA", str(tmp_path))
    data = resnet8_cifar.task.load_data()
    np.testing.assert_array_equal(data.held_out.target_values, records[:, 0])
    np.testing.assert_array_equal(data.train.inputs["image"][3].reshape(-1), records[3, 1:])
    broken = tmp_path / "broken.bin.gz"
    broken.write_bytes(gzip.compress(records.tobytes()[:-1]))
    with pytest.raises(TaskError, match="expected records of 3073 bytes"):
        resnet8_cifar.read_records(broken)
    broken.write_bytes(b"no gzip")
    with pytest.raises(TaskError, match="expected a gzip file"):
        resnet8_cifar.read_records(broken)


@pytest.mark.heavy
def test_a_task_with_a_student_is_distilled_by_the_command(tmp_path, capfd):
    from hedgerow.cli import main
    from hedgerow.examples.zoo.training import save_trained, train_centrally

    model = ZOO["mlp"]
    task = load_task(model.task)
    data = task.load_data()
    trained = train_centrally(task, data, epochs=model.epochs, learning_rate=model.learning_rate)
    save_trained(tmp_path / "run", task, trained, data, epochs=model.epochs)
    arguments = ["compile", str(tmp_path / "run"), "--task", model.task, "--target", "raspberry-pi-5", "--no-cache"]
    arguments += ["--recipe", "raspberry-pi-5=onnx-distilled-int8", "--out", str(tmp_path / "out"), "--json"]
    assert main(arguments) == 0
    (artifact,) = json.loads(capfd.readouterr().out.splitlines()[-1])["artifacts"]
    assert artifact["passes"][0].startswith("distill-logits(")
    assert artifact["parameters"] < 0.6 * model.parameters
    assert artifact["bytes"] < 0.3 * artifact["float_bytes"]
    assert artifact["float_accuracy"] - artifact["accuracy"] <= 0.015
