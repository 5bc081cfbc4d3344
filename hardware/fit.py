"""Does a model fit a target? A pure comparison of a file's facts with the target's limits.

Whoever reads the file (:mod:`hedgerow.compile.inspection`) hands its facts over as :class:`ModelFacts`, so that this
folder needs no library of any format. The compile gate refuses an artifact with the first misfit; ``hedgerow targets
check`` prints all of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hedgerow.hardware.target import Target

__all__ = ["CHECKS", "Misfit", "ModelFacts", "OperatorUse", "fit"]

CHECKS = (
    "format",
    "operators",
    "operator versions",
    "number types",
    "ranks",
    "all integer",
    "integer border",
    "symmetric",
    "static shapes",
    "inline constants",
    "storage",
    "memory",
    "latency",
)
"""Every check of :func:`fit`, in its order."""

_SHOWN = 12
_SEPARATORS = re.compile("[/>]")
_INTEGER_BORDER = frozenset({"int8", "uint8", "int16", "int32"})


@dataclass(frozen=True, slots=True, order=True)
class OperatorUse:
    """One way in which a model uses an operator.

    Attributes:
        name: In the format's own name.
        types: Element types that tell its kernels apart: that of its data, ``int8``; with another one of its weights,
            ``float32/int8``; from and to, of what converts, ``float32>int8``; empty: not known.
        rank: Dimensions of its data; 0: a scalar, or not known.
    """

    name: str
    types: str = ""
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a target is asked to hold. A fact that nobody could read is None, and nothing is concluded from it.

    Attributes:
        format: ``onnx``, ``tflite`` or ``mlpackage``.
        size_bytes: Of the file.
        operators: Operator in the format's own name -> highest version in use; 0: not known.
        number_types: Element types of all tensors, inside and at the border.
        uses: In which ways the operators are used, as far as that is known.
        border_types: Element types of inputs and outputs.
        dynamic_shapes: Whether a dimension other than the batch is open.
        asymmetric_tensors: How many quantized tensors have a zero point other than 0.
        outside_constants: How many constants stand behind the file's graph instead of in it.
        activation_bytes: What lives at once during a prediction, without weights; the arena where there is one.
        latency_ms: Modelled time of a prediction on the target.
    """

    format: str
    size_bytes: int
    operators: Mapping[str, int]
    number_types: frozenset[str]
    uses: frozenset[OperatorUse] = field(default_factory=frozenset)
    border_types: frozenset[str] = field(default_factory=frozenset)
    dynamic_shapes: bool | None = None
    asymmetric_tensors: int | None = None
    outside_constants: int | None = None
    activation_bytes: int | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Misfit:
    """One reason why a model does not fit.

    Attributes:
        check: One of :data:`CHECKS`.
        expected: What the target allows.
        found: What the model has.
        names: The operators or number types in the way, sorted.
    """

    check: str
    expected: str
    found: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.check}: expected {self.expected}, found {self.found}"


def fit(target: Target, facts: ModelFacts) -> tuple[Misfit, ...]:
    """Return everything that keeps a model from running on *target*; empty when it fits.

    A model of another format gets that misfit alone: operators of two formats cannot be compared.
    """
    if facts.format != target.format:
        return (Misfit("format", f"{target.format}, which {target.runtime} runs", facts.format),)
    return (
        *_operators(target, facts),
        *_numbers(target, facts),
        *_ranks(target, facts),
        *_integers(target, facts),
        *_shapes(target, facts),
        *_limits(target, facts),
    )


def _operators(target: Target, facts: ModelFacts) -> tuple[Misfit, ...]:
    unknown = tuple(sorted(facts.operators.keys() - target.operators.keys()))
    newer = tuple(
        name
        for name, version in sorted(facts.operators.items())
        if name in target.operators and 0 < target.operators[name] < version
    )
    misfits = []
    if unknown:
        misfits.append(Misfit("operators", "operators in the target's table", f"also {_listed(unknown)}", unknown))
    if newer:
        expected = _listed(tuple(f"{name} up to version {target.operators[name]}" for name in newer))
        found = _listed(tuple(f"{name} version {facts.operators[name]}" for name in newer))
        misfits.append(Misfit("operator versions", expected, found, newer))
    return tuple(misfits)


