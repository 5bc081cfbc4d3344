"""A model as C source for TensorFlow Lite Micro: an array that is linked into firmware, and its header.

Microcontrollers have no file system to load a model from. The array is constant, so that it stays in flash, and aligned
to 16 bytes, which the flatbuffer needs (tflite-micro, ``tensorflow/lite/micro/docs/memory_management.md``). The header
says what firmware must know to use the model, and nothing that was not measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hedgerow.compile.arena import Arena
from hedgerow.compile.build import BLOB_FOLDER, Build
from hedgerow.compile.c_text import c_comment, c_name, c_quoted
from hedgerow.compile.cmsis_nn import SOURCE
from hedgerow.compile.errors import CArrayError
from hedgerow.compile.preparation.c_interface import PREPARE_HEADER, PREPARE_SOURCE, Interface
from hedgerow.compile.toolchains import NO_MCU
from hedgerow.durable import write_durably
from hedgerow.hardware.target import Target
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.schema import TensorSpec

if TYPE_CHECKING:
    from hedgerow.outputs import Output

__all__ = [
    "ALIGNMENT_BYTES",
    "C_FOLDER",
    "LIMIT_BYTES",
    "CModel",
    "c_header",
    "c_source",
    "write_c_array",
    "write_c_arrays",
]

C_FOLDER = "c"
"""Where a build keeps its C sources: ``c/<target>/model.cc`` and ``model.h``."""

ALIGNMENT_BYTES = 16
LIMIT_BYTES = 16 * 2**20
"""Larger models fit no microcontroller, and their source would take compilers minutes."""

_PER_LINE = 16
_WITH_DSP = "armv7e-m"
_SERVED = "The task's pre-processing is inside the model%s: give values in the units below."
_INSIDE = {"softmax": "softmax", "sigmoid": "sigmoid", "mean_square": "mean squared difference"}
_FOREIGN = "Nothing is known of pre-processing: this model was compiled elsewhere. Give it what it was trained on."


@dataclass(frozen=True, slots=True, kw_only=True)
class CModel:
    """What is written of one model.

    Attributes:
        name: Such as the task's; see :func:`hedgerow.compile.c_text.c_name`.
        target: Name of the hardware target.
        architecture: Of its core, as the target has it.
        content: The TFLite file.
        inputs, outputs: Its tensors.
        schema: What they mean.
        is_foreign: Whether it was compiled elsewhere.
        arena: The smallest arena that works; None: not measured.
        prepare: What makes its inputs of the schema's; None: it takes these.
    """

    name: str
    target: str
    architecture: str
    content: bytes
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    schema: ModelSchema
    is_foreign: bool = False
    arena: Arena | None = None
    prepare: Interface | None = None

    @property
    def preparation(self) -> str:
        """What firmware must know of pre-processing."""
        if self.is_foreign:
            return _FOREIGN
        activations = (output.activation for output in self.schema.answers.values())
        inside = " and ".join(dict.fromkeys(_INSIDE[name] for name in activations if name in _INSIDE))
        if self.prepare is None:
            return _SERVED % (f", and so is its {inside}" if inside else "")
        return (
            f"The task's pre-processing is in {PREPARE_HEADER}, not in the model: {self.prepare.symbol}() makes the "
            f"inputs of a sample, as they are stored.{f' The {inside} is inside.' if inside else ''}"
        )

    @property
    def named_outputs(self) -> "tuple[tuple[str, str, Output], ...]":
        """Outputs whose numbers have names: the word for it in symbols, where it is, in words, and the output."""
        places = {tensor.name: place for place, tensor in enumerate(self.outputs)}
        named = [(name, output) for name, output in self.schema.answers.items() if output.part_names]
        if len(named) == 1 and places.get(named[0][0]) == 0:
            return (("labels", "the first output", named[0][1]),)
        return tuple(
            (f"output_{places[name]}_labels", f"the last dimension of output {places[name]}, {name}", output)
            for name, output in named
        )


def c_header(model: CModel) -> str:
    """Return the header that declares the array and says how to use it."""
    symbol = c_name(model.name)
    upper = symbol.upper()
    taken = model.schema.inputs
    if model.prepare is not None:
        taken = (*model.prepare.schema.outputs, *(spec for spec in taken if spec.name in model.schema.state))
    lines = [
        f"#ifndef HEDGEROW_{upper}_H_",
        f"#define HEDGEROW_{upper}_H_",
        "",
        *c_comment(
            f"For {model.target}, by TensorFlow Lite Micro. Such a target runs no agent of Hedgerow: nothing on it "
            "installs, counts, reports or trains; what this file is good for is up to the firmware."
        ),
        "",
        f"#define {upper}_BYTES {len(model.content)}",
        "",
        *_arena_lines(upper, model),
        "",
        *c_comment(
            f"{model.preparation} Converting to stored integers is not inside: "
            "stored = rintf(real / SCALE) + ZERO_POINT, in single precision (half steps go to the even integer), cut "
            "to the type's range; real = (stored - ZERO_POINT) * SCALE. "
            "A tensor without SCALE holds real numbers as they are."
        ),
        *_tensor_lines(upper, "INPUT", model.inputs, taken),
        *_tensor_lines(upper, "OUTPUT", model.outputs, model.schema.outputs),
        *_state_lines(upper, model),
    ]
    for word, where, output in model.named_outputs:
        lines += [
            "",
            *c_comment(f"Names of the {output.kind}, in the order of {where}."),
            f"#define {upper}_{word.upper()} {len(output.part_names)}",
        ]
    lines += [
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"extern const unsigned char {symbol}[{upper}_BYTES];",
        f"extern const unsigned int {symbol}_len;",
        *(f"extern const char *const {symbol}_{word}[{upper}_{word.upper()}];" for word, _, _ in model.named_outputs),
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _arena_lines(upper: str, model: CModel) -> list[str]:
    arena = model.arena
    if arena is None:
        return c_comment(f"How large a tensor arena it needs is not known: {NO_MCU}.")
    lines = [
        *c_comment(
            f"The smallest tensor arena in which {arena.kernels} (tflite-micro {arena.version}, 64-bit pointers) "
            f"allocate and run this model on the machine that compiled it. It was not run on a {model.target}, and "
            "nothing is promised for that core: allocate, then compare with MicroInterpreter::arena_used_bytes()."
        ),
        f"#define {upper}_ARENA_BYTES {arena.bytes}",
    ]
    if model.architecture != _WITH_DSP:
        why = f"for this core's own kernels ({model.architecture})"
        return [*lines, *c_comment(f"Optimized kernels ask for scratch memory beside it; how much is not known {why}.")]
    if arena.scratch_bytes is None:
        why = f"with CMSIS-NN: {arena.scratch_omitted}"
        return [*lines, *c_comment(f"Optimized kernels ask for scratch memory beside it; how much is not known {why}.")]
    return [
        *lines,
        *c_comment(
            "Not in that figure: the most scratch memory that one operator's CMSIS-NN kernel asks for, in the same "
            f"arena ({SOURCE}). Computed, not run."
        ),
        f"#define {upper}_CMSIS_NN_SCRATCH_BYTES {arena.scratch_bytes}",
    ]


def _tensor_lines(upper: str, kind: str, tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> list[str]:
    lines = []
    for place, (tensor, spec) in enumerate(zip(tensors, specs, strict=True)):
        shape = ", ".join(map(str, tensor.shape))
        count = math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
        bounds = f", {spec.minimum:g} to {spec.maximum:g}" if None not in {spec.minimum, spec.maximum} else ""
        unit = f", {spec.unit_text}" if spec.unit_text else ""
        prefix = f"{upper}_{kind}_{place}"
        lines += [
            *c_comment(f"{kind.capitalize()} {place}, {spec.name}: {tensor.dtype}[{shape}]{unit}{bounds}."),
            f"#define {prefix}_NAME {c_quoted(spec.name)}",
            f"#define {prefix}_BYTES {count}",
        ]
        if tensor.scale is not None:
            lines += [
                f"#define {prefix}_SCALE {np.float32(tensor.scale):.9g}f".replace("SCALE 1f", "SCALE 1.0f"),
                f"#define {prefix}_ZERO_POINT ({tensor.zero_point})",
            ]
    return lines


def _state_lines(upper: str, model: CModel) -> list[str]:
    """Return what firmware does with state; nothing where there is none."""
    if not model.schema.state:
        return []
    lines = [
        "",
        *c_comment(
            "State. Before the first prediction of a stream, fill each of these inputs with elements of ZERO. "
            "After each prediction copy the output to the input, byte by byte; the interpreter may overwrite an input."
        ),
        f"#define {upper}_STATES {len(model.schema.state)}",
    ]
    inputs = {tensor.name: (place, tensor) for place, tensor in enumerate(model.inputs)}
    outputs = {tensor.name: place for place, tensor in enumerate(model.outputs)}
    for number, (into, out) in enumerate(model.schema.state.items()):
        place, tensor = inputs[into]
        prefix = f"{upper}_STATE_{number}"
        lines += [
            f"#define {prefix}_INPUT {place}",
            f"#define {prefix}_OUTPUT {outputs[out]}",
            f"#define {prefix}_ZERO ({tensor.zero_point})",
        ]
    return lines


def c_source(model: CModel) -> str:
    """Return the C++ source that defines the array; the same model gives the same text.

    Raises:
        CArrayError: The content is empty or larger than :data:`LIMIT_BYTES`.
    """
    content, symbol = model.content, c_name(model.name)
    if not 0 < len(content) <= LIMIT_BYTES:
        raise CArrayError(f"a model of 1 to {LIMIT_BYTES} bytes", f"{len(content)} bytes")
    rows = (content[start : start + _PER_LINE] for start in range(0, len(content), _PER_LINE))
    lines = "\n".join("    " + ", ".join(f"0x{byte:02x}" for byte in row) + "," for row in rows)
    named = ""
    for word, _where, output in model.named_outputs:
        labels = "".join(f"    {c_quoted(label)},\n" for label in output.part_names)
        named += f"const char *const {symbol}_{word}[{symbol.upper()}_{word.upper()}] = {{\n{labels}}};\n"
    return f"""\
