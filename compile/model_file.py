"""A model file from elsewhere: read in a process of its own, its tensors named for a schema."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.class_output import ClassOutput
from hedgerow.compile.errors import ModelFileError
from hedgerow.compile.foreign import ForeignFile
from hedgerow.compile.golden import GOLDEN_SAMPLES
from hedgerow.compile.inspection.border import Border
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.inspection.model import format_of
from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import NO_OUTPUTS, Classes, Outputs
from hedgerow.schema import DTYPES, TensorSpec

__all__ = ["ModelFile", "draw_samples", "open_model_file", "plain_name", "read_model_file", "whole_file"]

_LIMIT_BYTES = 2 * 2**30
# The key with which an ONNX file names a file of weights; what lacks it has all of them inside.
_NAMES_A_FILE = b"\x0a\x08location"
_PROBABILITIES = "probabilities"
_ROUNDING = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model from elsewhere.

    Attributes:
        format: ``onnx`` or ``tflite``.
        content: The file.
        facts: Read from it, for one sample.
        inputs, outputs: Its tensors as it has them; their names are made fit for a schema.
        schema: What goes in and comes out, in real numbers.
        left_out: One sentence for each output of the file that no schema holds.
        state: Input -> the output that it takes from the call before; schema names.
    """

    format: str
    content: bytes
    facts: FileFacts
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    schema: ModelSchema
    left_out: tuple[str, ...] = ()
    state: Mapping[str, str] = field(default_factory=dict)

    @property
    def gives_probabilities(self) -> bool:
        """Whether an output is called so already."""
        return any(spec.name == _PROBABILITIES for spec in self.schema.outputs)

    def with_inputs(self, specs: Sequence[TensorSpec]) -> "ModelFile":
        """Return the file with other specifications of its inputs, in its order and of its shapes."""
        names = {old.name: new.name for old, new in zip(self.schema.inputs, specs, strict=True)}
        state = {names[into]: out for into, out in self.state.items()}
        return replace(
            self,
            inputs=tuple(replace(tensor, name=names[tensor.name]) for tensor in self.inputs),
            schema=replace(self.schema, inputs=tuple(specs), state=state),
            state=state,
        )

    def with_classes(
        self, output: ClassOutput, scores: NDArray[np.float32] | None, labels: Sequence[str]
    ) -> "ModelFile":
        """Return the file with the names of its classes; where its scores are probabilities, they are called so.

        Args:
            output: The output that is classes.
            scores: What it gave on samples; None: nothing.
            labels: Names of the classes.
        """
        if not output.has_scores:
            return self
        shares = scores is not None and self._may_be_probabilities(output) and _are_probabilities(scores)
        classes = Classes(tuple(labels), softmax=shares)
        name = _PROBABILITIES if shares else output.name
        named = self.with_answers(Outputs({name: classes}), {name: output.name})
        # A device reads answers in the shape that their output has.
        return named if not named.schema.answers.misfit(named.schema.outputs) else self

    def with_answers(self, outputs: Outputs, of: Mapping[str, str]) -> "ModelFile":
        """Return the file that says what its outputs are for, and calls them so.

        Args:
            outputs: What they are for.
            of: Name in *outputs* -> what the file's output is called so far.
        """
        names = {found: name for name, found in of.items()}

        def renamed(spec: TensorSpec) -> TensorSpec:
            if spec.name not in names:
                return spec
            own = outputs[names[spec.name]].tensor(names[spec.name])
            low, high = (own.minimum, own.maximum) if own.minimum is not None else (spec.minimum, spec.maximum)
            return replace(spec, name=own.name, unit=own.unit or spec.unit, minimum=low, maximum=high)

        state = {into: names.get(out, out) for into, out in self.state.items()}
        return replace(
            self,
            outputs=tuple(replace(t, name=names.get(t.name, t.name)) for t in self.outputs),
            schema=replace(self.schema, outputs=tuple(map(renamed, self.schema.outputs)), answers=outputs, state=state),
            state=state,
        )

    def _may_be_probabilities(self, output: ClassOutput) -> bool:
        """Say whether an output is one flat row, and no other output has the name already."""
        spec = next(spec for spec in self.schema.outputs if spec.name == output.name)
        return len(spec.shape) == 1 and (spec.name == _PROBABILITIES or not self.gives_probabilities)

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
    return whole_file(path, ForeignFile(path.name, kind, content))


def whole_file(path: Path, foreign: ForeignFile) -> ForeignFile:
    """Return the file with all of its weights, where an ONNX file has some in files beside it.

    Args:
        path: Where it lies.
        foreign: The file, opened; it is closed where another one is returned, or none.

    Raises:
        ForeignFileError: The parser died or hung.
        ModelFileError: Weights are not there.
    """
    if foreign.kind != "onnx" or _NAMES_A_FILE not in foreign.content:
        return foreign
    try:
        return foreign.inlined(path.parent)
    except DecodeError as exc:
        advice = "keep its files of weights beside it, or save it with them inside (onnx.save(onnx.load(...), ...))"
        raise ModelFileError(str(path), exc.expected, exc.found, advice) from exc
    finally:
        foreign.close()


