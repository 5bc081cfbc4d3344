"""Pack a model that somebody else compiled: checked against targets, run on golden samples, and nothing more.

There is no float model to compare with and no data to measure on, so accuracy and parity are ``not run``, the
reference holds no features, and devices count no drift. What can be known of the file alone is checked as always.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.build import Build, add_blob, save_build
from hedgerow.compile.build_folder import new_build_folder, put_in_place
from hedgerow.compile.c_array import write_c_arrays
from hedgerow.compile.edgetpu import check_edgetpu
from hedgerow.compile.errors import Failure, ModelFileError, VerificationError
from hedgerow.compile.golden import GOLDEN_SAMPLES, encode_golden
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.inspection.model import format_of, read_facts
from hedgerow.compile.profile.model import profile_model
from hedgerow.compile.runners.border import from_stored, to_stored
from hedgerow.compile.verify import NOT_RUN, PASSED, judge_file
from hedgerow.errors import DecodeError
from hedgerow.hardware.target import Target, load_target
from hedgerow.manifest import Artifact, Tensor
from hedgerow.progress import Progress, Report, silent
from hedgerow.reference import Reference
from hedgerow.schema import DTYPES, ModelSchema, TensorSpec

__all__ = ["ModelFile", "pack_third_party", "read_model_file"]

_LIMIT_BYTES = 2 * 2**30
_RECIPE = "third-party"
_PROBABILITIES = "probabilities"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model from elsewhere.

    Attributes:
        format: ``onnx`` or ``tflite``.
        content: The file.
        facts: Read from it.
        inputs, outputs: Its tensors as it has them; their names are made fit for a schema.
        schema: What goes in and comes out, in real numbers.
    """

    format: str
    content: bytes
    facts: FileFacts
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    schema: ModelSchema


def read_model_file(path: Path, schema: ModelSchema | None = None) -> ModelFile:
    """Read a TFLite or ONNX file.

    Args:
        path: The file.
        schema: Names, units and valid ranges of its tensors, in the file's order; None: read from the file.

    Raises:
        ModelFileError: It cannot be read, is of another format, or its tensors do not fit a schema or *schema*.
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
    try:
        # LiteRT checks a flatbuffer as a whole before anything is read from it. An ONNX file may name other files as
        # its weights, so it is read before anything loads it.
        facts = read_facts(kind, content) if kind == "onnx" else None
        inputs, outputs = _border(kind, content)
        facts = read_facts(kind, content) if facts is None else facts
    except DecodeError as exc:
        raise ModelFileError(str(path), exc.expected, exc.found) from exc
    # The runtimes raise their own errors for a file that they cannot load, such as one with an unknown operator.
    except Exception as exc:
        said = " ".join(str(exc).split())[:300]
        raise ModelFileError(str(path), f"a file that the {kind} runtime loads", said) from exc
    specs = (
        _specs(path, inputs, schema.inputs if schema else None),
        _specs(path, outputs, schema.outputs if schema else None),
    )
    if schema is None:
        schema = _described(facts, *specs)
    return ModelFile(
        format=kind,
        content=content,
        facts=facts,
        inputs=_named(inputs, schema.inputs),
        outputs=_named(outputs, schema.outputs),
        schema=schema,
    )


def pack_third_party(
    file: Path,
    targets: Sequence[str],
    out: Path,
    *,
    schema: ModelSchema | None = None,
    task: str | None = None,
    seed: int = 0,
    report: Report = silent,
) -> Build:
    """Check a compiled model against targets and write a build of it, without its source model.

    Args:
        file: A TFLite or ONNX file.
        targets: Names of hardware targets; each once.
        out: The build's folder; a build that is already there is replaced.
        schema: Names, units and valid ranges of its tensors; None: read from the file.
        task: Name of the task; None: the file's name.
        seed: Of the golden inputs, which are drawn evenly from the valid range of each input.
        report: Takes progress.

    Returns:
        The build. Its checkpoint is the file itself, its reference has no features.

    Raises:
        ModelFileError: The file cannot be read, or does not fit *schema*.
        UnknownNameError: There is no such target.
        VerificationError: A target cannot hold the file, or the file does not give the same outputs twice.
        BuildFolderError: *out* cannot be used.
        ValueError: No targets, or a repeated one.
    """
    if not targets or len(set(targets)) != len(targets):
        raise ValueError(f"expected at least one target, each once, found {list(targets)}")
    wanted = [load_target(name) for name in targets]
    model = read_model_file(file, schema)
    judged = [_judge(target, model) for target in wanted]
    mapped = [check_edgetpu(target, model.content) for target in wanted]
    golden, tolerance, difference = _golden(model, seed)
    if not difference <= tolerance:
        expected = f"the golden samples again, within {tolerance:g}"
        raise VerificationError(targets[0], "golden", expected, f"a difference of {difference}")
    sha256 = hashlib.sha256(model.content).hexdigest()
    with new_build_folder(out) as folder:
        blob, samples = add_blob(folder, model.content), add_blob(folder, golden)
        artifacts = [
            Artifact(
                target=target.name,
                format=model.format,
                runtime=target.runtime,
                blob=blob,
                inputs=model.inputs,
                outputs=model.outputs,
                recipe=(_RECIPE,),
                golden=samples,
                golden_tolerance=tolerance,
                metrics={"bytes": float(len(model.content)), **metrics},
                checks={**dict.fromkeys((*asked, "golden"), PASSED), **chip, "accuracy": NOT_RUN, "parity": NOT_RUN},
            )
            for target, (asked, metrics), chip in zip(wanted, judged, mapped, strict=True)
        ]
        build = Build(
            task=_name(file.stem, "model", "-") if task is None else task,
            model_schema=model.schema,
            artifacts=tuple(artifacts),
            train_graphs=(),
            reference=add_blob(folder, Reference(()).encode()),
            checkpoint_sha256=sha256,
            run=f"{_RECIPE} {file.name}"[:128],
            data_fingerprint="",
            metrics={},
            parent=None,
        )
        write_c_arrays(folder, build)
        save_build(folder, build)
        put_in_place(folder, out)
    for done, artifact in enumerate(artifacts, 1):
        report(Progress(f"pack {file.name}", done, len(artifacts), artifact.target))
    return build


def _judge(target: Target, model: ModelFile) -> tuple[tuple[str, ...], Mapping[str, float]]:
    """Return the checks that *target* asks for, all passed, and the model's profile on it.

    Raises:
        VerificationError: It cannot hold the model.
    """
    failures: tuple[Failure, ...]
    if target.format != model.format:
        # A profile compares operators, and those of another format mean nothing to this target.
        asked, failures = judge_file(target, model.format, len(model.content), model.facts)
        metrics: Mapping[str, float] = {}
    else:
        profile = profile_model(model.facts, target)
        metrics = profile.metrics()
        asked, failures = judge_file(
            target,
            model.format,
            len(model.content),
            model.facts,
            activation_bytes=profile.peak_memory_bytes,
            latency_ms=profile.target_latency_ms,
        )
    if failures:
        first, *more = failures
        raise VerificationError(target.name, first.check, first.expected, first.found, further=more)
    return asked, metrics


def _border(kind: str, content: bytes) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return inputs and outputs as the runtime has them; names are the file's."""
    if kind == "tflite":
        from hedgerow.compile.runners.tflite import file_tensors

        return file_tensors(content)
    from hedgerow.compile.runners.onnx import session_tensors

    return session_tensors(content)


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
            raise ModelFileError(str(path), "fixed sizes after the batch, or a schema that fixes them", str(shape))
        low, high = _range(tensor)
        name = _unique(_name(tensor.tensor, "tensor", "_"), [spec.name for spec in found])
        found.append(TensorSpec(name, tuple(shape), dtype, minimum=low, maximum=high))
    return tuple(found)


