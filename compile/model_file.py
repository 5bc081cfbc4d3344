"""A model file from elsewhere: read in a process of its own, its tensors named for a schema."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.errors import ModelFileError
from hedgerow.compile.foreign import ForeignFile
from hedgerow.compile.golden import GOLDEN_SAMPLES
from hedgerow.compile.inspection.border import Border
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.inspection.model import format_of
from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Tensor
from hedgerow.schema import DTYPES, ModelSchema, TensorSpec

__all__ = ["ModelFile", "draw_samples", "open_model_file", "plain_name", "read_model_file"]

_LIMIT_BYTES = 2 * 2**30
_PROBABILITIES = "probabilities"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model from elsewhere.

    Attributes:
        format: ``onnx`` or ``tflite``.
        content: The file.
        facts: Read from it, for one sample.
        inputs, outputs: Its tensors as it has them; their names are made fit for a schema.
        schema: What goes in and comes out, in real numbers.
    """

    format: str
    content: bytes
    facts: FileFacts
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    schema: ModelSchema

    @property
    def border(self) -> Border:
        """Inputs and outputs."""
        return self.inputs, self.outputs


def open_model_file(path: Path) -> ForeignFile:
    """Return a TFLite or ONNX file, of which nothing was read but its first bytes.

    Raises:
        ModelFileError: It cannot be read, or is of another format.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > _LIMIT_BYTES:
            raise ModelFileError(str(path), f"at most {_LIMIT_BYTES} bytes", str(size_bytes))
        content = path.read_bytes()
    except OSError as exc:
        raise ModelFileError(str(path), "a file", exc.strerror or str(exc)) from exc
    kind = format_of(content)
    if kind not in {"onnx", "tflite"}:
        raise ModelFileError(str(path), "a TFLite or ONNX file", "a zip archive")
    return ForeignFile(path.name, kind, content)


def read_model_file(foreign: ForeignFile, schema: ModelSchema | None = None) -> ModelFile:
    """Read a TFLite or ONNX file.

    Args:
        foreign: The file, opened.
        schema: Names, units and valid ranges of its tensors, in the file's order; None: read from the file.

    Raises:
        ForeignFileError: A parser died or hung over it.
        ModelFileError: It is damaged, or its tensors do not fit a schema or *schema*.
    """
    path = Path(foreign.name)
    try:
        inputs, outputs = foreign.border()
        specs = (
            _specs(path, inputs, schema.inputs if schema else None),
            _specs(path, outputs, schema.outputs if schema else None),
        )
        # One prediction is of one sample: that is how devices call it and how golden samples are made.
        shapes = {tensor.tensor: (1, *spec.shape) for tensor, spec in zip(inputs, specs[0], strict=True)}
        facts = foreign.facts(shapes if any(min(tensor.shape) < 1 for tensor in inputs) else None)
    except DecodeError as exc:
        raise ModelFileError(str(path), exc.expected, exc.found) from exc
    if schema is None:
        schema = _described(facts, *specs)
    return ModelFile(
        format=foreign.kind,
        content=foreign.content,
        facts=facts,
        inputs=_named(inputs, schema.inputs),
        outputs=_named(outputs, schema.outputs),
        schema=schema,
    )


def _specs(path: Path, tensors: Sequence[Tensor], given: Sequence[TensorSpec] | None) -> tuple[TensorSpec, ...]:
    """Return the specification of each tensor, read from it or checked against it."""
    if given is not None and len(given) != len(tensors):
        raise ModelFileError(str(path), f"{len(given)} tensors as in the schema", str(len(tensors)))
    found: list[TensorSpec] = []
    for index, tensor in enumerate(tensors):
        batch, *shape = tensor.shape or (0,)
        if batch not in {1, -1}:
            raise ModelFileError(str(path), "a batch dimension of 1 first in every tensor", str(list(tensor.shape)))
        dtype = "float32" if tensor.scale is not None or tensor.dtype.startswith("float") else tensor.dtype
        if dtype not in DTYPES:
            raise ModelFileError(str(path), f"tensors of {', '.join(DTYPES)}", tensor.dtype)
        if given is not None:
            fits = len(given[index].shape) == len(shape) and all(
                size in {-1, wanted} for size, wanted in zip(shape, given[index].shape, strict=True)
            )
            if not fits or given[index].dtype != dtype:
                expected = f"{given[index].dtype}{list(given[index].shape)} for {given[index].name}"
                raise ModelFileError(str(path), expected, f"{dtype}{shape}")
            found.append(given[index])
            continue
        if min(shape, default=1) < 1:
            place = 1 + next(place for place, size in enumerate(shape) if size < 1)
            expected = "fixed sizes after the batch, or a schema that fixes them"
            raise ModelFileError(str(path), expected, f"the dimension {place} of {tensor.tensor!r} open")
        low, high = _range(tensor)
        name = _unique(plain_name(tensor.tensor, "tensor", "_"), [spec.name for spec in found])
        found.append(TensorSpec(name, tuple(shape), dtype, minimum=low, maximum=high))
    return tuple(found)


def _range(tensor: Tensor) -> tuple[float | None, float | None]:
    """Return the real numbers that a quantized tensor can hold; a float tensor says nothing about its range."""
    if tensor.scale is None:
        return None, None
    limits = np.iinfo(np.dtype(tensor.dtype))
    low, high = ((limit - tensor.zero_point) * tensor.scale for limit in (limits.min, limits.max))
    return low, high


def plain_name(text: str, other: str, joint: str) -> str:
    """Return *text* as a name: lower-case letters, digits and *joint*, with a letter first, else *other* before it."""
    name = re.sub(r"[^a-z0-9]+", joint, text.lower()).strip(joint)[:48]
    return name if name[:1].isalpha() else f"{other}{joint}{name}".strip(joint)


def _unique(name: str, taken: Sequence[str]) -> str:
    return name if name not in taken else next(n for i in range(2, 1000) if (n := f"{name}_{i}") not in taken)


def _described(facts: FileFacts, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> ModelSchema:
    """Return the schema of a file that came without one: one flat output behind a softmax is a classifier's."""
    computing = [op.name.lower() for op in facts.graph if "quantize" not in op.name.lower()]
    if len(outputs) == 1 and len(outputs[0].shape) == 1 and computing and computing[-1] == "softmax":
        classes = outputs[0].shape[0]
        output = TensorSpec(_PROBABILITIES, (classes,), "float32", minimum=0.0, maximum=1.0)
        return ModelSchema(inputs, (output,), tuple(map(str, range(classes))))
    return ModelSchema(inputs, outputs)


def _named(tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(spec.name, tensor.tensor, tensor.shape, tensor.dtype, tensor.scale, tensor.zero_point)
        for tensor, spec in zip(tensors, specs, strict=True)
    )


def draw_samples(schema: ModelSchema, seed: int) -> Mapping[str, NDArray[Any]]:
    """Return golden inputs: drawn evenly from the valid range of each input of *schema*."""
    rng = np.random.default_rng(seed)
    return {spec.name: _draw(spec, rng) for spec in schema.inputs}


def _draw(spec: TensorSpec, rng: np.random.Generator) -> NDArray[Any]:
    """Return samples from the valid range of an input; where it has no bounds, from 0 to 1."""
    low = spec.minimum if spec.minimum is not None else min(0.0, (spec.maximum or 1.0) - 1.0)
    high = spec.maximum if spec.maximum is not None else low + 1.0
    size = (GOLDEN_SAMPLES, *spec.shape)
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.uniform(low, high, size).astype(dtype)
    return rng.integers(int(np.ceil(low)), int(high) + 1, size).astype(dtype)