def read_model_file(
    foreign: ForeignFile, schema: ModelSchema | None = None, state: Mapping[str, str] | None = None
) -> ModelFile:
    """Read a TFLite or ONNX file.

    Args:
        foreign: The file, opened.
        schema: Names, units and valid ranges of its tensors, in the file's order; None: read from the file.
        state: Input -> the output that it takes from the call before, as the file names them.

    Raises:
        ForeignFileError: A parser or a runtime died or hung over it.
        ModelFileError: It is damaged, or its tensors do not fit a schema, *schema* or *state*.
        RuntimeRefusedError: A size has to be found by running it, and its runtime does not take it.
    """
    path = Path(foreign.name)
    try:
        (inputs, outputs), left_out = foreign.outline()
        whole = not all(tensor.shape and tensor.shape[0] in {1, -1} for tensor in (*inputs, *outputs))
        inputs = _closed(path, inputs, whole=whole)
        if any(-1 in tensor.shape[0 if whole else 1 :] for tensor in outputs):
            outputs = _run_once(foreign, (inputs, outputs), whole=whole)
        specs = (
            _specs(path, inputs, schema.inputs if schema else None, whole=whole),
            _specs(path, outputs, schema.outputs if schema else None, whole=whole),
        )
        # One prediction is of one sample: that is how devices call it and how golden samples are made.
        shapes = {tensor.tensor: tuple(max(1, size) for size in tensor.shape) for tensor in inputs}
        facts = foreign.facts(shapes if any(-1 in tensor.shape for tensor in inputs) or whole else None)
    except DecodeError as exc:
        raise ModelFileError(str(path), exc.expected, exc.found) from exc
    if schema is None:
        schema = _described(facts, *specs)
    named = (_named(inputs, schema.inputs), _named(outputs, schema.outputs))
    pairs = _pairs(path, *named, state or {})
    schema = _with_state(schema, pairs)
    if misfit := schema.state_misfit():
        raise ModelFileError(str(path), *misfit, "correct --state")
    return ModelFile(
        format=foreign.kind,
        content=foreign.content,
        facts=facts,
        inputs=named[0],
        outputs=named[1],
        schema=schema,
        left_out=left_out,
        state=pairs,
    )


def _closed(path: Path, tensors: Sequence[Tensor], *, whole: bool) -> tuple[Tensor, ...]:
    """Return inputs with no open size but the batch in front; where there is none in front, that is 1.

    Raises:
        ModelFileError: Another size is open.
    """
    found, advice = list[str](), list[str]()
    for tensor in tensors:
        places = [place for place, size in enumerate(tensor.shape) if size < 1 and place > 0]
        if places:
            pairs = enumerate(tensor.shape)
            sizes = "x".join("SIZE" if size < 1 and place else str(abs(size)) for place, size in pairs)
            named = " and ".join(map(str, places))
            found.append(f"the dimension{'s' if len(places) > 1 else ''} {named} of {tensor.tensor!r} open")
            advice.append(f"--shape {tensor.tensor}={sizes}")
    if found:
        wanted = f"give the sizes with {' '.join(advice)}"
        raise ModelFileError(str(path), "inputs of fixed sizes after the batch", ", ".join(found), wanted)
    return tuple(replace(each, shape=tuple(map(abs, each.shape))) if whole else each for each in tensors)


def _run_once(foreign: ForeignFile, border: Border, *, whole: bool) -> tuple[Tensor, ...]:
    """Return the outputs with the sizes that one prediction gives them: the file itself does not say them."""
    runtime = {"onnx": "onnxruntime", "tflite": "litert"}[foreign.kind]
    zeros = {t.name: np.zeros([1] * whole + [max(1, size) for size in t.shape], np.float32) for t in border[0]}
    found = foreign.predict(runtime, zeros, border).outputs
    return tuple(
        replace(tensor, shape=found[tensor.name].shape[1:] if whole else (-1, *found[tensor.name].shape[1:]))
        for tensor in border[1]
    )