def _range(tensor: Tensor) -> tuple[float | None, float | None]:
    """Return the real numbers that a quantized tensor can hold; a float tensor says nothing about its range."""
    if tensor.scale is None:
        return None, None
    limits = np.iinfo(np.dtype(tensor.dtype))
    low, high = ((limit - tensor.zero_point) * tensor.scale for limit in (limits.min, limits.max))
    return low, high


def _name(text: str, other: str, joint: str) -> str:
    """Return *text* as a name: lower-case letters, digits and *joint*, with a letter first."""
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


def _golden(model: ModelFile, seed: int) -> tuple[bytes, float, float]:
    """Return golden samples, the tolerance of their replay, and how far a replay in a fresh session is from them."""
    rng = np.random.default_rng(seed)
    inputs = {spec.name: _draw(spec, rng) for spec in model.schema.inputs}
    outputs = _predict(model, inputs)
    again = _predict(model, inputs)
    difference = max(
        (float(np.abs(outputs[name].astype(np.float64) - again[name]).max(initial=0.0)) for name in outputs),
        default=0.0,
    )
    largest = max((float(np.abs(values).max(initial=0.0)) for values in outputs.values()), default=0.0)
    # Without a float model nobody knows how far two right executions lie apart: two steps of a quantized output, or a
    # hundredth of the largest number.
    steps = max((2 * tensor.scale for tensor in model.outputs if tensor.scale is not None), default=0.0)
    tolerance = max(steps, 0.01 * largest)
    return encode_golden(inputs, outputs), tolerance if np.isfinite(tolerance) else 0.0, difference


def _draw(spec: TensorSpec, rng: np.random.Generator) -> NDArray[Any]:
    """Return samples from the valid range of an input; where it has no bounds, from 0 to 1."""
    low = spec.minimum if spec.minimum is not None else min(0.0, (spec.maximum or 1.0) - 1.0)
    high = spec.maximum if spec.maximum is not None else low + 1.0
    size = (GOLDEN_SAMPLES, *spec.shape)
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.uniform(low, high, size).astype(dtype)
    return rng.integers(int(np.ceil(low)), int(high) + 1, size).astype(dtype)


def _predict(model: ModelFile, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Return all outputs, sample by sample, in a fresh session."""
    run = _open(model)
    rows: dict[str, list[NDArray[np.float32]]] = {tensor.name: [] for tensor in model.outputs}
    for index in range(GOLDEN_SAMPLES):
        given = run({t.tensor: to_stored(inputs[t.name][index : index + 1], t) for t in model.inputs})
        for tensor in model.outputs:
            rows[tensor.name].append(from_stored(given[tensor.tensor], tensor))
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def _open(model: ModelFile) -> Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]:
    if model.format == "tflite":
        from hedgerow.compile.runners.tflite import open_signature

        return open_signature(model.content)
    from hedgerow.compile.runners.onnx import open_session

    session, names = open_session(model.content), [tensor.tensor for tensor in model.outputs]
    return lambda values: dict(zip(names, session.run(names, dict(values)), strict=True))
