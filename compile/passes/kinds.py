"""What a pass is: a frozen value whose fields are its settings, of one of three kinds.

A model pass makes a model of a model, an export makes a file of the model, and a file pass makes a file of a file. What
a pass is called, takes and gives are facts of its class. A user's own pass derives from one of the three::

    @dataclass(frozen=True, kw_only=True)
    class Shrink(FilePass):
        name, takes, gives = "shrink", "onnx", "onnx"
        share: float = between(0.0, 1.0, default=0.5)

        def apply(self, stage, source):
            ...
"""

import re
from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from hedgerow.compile.pass_models import CompiledModel, FloatModel, PassModel
from hedgerow.compile.passes.settings import Setting, check_names, check_values
from hedgerow.hardware.target import FORMATS

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODEL", "ExportPass", "FilePass", "ModelPass", "Pass"]

MODEL = "model"
"""What a pass takes, or gives, that works on the torch model: no file's format."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

P = TypeVar("P")


class _PassClass(ABCMeta):
    """Makes passes: what they are given is checked before a constructor would raise an error of Python's."""

    def __call__(cls: type[P], /, *positional: Any, **settings: Any) -> P:
        """Return a pass with these settings.

        Raises:
            PassSettingsError: A setting is unknown, missing, of another type or out of its range.
        """
        if is_dataclass(cls) and not positional:
            check_names(getattr(cls, "name", cls.__name__), cls, settings)
        made: P = type.__call__(cls, *positional, **settings)
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass(ABC, metaclass=_PassClass):
    """One compile step.

    Attributes:
        name: What it is called in records and messages, such as ``quantize-onnx-static``.
        takes: :data:`MODEL`, or the format of the file that it takes.
        gives: :data:`MODEL`, or the format of the file that it gives.
    """

    name: ClassVar[str]
    takes: ClassVar[str]
    gives: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Check the facts of a class that has a name; one without is a base for others."""
        name = getattr(cls, "name", None)
        if name is None:
            return
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise TypeError(f"expected a pass's name like 'quantize-onnx', found {name!r}")
        for fact in ("takes", "gives"):
            found = getattr(cls, fact, None)
            if found not in (MODEL, *FORMATS):
                raise TypeError(f"expected {name}.{fact} to be {MODEL}, {', '.join(FORMATS)}, found {found!r}")

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            PassSettingsError: One is of another type or out of its range.
        """
        check_values(self.name, self)

    @property
    def settings(self) -> Mapping[str, Setting]:
        """All settings by name, those that were left out too: what cache keys, messages and records hold."""
        return {entry.name: getattr(self, entry.name) for entry in sorted(fields(self), key=lambda entry: entry.name)}

    @property
    def weight_bits(self) -> int | None:
        """The fewest bits that a weight takes in the file after this pass; None: as many as before.

        A search leaves out what cannot win by it. A pass that says nothing may do anything, so nothing is left out.
        """
        return 1

    def __str__(self) -> str:
        listed = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.name}({listed})" if listed else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPass(Pass):
    """One step before export: from a model to another model of the same task."""

    takes: ClassVar[str] = MODEL
    gives: ClassVar[str] = MODEL

    @abstractmethod
    def apply(self, source: FloatModel) -> "nn.Module":
        """Return another model; the one in *source* stays as it is.

        Args:
            source: The model, with its task, its data and the seed of every random choice.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPass(Pass):
    """A step that makes a file of the model."""

    takes: ClassVar[str] = MODEL

    @abstractmethod
    def apply(self, source: FloatModel) -> CompiledModel:
        """Return the model as a file, in the format that :attr:`gives` names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePass(Pass):
    """A step that makes another file of a file."""

    @abstractmethod
    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file in the format that :attr:`gives` names.

        Args:
            stage: A file in the format that :attr:`takes` names.
            source: The float model that the file was made of, with its schema, its data and the seed. Where the first
                file came from elsewhere there is no task and no torch model: asking for them refuses the pass.
        """
