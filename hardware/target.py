"""One hardware target, read strictly from its TOML file.

The file ``targets/<name>.toml`` holds exactly these keys::

    schema_version = 1
    summary = "..."              # one line for people
    runtime = "onnxruntime"      # the device's runtime table: onnxruntime, litert or coreml
    format = "onnx"              # onnx, tflite or mlpackage
    train_format = "onnx"        # train graph the runtime can execute: onnx, tflite, or "" when it cannot train
    recipe = "onnx-int8-s8s8"    # how hedgerow.compile makes its artifact, unless it is told otherwise
    architecture = "aarch64"     # as uname says it
    minimum_version = ""         # oldest version of the operating system or runtime; "" when any will do
    number_types = [...]         # element types that a tensor in the file may have
    operators = [...]            # operators that the runtime executes on this hardware, in the format's own names
    ram_bytes = 536870912        # what the model and its buffers may take, not what is soldered in
    flash_bytes = 268435456      # what one artifact may take

    [cost]                       # first-order model, see hedgerow.hardware.cost
    macs_per_s = {float32 = 3.0e9, int8 = 6.0e9}
    memory_bytes_per_s = 3.0e9
    overhead_ms = 0.05
    active_watts = 4.0
    source = "..."               # where the five numbers come from
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError, UnknownNameError

__all__ = ["FORMATS", "NUMBER_TYPES", "RUNTIMES", "CostModel", "Target", "decode_target", "load_target", "target_names"]

RUNTIMES = ("onnxruntime", "litert", "coreml")
FORMATS = ("onnx", "tflite", "mlpackage")
NUMBER_TYPES = ("float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")
_SCHEMA_VERSION = 1
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{0,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """A first-order model of time and energy: good for ranking models on a device, not for promising milliseconds.

    Attributes:
        macs_per_s: Number type -> sustained multiply-accumulates a second of one thread.
        memory_bytes_per_s: Sustained bandwidth to the memory that holds weights and activations.
        overhead_ms: Time of a call that computes nothing.
        active_watts: Power of the whole board or chip while it computes.
        source: Where the numbers come from, and which of them are assumptions.
    """

    macs_per_s: Mapping[str, float]
    memory_bytes_per_s: float
    overhead_ms: float
    active_watts: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What one kind of device can hold and run.

    Attributes:
        name: The file's name, such as ``raspberry-pi-4``.
        summary: One line for people.
        runtime: Key of the device's runtime table.
        format: Format of the artifact.
        train_format: Format of the train graph, or empty when the device cannot train.
        recipe: Default recipe of :mod:`hedgerow.compile`.
        architecture: Machine name as ``uname`` has it.
        minimum_version: Oldest operating system or runtime, or empty.
        number_types: Element types that a tensor in the artifact may have.
        operators: Operators that the artifact may hold, in the format's own names.
        ram_bytes: What the model and its buffers may take.
        flash_bytes: What one artifact may take.
        cost: Latency and energy.
    """

    name: str
    summary: str
    runtime: str
    format: str
    train_format: str
    recipe: str
    architecture: str
    minimum_version: str
    number_types: frozenset[str]
    operators: frozenset[str]
    ram_bytes: int
    flash_bytes: int
    cost: CostModel

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "name": self.name,
            "summary": self.summary,
            "runtime": self.runtime,
            "format": self.format,
            "train_format": self.train_format,
            "recipe": self.recipe,
            "architecture": self.architecture,
            "minimum_version": self.minimum_version,
            "number_types": sorted(self.number_types),
            "operators": sorted(self.operators),
            "ram_bytes": self.ram_bytes,
            "flash_bytes": self.flash_bytes,
            "cost": {
                "macs_per_s": dict(sorted(self.cost.macs_per_s.items())),
                "memory_bytes_per_s": self.cost.memory_bytes_per_s,
                "overhead_ms": self.cost.overhead_ms,
                "active_watts": self.cost.active_watts,
                "source": self.cost.source,
            },
        }


def decode_target(name: str, text: str) -> Target:
    """Read the text of a target's file.

    Args:
        name: The target's name; its file is called so.
        text: TOML, as the module's documentation says.

    Raises:
        DecodeError: The text is no TOML, a key is absent, unknown or of the wrong type, or a value is out of bounds.
    """
    where = f"target {name}"
    try:
        fields = Fields(tomllib.loads(text), where)
    except tomllib.TOMLDecodeError as exc:
        raise DecodeError(where, "a TOML document", str(exc)) from exc
    if not _NAME.fullmatch(name):
        raise DecodeError(where, f"a file name like {_NAME.pattern}", repr(name))
    fields.integer("schema_version", minimum=_SCHEMA_VERSION, maximum=_SCHEMA_VERSION)
    target = Target(
        name=name,
        summary=fields.text("summary"),
        runtime=fields.choice("runtime", {runtime: runtime for runtime in RUNTIMES}),
        format=fields.choice("format", {kind: kind for kind in FORMATS}),
        train_format=fields.choice("train_format", {"": "", "onnx": "onnx", "tflite": "tflite"}),
        recipe=fields.text("recipe", pattern=_NAME),
        architecture=fields.text("architecture", pattern=_WORD),
        minimum_version=fields.text("minimum_version", pattern=_WORD),
        number_types=_names(fields, "number_types", NUMBER_TYPES),
        operators=_names(fields, "operators", None),
        ram_bytes=fields.integer("ram_bytes", minimum=1024, maximum=2**44),
        flash_bytes=fields.integer("flash_bytes", minimum=1024, maximum=2**44),
        cost=_cost(fields.nested("cost")),
    )
    fields.finish()
    return target


def _names(fields: Fields, key: str, known: tuple[str, ...] | None) -> frozenset[str]:
    names = fields.texts(key, maximum_chars=64)
    if not names or len(set(names)) != len(names):
        raise DecodeError(f"{fields.where}.{key}", "at least one name, each once", repr(list(names)))
    unknown = sorted(set(names) - set(known)) if known is not None else []
    if unknown:
        raise DecodeError(f"{fields.where}.{key}", f"names among {', '.join(known or ())}", ", ".join(unknown))
    return frozenset(names)


def _cost(fields: Fields) -> CostModel:
    rates = fields.nested("macs_per_s")
    cost = CostModel(
        macs_per_s={kind: rates.number(kind, minimum=1e3, maximum=1e16) for kind in rates.names()},
        memory_bytes_per_s=fields.number("memory_bytes_per_s", minimum=1e3, maximum=1e14),
        overhead_ms=fields.number("overhead_ms", minimum=0, maximum=1e4),
        active_watts=fields.number("active_watts", minimum=1e-6, maximum=1e4),
        source=fields.text("source"),
    )
    fields.finish()
    unknown = sorted(set(cost.macs_per_s) - set(NUMBER_TYPES))
    if unknown or not cost.macs_per_s:
        raise DecodeError(
            f"{fields.where}.macs_per_s", f"rates for some of {', '.join(NUMBER_TYPES)}", ", ".join(unknown) or "none"
        )
    return cost


def target_names() -> tuple[str, ...]:
    """Return the names of all targets, sorted."""
    folder = files("hedgerow.hardware") / "targets"
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


@cache
def load_target(name: str) -> Target:
    """Read one target.

    Raises:
        UnknownNameError: There is no such target.
        DecodeError: Its file is wrong.
    """
    known = target_names()
    if name not in known:
        raise UnknownNameError("target", name, known)
    return decode_target(name, (files("hedgerow.hardware") / "targets" / f"{name}.toml").read_text("utf-8"))
