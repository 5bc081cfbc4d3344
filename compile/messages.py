"""What the compiling process and its workers say to each other: one JSON object a message, over a channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hedgerow.compile.recipe import Recipe, read_recipe
from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import DecodeError
from hedgerow.hardware.target import Target, read_target_record
from hedgerow.progress import Progress

__all__ = [
    "MESSAGE_LIMIT_BYTES",
    "Job",
    "SentRecipe",
    "Unit",
    "decode_job",
    "decode_message",
    "progress_from",
    "progress_record",
]

MESSAGE_LIMIT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """One thing to make, which is answered, or refused, alone.

    Attributes:
        kind: ``artifact``, ``train_graph`` or ``reference``.
        name: The target, the train graph's format, or nothing.
        recipe: Of an artifact.
    """

    kind: str
    name: str = ""
    recipe: str = ""

    @classmethod
    def answered(cls, kind: str, answer: Mapping[str, Any]) -> "Unit":
        """Return the unit that a worker's answer is for.

        Raises:
            ValueError: There is no such kind.
        """
        if kind == "artifact":
            return cls(kind, answer["artifact"]["target"], answer["recipe"])
        if kind == "train_graph":
            return cls(kind, answer["format"])
        if kind == "reference":
            return cls(kind)
        raise ValueError(f"a worker answered {kind!r}")

    @property
    def subject(self) -> str:
        """What this is, for people."""
        return {"artifact": self.name, "train_graph": f"the {self.name} train graph"}.get(self.kind, "the reference")


@dataclass(frozen=True, slots=True)
class SentRecipe:
    """A recipe on its way to a worker, which reads it once it finds what the recipe's passes are made of.

    Attributes:
        name: What it is called.
        record: The recipe as canonical JSON, every setting of every pass included.
    """

    name: str
    record: str

    @classmethod
    def of(cls, recipe: Recipe) -> "SentRecipe":
        """Return *recipe*, to be sent."""
        return cls(recipe.name, encode_json(recipe.to_record()).decode())

    def read(self) -> Recipe:
        """Return the recipe; passes of a user's own are imported.

        Raises:
            HedgerowError: See :func:`hedgerow.compile.recipe.read_recipe`.
        """
        return read_recipe(decode_json(self.record.encode(), "recipe", limit_bytes=MESSAGE_LIMIT_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Work for one toolchain.

    Attributes:
        toolchain: ``onnx``, ``tflite`` or ``coreml``.
        task: The task's reference; paths in it are absolute.
        checkpoint: Folder of the checkpoint.
        weights_sha256: Hash of its weights.
        folder: The build's folder.
        search_path: Where the task's modules are found.
        max_drop: Allowed loss of the mean score, as a share.
        limit_s: Longest time that it may take; for the process that waits.
        artifacts: Target -> recipe.
        targets: Target -> what it can hold and run; of each artifact.
        train_formats: Train graphs to make.
        train_options: What they hold beyond plain SGD, see
            :func:`hedgerow.compile.train_graph.options.parse_step_options`.
        reference: Whether to make the reference.
        counts: Counts that replace those of the reference.
    """

    toolchain: str
    task: str
    checkpoint: str
    weights_sha256: str
    folder: str
    search_path: tuple[str, ...]
    max_drop: float
    limit_s: float
    artifacts: Mapping[str, SentRecipe]
    targets: Mapping[str, Target]
    train_formats: tuple[str, ...]
    train_options: tuple[str, ...]
    reference: bool
    counts: Mapping[str, tuple[int, ...]]

    @property
    def units(self) -> tuple[Unit, ...]:
        """What this makes, in order."""
        return (
            *([Unit("reference")] if self.reference else []),
            *(Unit("artifact", target, recipe.name) for target, recipe in self.artifacts.items()),
            *(Unit("train_graph", kind) for kind in self.train_formats),
        )

    @property
    def work(self) -> str:
        """What this is, for people."""
        parts = [*self.artifacts, *(f"the {kind} train graph" for kind in self.train_formats)]
        return ", ".join(parts) or "the reference"

    def encode(self) -> bytes:
        """Encode as one message."""
        record: dict[str, Any] = {
            "toolchain": self.toolchain,
            "task": self.task,
            "checkpoint": self.checkpoint,
            "weights_sha256": self.weights_sha256,
            "folder": self.folder,
            "search_path": list(self.search_path),
            "max_drop": self.max_drop,
            "limit_s": self.limit_s,
            "artifacts": {
                target: {"name": recipe.name, "record": recipe.record} for target, recipe in self.artifacts.items()
            },
            "targets": {name: target.to_record() for name, target in self.targets.items()},
            "train_formats": list(self.train_formats),
            "train_options": list(self.train_options),
            "reference": self.reference,
            "counts": {name: {"counts": list(values)} for name, values in self.counts.items()},
        }
        return encode_json({"job": record})


def decode_job(fields: Fields) -> Job:
    """Decode a job.

    Raises:
        DecodeError: A field is wrong.
    """

    def sent(entry: Fields) -> SentRecipe:
        recipe = SentRecipe(
            entry.text("name", maximum_chars=4096), entry.text("record", maximum_chars=MESSAGE_LIMIT_BYTES)
        )
        entry.finish()
        return recipe

    def counts(entry: Fields) -> tuple[int, ...]:
        values = entry.integers("counts")
        entry.finish()
        return values

    job = Job(
        toolchain=fields.text("toolchain"),
        task=fields.text("task", maximum_chars=65536),
        checkpoint=fields.text("checkpoint", maximum_chars=65536),
        weights_sha256=fields.text("weights_sha256"),
        folder=fields.text("folder", maximum_chars=65536),
        search_path=fields.texts("search_path", maximum_chars=65536),
        max_drop=fields.number("max_drop"),
        limit_s=fields.number("limit_s"),
        artifacts=fields.mapping("artifacts", sent),
        targets=fields.mapping("targets", read_target_record),
        train_formats=fields.texts("train_formats"),
        train_options=fields.texts("train_options", maximum_chars=65536),
        reference=fields.boolean("reference"),
        counts=fields.mapping("counts", counts),
    )
    fields.finish()
    return job


def decode_message(payload: bytes) -> tuple[str, Fields]:
    """Return the one key of a message and what it holds.

    Raises:
        DecodeError: It is none.
    """
    fields = decode_json(payload, "message", limit_bytes=MESSAGE_LIMIT_BYTES)
    names = fields.names()
    if len(names) != 1:
        raise DecodeError("message", "one key", ", ".join(names) or "none")
    return names[0], fields.nested(names[0])


def progress_record(progress: Progress) -> dict[str, Any]:
    """Return a progress step as plain JSON values."""
    return {"work": progress.work, "done": progress.done, "total": progress.total, "note": progress.note}


def progress_from(fields: Fields) -> Progress:
    """Decode a progress step.

    Raises:
        DecodeError: A field is wrong.
    """
    progress = Progress(fields.text("work"), fields.number("done"), fields.number("total"), fields.text("note"))
    fields.finish()
    return progress
