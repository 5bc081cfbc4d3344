"""Samples of the zoo's tasks that neither quantizers nor checks have seen, and what torch makes of them."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, Task

GENERATORS: Mapping[str, str] = {
    "resnet8": "textures",
    "ds_cnn": "spectra",
    "mobilenet_v1_025": "pictures",
    "cnn1d": "motions",
    "lstm": "draws",
    "gru": "gestures",
    "causal_transformer": "sentences",
    "unet1d": "records",
    "detector": "scenes",
}
"""Model -> what draws its samples, ``(count, rng) -> Dataset``."""


def fresh(name: str, count: int) -> Dataset:
    """Return new samples of the zoo's model *name*."""
    module, rng = import_module(f"hedgerow.examples.zoo.{name}"), np.random.default_rng(999)
    if name in GENERATORS:
        return getattr(module, GENERATORS[name])(count, rng)
    if name == "autoencoder":
        return module.sounds(np.arange(count) % 2, rng)
    if name == "mobilenet_v3_small":
        return module.textures(count, rng, noise=35)
    if name == "raw_sensors":
        return module.drawn(count, seed=999)
    # The digits: those that only training saw, with other noise.
    seen = module.data().train.take(np.arange(300, 300 + count))
    moved = {k: np.clip(v + rng.normal(0, 0.5, v.shape), 0, 16).astype(np.float32) for k, v in seen.inputs.items()}
    return replace(seen, inputs=moved)


def in_torch(task: Task, model: nn.Module, rows: np.ndarray) -> np.ndarray:
    """Return the probabilities that torch gives, written out."""
    with torch.no_grad():
        given = torch.from_numpy(rows)
        prepared = task.preprocess(given) if task.preprocess is not None else given
        return torch.softmax(model.eval()(prepared), dim=-1).numpy()


def int8_bytes(kind: str, content: bytes) -> int:
    """Count the numbers of the file's constants in one byte each, read with the format's own library."""
    if kind == "onnx":
        import onnx

        stored = onnx.load_model_from_string(content).graph.initializer
        return sum(
            int(np.prod(t.dims)) for t in stored if t.data_type in {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
        )
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    used = {tensor.buffer for tensor in tensors if tensor.type == schema.TensorType.INT8}
    return sum(len(model.buffers[at].data) for at in used if model.buffers[at].data is not None)


def matrix_numbers(model: nn.Module) -> int:
    """Count the numbers of a model's weights with two axes or more, which recipes promise to store in a byte each."""
    return sum(value.numel() for value in model.parameters() if value.ndim > 1)
