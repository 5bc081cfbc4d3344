"""Whether the parts of a build fit each other, before they are signed for ever.

A device finds a misfit only when it counts, replays or predicts; here it is an error that names both sides. Artifacts
are read, in a process of their own, and never run.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hedgerow.compile.build import BLOB_FOLDER, Build
from hedgerow.errors import DecodeError, ExtraNotInstalledError
from hedgerow.features import input_features
from hedgerow.fleet.errors import ReleaseError
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob, Tensor
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.model_schema import ModelSchema
from hedgerow.reference import Reference
from hedgerow.schema import TensorSpec
from hedgerow.weights import Arrays, decode_arrays

__all__ = ["check_fit"]

_LIMIT_BYTES = 2**28
_LEFT_OUT = "all outputs"
"""The check that is not run where a file from elsewhere has outputs that no schema holds."""
_READABLE = frozenset({"onnx", "tflite"})
_ADVICE = "compile again, or correct the file that was changed"


def check_fit(build: Build, folder: Path) -> None:
    """Refuse a build whose schema, reference, golden samples and artifacts do not fit each other.

    Args:
        build: What was compiled.
        folder: Where it is.

    Raises:
        ReleaseError: Two of them do not fit; both are named.
    """
    schema = build.model_schema
    if misfit := schema.answers.misfit(schema.outputs):
        raise ReleaseError(folder, *misfit, _ADVICE)
    try:
        reference = Reference.decode(_read(folder, build.reference))
    except DecodeError as exc:
        raise ReleaseError(f"the reference of {folder}", exc.expected, f"{exc.found} in {exc.where}", _ADVICE) from exc
    _check_reference(reference, schema, folder)
    for graph in build.train_graphs:
        _check_targets(graph, schema, folder)
    for artifact in build.artifacts:
        where = f"the artifact for {artifact.target} in {folder}"
        taken = artifact.inputs
        if artifact.prepare is not None:
            state = tuple(tensor for tensor in artifact.inputs if tensor.name in schema.state)
            taken = (*artifact.prepare.inputs, *state)
            _check_prepared([t for t in artifact.inputs if t not in state], artifact.prepare.outputs, where)
        _check_border(taken, schema.inputs, "input", where)
        _check_border(artifact.outputs, schema.outputs, "output", where)
        if misfit := artifact.state_misfit(schema.state):
            raise ReleaseError(where, *misfit, _ADVICE)
        if artifact.golden is not None:
            _check_golden(_read(folder, artifact.golden), schema, f"the golden samples for {artifact.target}")
        _check_file(artifact, folder, where)


def _read(folder: Path, blob: Blob) -> bytes:
    path = folder / BLOB_FOLDER / blob.sha256
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ReleaseError(path, "a file of the build", exc.strerror or str(exc), "compile again") from exc


def _check_reference(reference: Reference, schema: ModelSchema, folder: Path) -> None:
    if not reference.features:
        return  # A model that came compiled: nothing is watched.
    zeros, nothing = (
        {spec.name: np.zeros((1, *spec.shape), spec.dtype) for spec in specs}
        for specs in (schema.inputs, schema.outputs)
    )
    wanted = input_features(schema, zeros).keys() | schema.answers.features(nothing).keys()
    found = {feature.name for feature in reference.features}
    if wanted != found:
        expected = f"the features of the schema's inputs and outputs in the reference ({_some(wanted)})"
        beside = f"without {_some(wanted - found)}, beside them {_some(found - wanted)}"
        raise ReleaseError(folder, expected, beside, _ADVICE)
    for name, names in schema.answers.categories().items():
        categories = reference.feature(name).categories
        if categories != tuple(names):
            expected = f"the schema's {len(names)} names ({_some(names)}) of {name} in the reference"
            raise ReleaseError(folder, expected, f"{len(categories)} ({_some(categories)})", _ADVICE)


def _check_targets(graph: TrainGraph, schema: ModelSchema, folder: Path) -> None:
    """Refuse a train graph that wants the target values of an output that there is not."""
    where = f"the train graph for {graph.runtime} in {folder}"
    if others := [tensor.name for tensor in graph.targets if tensor.name not in schema.answers]:
        raise ReleaseError(where, f"target values of the outputs {_some(schema.answers)}", _some(others), _ADVICE)


def _check_border(tensors: Sequence[Tensor], specs: Sequence[TensorSpec], side: str, where: str) -> None:
    names, wanted = [tensor.name for tensor in tensors], [spec.name for spec in specs]
    if sorted(names) != sorted(wanted):
        raise ReleaseError(where, f"the schema's {side}s {_some(wanted)}", f"{_some(names)}", _ADVICE)
    for spec in specs:
        tensor = next(tensor for tensor in tensors if tensor.name == spec.name)
        # A file without a batch in front has as many dimensions as the schema.
        inner = tensor.shape if len(tensor.shape) == len(spec.shape) else tensor.shape[1:]
        if -1 not in inner and math.prod(inner) != math.prod(spec.shape):
            expected = f"{math.prod(spec.shape)} numbers a sample for the schema's {side} {spec.name}"
            raise ReleaseError(where, expected, f"the shape {list(tensor.shape)}", _ADVICE)


def _check_prepared(inputs: Sequence[Tensor], given: Sequence[Tensor], where: str) -> None:
    """Refuse an artifact that takes something else than what is prepared for it."""
    wanted, found = ({tensor.name: math.prod(map(abs, tensor.shape)) for tensor in side} for side in (inputs, given))
    if wanted != found:
        raise ReleaseError(where, f"inputs as they are prepared ({_some(found)})", _some(wanted), _ADVICE)


def _check_golden(payload: bytes, schema: ModelSchema, where: str) -> None:
    try:
        arrays = decode_arrays(payload, where, limit_bytes=_LIMIT_BYTES)
    except DecodeError as exc:
        raise ReleaseError(where, exc.expected, exc.found, _ADVICE) from exc
    wanted = {f"input.{spec.name}": spec for spec in schema.inputs}
    wanted |= {f"output.{spec.name}": spec for spec in schema.outputs}
    if set(arrays) != set(wanted):
        raise ReleaseError(where, f"samples of the schema's {_some(wanted)}", _some(arrays), _ADVICE)
    for name, spec in wanted.items():
        _check_samples(arrays, name, spec, where)
    batches = {len(array) for array in arrays.values()}
    if len(batches) != 1 or 0 in batches:
        raise ReleaseError(where, "as many samples of every tensor, and at least one", f"{sorted(batches)}", _ADVICE)


def _check_samples(arrays: Arrays, name: str, spec: TensorSpec, where: str) -> None:
    array = arrays[name]
    is_output = name.startswith("output.")
    # Runtimes give floats of other widths; a caller must give what the schema says.
    is_type = array.dtype == spec.dtype or (is_output and array.dtype.kind == np.dtype(spec.dtype).kind == "f")
    if array.shape[1:] != spec.shape or array.ndim == 0 or not is_type:
        expected = f"{name} as the schema's {spec.dtype}[n, {', '.join(map(str, spec.shape))}]"
        raise ReleaseError(where, expected, f"{array.dtype}{list(array.shape)}", _ADVICE)
    # Missing values belong to what a device is given.
    absent = np.isnan(array) if spec.missing and not is_output else False
    if array.dtype.kind == "f" and not (np.isfinite(array) | absent).all():
        raise ReleaseError(where, f"finite numbers in {name}", "NaN or infinity", _ADVICE)


def _check_file(artifact: Artifact, folder: Path, where: str) -> None:
    """Compare the border that the manifest names with the one that the file shows, where that can be read."""
    if artifact.format not in _READABLE:
        return
    from hedgerow.compile.errors import InputShapeError
    from hedgerow.compile.foreign import ForeignFile

    # An ONNX file leaves the batch open, and with it every size; the manifest says what one sample is.
    is_open = artifact.format == "onnx"
    shapes = {tensor.tensor: tuple(abs(size) for size in tensor.shape) for tensor in artifact.inputs if is_open}
    try:
        with ForeignFile(where, artifact.format, _read(folder, artifact.blob)) as file:
            facts = file.facts(shapes)
    except ExtraNotInstalledError:
        return  # The extra that reads this format is not installed here.
    except InputShapeError as exc:
        raise ReleaseError(where, f"{exc.expected} for the input {exc.name}", exc.found, _ADVICE) from exc
    except DecodeError as exc:
        raise ReleaseError(where, exc.expected, exc.found, _ADVICE) from exc
    for side, tensors, names in (
        ("inputs", artifact.inputs, facts.inputs),
        ("outputs", artifact.outputs, facts.outputs),
    ):
        is_part = side == "outputs" and artifact.checks.get(_LEFT_OUT) == "not run" and len(tensors) < len(names)
        if len(tensors) != len(names) and not is_part:
            named = _some(tensor.name for tensor in tensors)
            raise ReleaseError(where, f"{len(tensors)} {side} in the file ({named})", f"{len(names)}", _ADVICE)
        wanted = sorted(_sample_bytes(tensor) for tensor in tensors)
        found = sorted(facts.tensor_bytes.get(name, -1) for name in names)
        if -1 not in wanted and -1 not in found and wanted != found and not is_part:
            expected = f"{side} of {_some(map(str, wanted))} bytes in the file, as the manifest says"
            raise ReleaseError(where, expected, f"{_some(map(str, found))} bytes", _ADVICE)


def _sample_bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor whose open dimensions are 1, or -1 for a type without a width in whole bytes."""
    try:
        width = np.dtype(tensor.dtype).itemsize
    except TypeError:
        return -1
    return width * math.prod(abs(size) for size in tensor.shape)


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "") or "none"