def _numbers(target: Target, facts: ModelFacts) -> tuple[Misfit, ...]:
    floats = _floats(target, facts)
    unknown = tuple(sorted(facts.number_types - target.number_types - set(floats)))
    misfits = []
    if unknown:
        expected = f"tensors of {', '.join(sorted(target.number_types))}"
        misfits.append(Misfit("number types", expected, f"also {_listed(unknown)}", unknown))
    # What a use says of a type that is named already, or is refused as a float below, would be said twice.
    said = {*unknown, *floats}
    wrong = [
        use
        for use in sorted(facts.uses)
        if use.types
        and use.types not in target.operator_types.get(use.name, {use.types})
        and said.isdisjoint(_SEPARATORS.split(use.types))
    ]
    if wrong:
        names = tuple(dict.fromkeys(use.name for use in wrong))
        expected = _listed(tuple(f"{name} on {', '.join(sorted(target.operator_types[name]))}" for name in names))
        found = _listed(tuple(dict.fromkeys(f"{use.name} on {use.types}" for use in wrong)))
        misfits.append(Misfit("number types", expected, found, names))
    return tuple(misfits)


def _floats(target: Target, facts: ModelFacts) -> tuple[str, ...]:
    return tuple(sorted(kind for kind in facts.number_types if "float" in kind)) if target.all_integer else ()


def _ranks(target: Target, facts: ModelFacts) -> tuple[Misfit, ...]:
    wrong = {
        use: allowed
        for use in sorted(facts.uses)
        if (allowed := _allowed_ranks(target, use)) and use.rank and use.rank not in allowed
    }
    if not wrong:
        return ()
    expected = [f"{use.name} of {', '.join(map(str, sorted(allowed)))} dimensions" for use, allowed in wrong.items()]
    found = [f"{use.name} of {use.rank}" for use in wrong]
    names = tuple(dict.fromkeys(use.name for use in wrong))
    return (Misfit("ranks", _listed(tuple(dict.fromkeys(expected))), _listed(tuple(dict.fromkeys(found))), names),)


def _allowed_ranks(target: Target, use: OperatorUse) -> frozenset[int]:
    """Return the ranks that a use may have; empty: any."""
    ranks = target.operator_ranks
    return ranks.get(f"{use.name} {use.types}", ranks.get(use.name, frozenset()))


def _integers(target: Target, facts: ModelFacts) -> tuple[Misfit, ...]:
    misfits = []
    if floats := _floats(target, facts):
        misfits.append(Misfit("all integer", "integers in every tensor", f"also {_listed(floats)}", floats))
    border = tuple(sorted(facts.border_types - _INTEGER_BORDER)) if target.integer_io else ()
    if border:
        misfits.append(
            Misfit("integer border", "integers at every input and output", f"also {_listed(border)}", border)
        )
    if target.symmetric and facts.asymmetric_tensors:
        found = f"another one in {facts.asymmetric_tensors} tensors"
        misfits.append(Misfit("symmetric", "a zero point of 0 in every quantized tensor", found))
    return tuple(misfits)


def _shapes(target: Target, facts: ModelFacts) -> tuple[Misfit, ...]:
    misfits = []
    if target.static_shapes and facts.dynamic_shapes:
        misfits.append(Misfit("static shapes", "fixed shapes", "a dimension that is open"))
    # TensorFlow Lite Micro takes a constant outside the flatbuffer for a tensor that is still to be computed
    # (tflite-micro, micro_allocator.cc, GetFlatbufferTensorBuffer).
    if target.runtime == "tflite-micro" and facts.outside_constants:
        found = f"{facts.outside_constants} behind it"
        misfits.append(Misfit("inline constants", "every constant inside the flatbuffer", found))
    return tuple(misfits)


def _limits(target: Target, facts: ModelFacts) -> tuple[Misfit, ...]:
    misfits = []
    if facts.size_bytes > target.flash_bytes:
        expected = f"at most the target's {target.flash_bytes} bytes"
        misfits.append(Misfit("storage", expected, f"{facts.size_bytes} bytes"))
    if facts.activation_bytes is not None:
        if target.arena_bytes is not None:
            # The weights stay in flash.
            if facts.activation_bytes > target.arena_bytes:
                expected = f"at most the target's {target.arena_bytes} bytes of tensor arena"
                misfits.append(Misfit("memory", expected, f"{facts.activation_bytes} bytes"))
        elif facts.size_bytes + facts.activation_bytes > target.ram_bytes:
            expected = f"at most the target's {target.ram_bytes} bytes of memory"
            misfits.append(Misfit("memory", expected, f"{facts.size_bytes + facts.activation_bytes} bytes"))
    if (
        facts.latency_ms is not None
        and target.maximum_latency_ms is not None
        and facts.latency_ms > target.maximum_latency_ms
    ):
        expected = f"at most {target.maximum_latency_ms:g} ms by the target's cost model"
        misfits.append(Misfit("latency", expected, f"{facts.latency_ms:.4g} ms"))
    return tuple(misfits)


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