#include "model.h"

alignas({ALIGNMENT_BYTES}) const unsigned char {symbol}[{symbol.upper()}_BYTES] = {{
{lines}
}};
const unsigned int {symbol}_len = {symbol.upper()}_BYTES;
{named}"""


def write_c_array(folder: Path, model: CModel) -> tuple[Path, Path]:
    """Write ``model.cc`` and ``model.h`` into *folder*, which is made when absent.

    Returns:
        The source and the header.

    Raises:
        CArrayError: The content is empty or too large, or the name holds no letter or digit.
        OSError: The folder cannot be written.
    """
    source, header = folder / "model.cc", folder / "model.h"
    text = c_source(model)
    write_durably(header, c_header(model).encode())
    write_durably(source, text.encode())
    return source, header


def write_c_arrays(
    folder: Path,
    build: Build,
    targets: Mapping[str, Target],
    arenas: Mapping[str, Arena],
    *,
    is_foreign: bool = False,
) -> tuple[Path, ...]:
    """Write the sources of every artifact whose target links its model into firmware, or takes prepared samples.

    Args:
        folder: The build's, with its blobs.
        build: Names the model after its task.
        targets: Those of the artifacts, by name.
        arenas: Target -> the smallest arena that works, where it was measured.
        is_foreign: Whether the models were compiled elsewhere.

    Returns:
        The sources, in the order of the artifacts.

    Raises:
        CArrayError: An artifact is too large.
        OSError: A blob cannot be read, or the folder cannot be written.
    """
    sources = []
    for artifact in build.artifacts:
        target = targets[artifact.target]
        prepare = _interface(build, artifact)
        if prepare is not None and artifact.prepare is not None:
            # For native programs on targets with a file system too.
            place = folder / C_FOLDER / target.name
            write_durably(place / PREPARE_HEADER, prepare.header.encode())
            source = (folder / BLOB_FOLDER / artifact.prepare.source.sha256).read_bytes()
            write_durably(place / PREPARE_SOURCE, source)
            sources.append(place / PREPARE_SOURCE)
        if target.emits_c_array:
            model = CModel(
                name=build.task,
                target=target.name,
                architecture=target.architecture,
                content=(folder / BLOB_FOLDER / artifact.blob.sha256).read_bytes(),
                inputs=artifact.inputs,
                outputs=artifact.outputs,
                schema=build.model_schema,
                is_foreign=is_foreign,
                arena=arenas.get(target.name),
                prepare=prepare,
            )
            sources.append(write_c_array(folder / C_FOLDER / target.name, model)[0])
    return tuple(sources)


def _interface(build: Build, artifact: Artifact) -> Interface | None:
    """Return the C functions that make an artifact's inputs, or None where it takes the schema's."""
    if artifact.prepare is None:
        return None
    given = tuple(TensorSpec(tensor.name, tensor.shape[1:], tensor.dtype) for tensor in artifact.prepare.outputs)
    return Interface(build.task, ModelSchema(build.model_schema.given.inputs, given), artifact.inputs)
