"""The model zoo: one small task a file, from a dense network to a detector. Importing this needs no torch.

Data is made in the file from a fixed seed, or comes with scikit-learn; only ``resnet8_cifar`` reads files, from the
folder that ``HEDGEROW_DATA`` names. Every ``task`` can be trained, compiled and rolled out like one of your own::

    hedgerow task check hedgerow.examples.zoo.resnet8:task
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ZOO", "ZooModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooModel:
    """One task of the zoo and how to train it centrally in seconds.

    Attributes:
        task: Reference of the task.
        epochs: Passes over the training data.
        learning_rate: Peak step size of Adam.
        parameters: Weights and biases once BatchNorm is folded into the layer before it.
        brings: Reference of a function ``(folder) -> {format: file}`` that trains and exports the model by itself,
            where it has more outputs than a task says; None: the task is all of it.
    """

    task: str
    epochs: int
    learning_rate: float
    parameters: int
    brings: str | None = None


def _model(name: str, epochs: int, learning_rate: float, parameters: int, brings: str | None = None) -> ZooModel:
    module = f"hedgerow.examples.zoo.{name}"
    return ZooModel(
        task=f"{module}:task",
        epochs=epochs,
        learning_rate=learning_rate,
        parameters=parameters,
        brings=f"{module}:{brings}" if brings is not None else None,
    )


ZOO: Mapping[str, ZooModel] = {
    "mlp": _model("mlp", 40, 0.003, 3_426),
    "resnet8": _model("resnet8", 4, 0.003, 77_706),
    "ds_cnn": _model("ds_cnn", 6, 0.003, 22_604),
    "mobilenet_v1_025": _model("mobilenet_v1_025", 5, 0.01, 210_850),
    "autoencoder": _model("autoencoder", 20, 0.003, 265_864),
    "cnn1d": _model("cnn1d", 15, 0.003, 6_117),
    "transformer": _model("transformer", 20, 0.003, 17_962),
    "lstm": _model("lstm", 12, 0.005, 18_054),
    "gru": _model("gru", 12, 0.005, 13_381),
    "causal_transformer": _model("causal_transformer", 10, 0.003, 59_328),
    "vit": _model("vit", 12, 0.003, 58_570),
    "mobilenet_v3_small": _model("mobilenet_v3_small", 6, 0.005, 291_506),
    "unet1d": _model("unet1d", 8, 0.01, 23_529),
    "detector": _model("detector", 8, 0.003, 89_192, brings="bring"),
    "raw_sensors": _model("raw_sensors", 15, 0.003, 3_413),
    "streaming": _model("streaming", 6, 0.02, 9_058),
}
"""Name -> model, in the order of the documentation. The four with MLPerf Tiny's shape have its parameter counts."""
