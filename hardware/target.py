"""One hardware target, read strictly from its TOML file.

``docs/targets.md`` documents every key of ``targets/<name>.toml`` and shows a whole file; a test compares the two.
Targets that run the same runtime share one operator table, ``operators/<name>.toml``, and lists of recipes,
``recipes.toml``, so that a new device of a known kind is one short file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.hardware.operator_table import OperatorTable, document, read_table

__all__ = [
    "ACCELERATORS",
    "FORMATS",
    "NUMBER_TYPES",
    "RUNTIMES",
    "CostModel",
    "Target",
    "decode_recipe_lists",
    "decode_target",
    "read_target_record",
]

RUNTIMES = ("onnxruntime", "litert", "coreml", "tflite-micro")
FORMATS = ("onnx", "tflite", "mlpackage")
ACCELERATORS = ("none", "edgetpu", "neural-engine", "npu", "tensorrt")
NUMBER_TYPES = (
    *("float64", "float32", "float16", "bfloat16"),
    *("int64", "int32", "int16", "int8", "int4", "int2"),
    *("uint64", "uint32", "uint16", "uint8", "uint4", "uint2", "bool"),
)

_FORMAT_OF = {"onnxruntime": "onnx", "litert": "tflite", "coreml": "mlpackage", "tflite-micro": "tflite"}
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{0,64}")
_RECIPE_CHARS = 1024  # it may be a path
_LIST_MARK = "@"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """A first-order model of time and energy: good for ranking models on a device, not for promising milliseconds.

    Attributes:
        macs_per_s: Number type -> sustained multiply-accumulates a second of one thread, or of the accelerator.
        memory_bytes_per_s: Sustained bandwidth to the memory that holds weights and activations.
        overhead_ms: Time of a call that computes nothing.
        active_watts: Power of the whole board or chip while it computes.
        error_factor: The true latency or energy is taken to lie between the estimate divided and multiplied by this.
        source: Where the numbers come from, and which of them are assumptions.
    """

    macs_per_s: Mapping[str, float]
    memory_bytes_per_s: float
    overhead_ms: float
    active_watts: float
    error_factor: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What one kind of device can hold and run.

    Attributes:
        name: The file's name, such as ``raspberry-pi-4``.
        summary: One line for people.
        runtime: Key of the device's runtime table.
        accelerator: What executes the operators beside the CPU: one of :data:`ACCELERATORS`.
        format: Format of the artifact.
        train_format: Format of the train graph, or empty when the device cannot train.
        recipes: Candidate recipes of :mod:`hedgerow.compile`, in order of preference.
        architecture: Machine name as ``uname`` has it.
        minimum_version: Oldest operating system or runtime, or empty.
        number_types: Element types that a tensor in the artifact may have.
        all_integer: No tensor may be float, not even between two operators or at the border.
        integer_io: Inputs and outputs must be integers.
        symmetric: Zero points of quantized tensors must be 0.
        static_shapes: Every dimension must be known but the batch, which is then 1.
        operators: Operator that the artifact may hold, in the format's own name -> highest supported version; 0: any.
        operators_source: Where the operator table comes from.
        operator_types, operator_ranks: Element types and dimensions of those operators, see :class:`OperatorTable`.
        ram_bytes: What the model and its buffers may take.
        flash_bytes: What one artifact may take.
        arena_bytes: What the activations may take, where the runtime has an arena of fixed size; None: no such limit.
        maximum_latency_ms: Longest modelled prediction that makes sense on the device; None: no such limit.
        emits_c_array: The artifact is also wanted as C source, to be linked into firmware.
        cost: Latency and energy.
    """

    name: str
    summary: str
    runtime: str
    accelerator: str
    format: str
    train_format: str
    recipes: tuple[str, ...]
    architecture: str
    minimum_version: str
    number_types: frozenset[str]
    all_integer: bool
    integer_io: bool
    symmetric: bool
    static_shapes: bool
    operators: Mapping[str, int]
    operators_source: str
    operator_types: Mapping[str, frozenset[str]] = field(default_factory=dict)
    operator_ranks: Mapping[str, frozenset[int]] = field(default_factory=dict)
    ram_bytes: int
    flash_bytes: int
    arena_bytes: int | None
    maximum_latency_ms: float | None
    emits_c_array: bool
    cost: CostModel

    @property
    def recipe(self) -> str:
        """The default recipe: the first candidate."""
        return self.recipes[0]

    @property
    def is_modelled(self) -> bool:
        """Whether the cost model says something: for CPUs. What an accelerator takes is known once one has run."""
        return self.accelerator == "none"

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "name": self.name,
            "summary": self.summary,
            "runtime": self.runtime,
            "accelerator": self.accelerator,
            "format": self.format,
            "train_format": self.train_format,
            "recipe": self.recipe,
            "recipes": list(self.recipes),
            "architecture": self.architecture,
            "minimum_version": self.minimum_version,
            "number_types": sorted(self.number_types),
            "all_integer": self.all_integer,
            "integer_io": self.integer_io,
            "symmetric": self.symmetric,
            "static_shapes": self.static_shapes,
            "operators": dict(sorted(self.operators.items())),
            "operators_source": self.operators_source,
            "operator_types": {name: sorted(types) for name, types in sorted(self.operator_types.items())},
            "operator_ranks": {name: sorted(ranks) for name, ranks in sorted(self.operator_ranks.items())},
            "ram_bytes": self.ram_bytes,
            "flash_bytes": self.flash_bytes,
            "arena_bytes": self.arena_bytes,
            "maximum_latency_ms": self.maximum_latency_ms,
            "emits_c_array": self.emits_c_array,
            "cost": {
                "macs_per_s": dict(sorted(self.cost.macs_per_s.items())),
                "memory_bytes_per_s": self.cost.memory_bytes_per_s,
                "overhead_ms": self.cost.overhead_ms,
                "active_watts": self.cost.active_watts,
                "error_factor": self.cost.error_factor,
                "source": self.cost.source,
            },
        }