def _specs(
    path: Path, tensors: Sequence[Tensor], given: Sequence[TensorSpec] | None, *, whole: bool
) -> tuple[TensorSpec, ...]:
    """Return the specification of each tensor, read from it or checked against it."""
    if given is not None and len(given) != len(tensors):
        raise ModelFileError(str(path), f"{len(given)} tensors as in the schema", str(len(tensors)))
    found: list[TensorSpec] = []
    for index, tensor in enumerate(tensors):
        shape = tensor.shape if whole else tensor.shape[1:]
        dtype = "float32" if tensor.scale is not None or tensor.dtype.startswith("float") else tensor.dtype
        if dtype not in DTYPES:
            found_type = f"{dtype} as {tensor.tensor!r}"
            advice = "convert the model with another type at its border"
            raise ModelFileError(str(path), f"inputs and outputs of {', '.join(DTYPES)}", found_type, advice)
        if given is not None:
            if given[index].shape != shape or given[index].dtype != dtype:
                expected = f"{given[index].dtype}{list(given[index].shape)} for {given[index].name}"
                raise ModelFileError(str(path), expected, f"{dtype}{list(shape)}")
            found.append(given[index])
            continue
        low, high = _range(tensor)
        name = _unique(plain_name(tensor.tensor, "tensor", "_"), [spec.name for spec in found])
        found.append(TensorSpec(name, tuple(shape), dtype, minimum=low, maximum=high))
    return tuple(found)


def _pairs(
    path: Path, inputs: Sequence[Tensor], outputs: Sequence[Tensor], state: Mapping[str, str]
) -> Mapping[str, str]:
    """Return *state* by the schema's names.

    Raises:
        ModelFileError: There is no such input or output, or the two differ in shape or type.
    """
    found = {}
    for into, out in state.items():
        ends = []
        for what, name, tensors in (("input", into, inputs), ("output", out, outputs)):
            end = next((tensor for tensor in tensors if name in {tensor.tensor, tensor.name}), None)
            if end is None:
                names = ", ".join(repr(tensor.tensor) for tensor in tensors)
                expected = f"an {what} among {names}"
                raise ModelFileError(str(path), expected, repr(name), f"correct --state {into}={out}")
            ends.append(end)
        taken, given = ends
        if [max(1, size) for size in taken.shape] != [max(1, size) for size in given.shape]:
            shapes = f"{list(taken.shape)} and {list(given.shape)}"
            raise ModelFileError(
                str(path), "one shape at both ends of a state", shapes, f"correct --state {into}={out}"
            )
        if taken.dtype != given.dtype:
            types = f"{taken.dtype} and {given.dtype}"
            raise ModelFileError(str(path), "one type at both ends of a state", types, f"correct --state {into}={out}")
        found[taken.name] = given.name
    if len(found) == len(inputs):
        raise ModelFileError(str(path), "an input that is no state", "none", "leave out one --state")
    return found


def _with_state(schema: ModelSchema, pairs: Mapping[str, str]) -> ModelSchema:
    """Return the schema that says to people which input is state."""
    inputs = tuple(
        replace(spec, unit=f"state: zero at the start, then the output {pairs[spec.name]} of the call before")
        if spec.name in pairs
        else spec
        for spec in schema.inputs
    )
    return replace(schema, inputs=inputs, state=pairs)


def _range(tensor: Tensor) -> tuple[float | None, float | None]:
    """Return the real numbers that a quantized tensor can hold; a float tensor says nothing about its range."""
    if tensor.scale is None:
        return None, None
    limits = np.iinfo(np.dtype(tensor.dtype))
    low, high = ((limit - tensor.zero_point) * tensor.scale for limit in (limits.min, limits.max))
    return low, high


def _are_probabilities(scores: NDArray[np.float32]) -> bool:
    """Say whether scores lie between 0 and 1 and add up to 1, within a few steps of an int8 probability."""
    within = bool((scores >= 0).all() and (scores <= 1).all())
    return within and bool((np.abs(scores.sum(axis=1) - 1) <= _ROUNDING).all())


def plain_name(text: str, other: str, joint: str) -> str:
    """Return *text* as a name: lower-case letters, digits and *joint*, with a letter first, else *other* before it."""
    name = re.sub(r"[^a-z0-9]+", joint, text.lower()).strip(joint)[:48]
    return name if name[:1].isalpha() else f"{other}{joint}{name}".strip(joint)


def _unique(name: str, taken: Sequence[str]) -> str:
    return name if name not in taken else next(n for i in range(2, 1000) if (n := f"{name}_{i}") not in taken)


def _described(facts: FileFacts, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> ModelSchema:
    """Return the schema of a file that came without one: one flat output behind a softmax is a classifier's."""
    computing = [op.name.lower() for op in facts.graph if "quantize" not in op.name.lower()]
    shape = outputs[0].shape if len(outputs) == 1 else ()
    if len(shape) == 1 and computing and computing[-1] == "softmax":
        output = TensorSpec(_PROBABILITIES, shape, "float32", minimum=0.0, maximum=1.0)
        answers = Outputs({_PROBABILITIES: Classes(tuple(map(str, range(shape[0]))))}) if shape[0] > 1 else NO_OUTPUTS
        return ModelSchema(inputs, (output,), answers)
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