def decode_target(
    name: str,
    text: str,
    tables: Mapping[str, OperatorTable],
    lists: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Target:
    """Read the text of a target's file.

    Args:
        name: The target's name; its file is called so.
        text: TOML, as ``docs/targets.md`` says.
        tables: Operator tables by name; the file names one of them.
        lists: Lists of recipes by name; the file may name some of them as ``@name``.

    Raises:
        DecodeError: The text is no TOML, a key is absent, unknown or of the wrong type, a value is out of bounds, or
            two keys contradict each other.
    """
    where = f"target {name}"
    fields = document(where, text)
    if not _NAME.fullmatch(name):
        raise DecodeError(where, f"a file name like {_NAME.pattern}", repr(name))
    table = fields.choice("operators", tables)
    return _target(fields, name, _recipes(fields, lists), table)


def read_target_record(fields: Fields) -> Target:
    """Read what :meth:`Target.to_record` gave.

    Raises:
        DecodeError: A key is absent, unknown or of the wrong type, or two keys contradict each other, as ``recipe`` and
            ``recipes`` do when the one is not the first of the other.
    """
    name = fields.text("name", pattern=_NAME)
    recipe = fields.text("recipe", maximum_chars=_RECIPE_CHARS)
    table = read_table(fields)
    recipes = _names(fields, "recipes", maximum_chars=_RECIPE_CHARS)
    if recipe != recipes[0]:
        raise DecodeError(f"{fields.where}.recipe", f"{recipes[0]!r}, the first of its recipes", repr(recipe))
    return _target(fields, name, recipes, table)


def _target(fields: Fields, name: str, recipes: tuple[str, ...], table: OperatorTable) -> Target:
    """Read what a target's file and its record have in common."""
    target = Target(
        name=name,
        summary=fields.text("summary", maximum_chars=200),
        runtime=fields.choice("runtime", {runtime: runtime for runtime in RUNTIMES}),
        accelerator=fields.choice("accelerator", {kind: kind for kind in ACCELERATORS}),
        format=fields.choice("format", {kind: kind for kind in FORMATS}),
        train_format=fields.choice("train_format", {"": "", "onnx": "onnx", "tflite": "tflite"}),
        recipes=recipes,
        architecture=fields.text("architecture", pattern=_WORD),
        minimum_version=fields.text("minimum_version", pattern=_WORD),
        number_types=frozenset(_names(fields, "number_types", NUMBER_TYPES)),
        all_integer=fields.boolean("all_integer"),
        integer_io=fields.boolean("integer_io"),
        symmetric=fields.boolean("symmetric"),
        static_shapes=fields.boolean("static_shapes"),
        operators=table.versions,
        operators_source=table.source,
        operator_types=table.types,
        operator_ranks=table.ranks,
        ram_bytes=fields.integer("ram_bytes", minimum=1024, maximum=2**44),
        flash_bytes=fields.integer("flash_bytes", minimum=1024, maximum=2**44),
        arena_bytes=fields.optional_integer("arena_bytes", minimum=1024, maximum=2**44),
        maximum_latency_ms=fields.optional_number("maximum_latency_ms", minimum=1e-3, maximum=1e7),
        emits_c_array=fields.boolean("emits_c_array"),
        cost=_cost(fields.nested("cost")),
    )
    fields.finish()
    _check(fields.where, target)
    return target


def _names(
    fields: Fields, key: str, known: tuple[str, ...] | None = None, *, maximum_chars: int = 64
) -> tuple[str, ...]:
    names = fields.texts(key, maximum_items=64, maximum_chars=maximum_chars)
    if not names or len(set(names)) != len(names):
        raise DecodeError(f"{fields.where}.{key}", "at least one name, each once", repr(list(names)))
    unknown = sorted(set(names) - set(known)) if known is not None else []
    if unknown:
        raise DecodeError(f"{fields.where}.{key}", f"names among {', '.join(known or ())}", ", ".join(unknown))
    return names


def _recipes(fields: Fields, lists: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the names of recipes, those of lists in their place."""
    found: list[str] = []
    for name in _names(fields, "recipes", maximum_chars=_RECIPE_CHARS):
        if not name.startswith(_LIST_MARK):
            found.append(name)
        elif (members := lists.get(name.removeprefix(_LIST_MARK))) is not None:
            found += members
        else:
            known = ", ".join(f"{_LIST_MARK}{known}" for known in sorted(lists)) or "none"
            raise DecodeError(f"{fields.where}.recipes", f"recipes, or lists among {known}", name)
    if len(set(found)) != len(found):
        twice = sorted({name for name in found if found.count(name) > 1})
        raise DecodeError(f"{fields.where}.recipes", "each recipe once", f"{', '.join(twice)} twice")
    return tuple(found)


def decode_recipe_lists(text: str) -> Mapping[str, tuple[str, ...]]:
    """Read the text of ``recipes.toml``: lists of recipes that targets share.

    Raises:
        DecodeError: The text is no TOML, a key is absent, unknown or of the wrong type, or a recipe stands twice.
    """
    fields = document("recipes", text)
    listed = fields.nested("lists")
    lists = {name: _names(listed, name) for name in listed.names()}
    fields.finish()
    every = [recipe for members in lists.values() for recipe in members]
    if twice := sorted({recipe for recipe in every if every.count(recipe) > 1}):
        raise DecodeError("recipes.lists", "each recipe in one list", f"{', '.join(twice)} in several")
    return lists


def _cost(fields: Fields) -> CostModel:
    rates = fields.nested("macs_per_s")
    cost = CostModel(
        macs_per_s={kind: rates.number(kind, minimum=1e3, maximum=1e16) for kind in rates.names()},
        memory_bytes_per_s=fields.number("memory_bytes_per_s", minimum=1e3, maximum=1e14),
        overhead_ms=fields.number("overhead_ms", minimum=0, maximum=1e4),
        active_watts=fields.number("active_watts", minimum=1e-6, maximum=1e4),
        error_factor=fields.number("error_factor", minimum=1, maximum=100),
        source=fields.text("source", maximum_chars=2000),
    )
    fields.finish()
    unknown = sorted(set(cost.macs_per_s) - set(NUMBER_TYPES))
    if unknown or not cost.macs_per_s:
        raise DecodeError(
            f"{fields.where}.macs_per_s", f"rates for some of {', '.join(NUMBER_TYPES)}", ", ".join(unknown) or "none"
        )
    return cost


def _check(where: str, target: Target) -> None:
    """Refuse keys that contradict each other."""
    runs = _FORMAT_OF[target.runtime]
    if runs != target.format:
        raise DecodeError(f"{where}.format", f"{runs}, which {target.runtime} runs", target.format)
    if target.train_format not in {"", target.format}:
        raise DecodeError(f"{where}.train_format", f"{target.format} or nothing", target.train_format)
    floats = sorted(kind for kind in target.number_types if "float" in kind)
    if target.all_integer and floats:
        raise DecodeError(f"{where}.number_types", "integers only where all_integer is set", ", ".join(floats))
    if target.all_integer and not target.integer_io:
        raise DecodeError(f"{where}.integer_io", "true where all_integer is set", "false")
    if target.arena_bytes is not None and target.arena_bytes > target.ram_bytes:
        raise DecodeError(f"{where}.arena_bytes", f"at most the ram_bytes, {target.ram_bytes}", f"{target.arena_bytes}")
