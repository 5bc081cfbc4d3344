"""A recipe: the passes that make an artifact, and what the result promises."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from hedgerow.compile.errors import RecipeError
from hedgerow.compile.passes.builtin import find_pass, pass_reference
from hedgerow.compile.passes.coreml.export import ExportCoreml
from hedgerow.compile.passes.kinds import MODEL, ExportPass, FilePass, ModelPass, Pass
from hedgerow.compile.passes.onnx.export import ExportOnnx
from hedgerow.compile.passes.onnx.trim import TrimOnnx
from hedgerow.compile.passes.settings import shown
from hedgerow.compile.passes.tflite.export import ExportTflite
from hedgerow.compile.passes.tflite.trim import TrimTflite
from hedgerow.compile.toolchains import TOOLCHAIN_OF
from hedgerow.decode import Fields

__all__ = ["FilePasses", "Promise", "Recipe", "finishing", "plain_export", "read_recipe"]

FilePasses = tuple[ExportPass | FilePass, ...]

_MAXIMUM_PASSES = 32
_LONGEST_NAME = 4096
_MAXIMUM_SNR_DB = 200.0


def plain_export(kind: str) -> ExportPass:
    """Return the pass that writes the served model in a format as it is."""
    found: dict[str, ExportPass] = {
        "onnx": ExportOnnx(),
        "tflite": ExportTflite(),
        "mlpackage": ExportCoreml(minimum_version="iOS17"),
    }
    return found[kind]


def finishing(kind: str) -> FilePasses:
    """Return what every file of a format ends with, where trimming is worth something."""
    found: dict[str, FilePasses] = {"onnx": (TrimOnnx(),), "tflite": (TrimTflite(),)}
    return found.get(kind, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What is checked of an artifact.

    Attributes:
        minimum_quantized_share: Share of the weights, by count, that must be stored in at most 8 bits; 0 for a recipe
            that keeps them as floats.
        minimum_snr_db: Signal (the float model's output) to noise (the difference) on held-out data, of each output, in
            decibel.
        minimum_agreement: Mean agreement of float and artifact on held-out samples, of each output: for classes the
            share of samples in which both predict the same one (:meth:`hedgerow.outputs.Output.agreement`).
        smaller_than_float: Whether the artifact must have fewer bytes than the float one; False for the plain float
            recipes alone, which are that one.
    """

    minimum_quantized_share: float = 0.9
    minimum_snr_db: float = 15.0
    minimum_agreement: float = 0.95
    smaller_than_float: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Promise):
    """How an artifact is made and what is checked of it.

    Attributes:
        name: What it is called; a recipe of the user's own is called as it was asked for.
        passes: Steps that make the file, in order: an export and file passes.
        model_passes: Steps from model to model before *passes*.
        float_passes: Steps that make the float artifact that the result is compared with, from the untouched model;
            none: the plain export of the format.
    """

    name: str = ""
    passes: FilePasses
    model_passes: tuple[ModelPass, ...] = ()
    float_passes: FilePasses = ()

    def __post_init__(self) -> None:
        """Check that the passes follow from one another, and that what is promised can be.

        Raises:
            RecipeError: They do not, or it cannot.
        """
        if not isinstance(self.name, str) or len(self.name) > _LONGEST_NAME:
            found = f"{len(self.name)}" if isinstance(self.name, str) else f"{type(self.name).__name__} {self.name!r}"
            raise RecipeError("", f"a name of at most {_LONGEST_NAME} characters", found)
        for entry in ("passes", "float_passes", "model_passes"):
            steps: object = getattr(self, entry)
            if not isinstance(steps, Iterable):
                raise RecipeError(self.name, f"a sequence of passes in {entry}", type(steps).__name__)
            # A frozen dataclass has no other way to change a field while it is made.
            object.__setattr__(self, entry, listed := tuple(steps))
            if len(listed) > _MAXIMUM_PASSES:
                raise RecipeError(self.name, f"at most {_MAXIMUM_PASSES} passes in {entry}", str(len(listed)))
        for step in (*self.model_passes, *self.passes, *self.float_passes):
            if not isinstance(step, Pass):
                raise RecipeError(self.name, "passes such as ExportOnnx()", f"{type(step).__name__} {step!r}")
        _check_chain(self.name, (*self.model_passes, *self.passes))
        if not self.float_passes:
            object.__setattr__(self, "float_passes", (plain_export(self.format), *finishing(self.format)))
        _check_chain(self.name, self.float_passes)
        if self.float_passes[-1].gives != self.format:
            found = f"a float artifact in the format {self.float_passes[-1].gives}"
            raise RecipeError(self.name, f"one in the format {self.format}, to compare with", found)
        _check_promise(self)

    @property
    def format(self) -> str:
        """Format of the artifact."""
        return self.passes[-1].gives

    @property
    def toolchain(self) -> str:
        """What its process imports: recipes of one toolchain share a process, because its imports are slow."""
        return TOOLCHAIN_OF[self.format]

    @property
    def weight_bits(self) -> int:
        """The fewest bits that a weight may take in the artifact."""
        return min((step.weight_bits for step in self.passes if step.weight_bits is not None), default=1)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values, every setting included: what cache keys hold, and what workers get."""
        return {
            "name": self.name,
            "model_passes": [_pass_record(step) for step in self.model_passes],
            "passes": [_pass_record(step) for step in self.passes],
            "float_passes": [_pass_record(step) for step in self.float_passes],
            **{entry.name: getattr(self, entry.name) for entry in fields(Promise)},
        }


def read_recipe(record: Fields) -> Recipe:
    """Return the recipe that :meth:`Recipe.to_record` wrote; passes of a user's own are imported.

    Raises:
        DecodeError: A field is wrong.
        UnknownNameError: There is no such pass.
        PluginError: A user's pass cannot be imported.
        PassSettingsError: A pass does not have such settings.
        RecipeError: The passes do not follow from one another.
    """
    recipe = Recipe(
        name=record.text("name", maximum_chars=_LONGEST_NAME),
        model_passes=record.sequence("model_passes", _read_pass, maximum_items=_MAXIMUM_PASSES),
        passes=record.sequence("passes", _read_pass, maximum_items=_MAXIMUM_PASSES),
        float_passes=record.sequence("float_passes", _read_pass, maximum_items=_MAXIMUM_PASSES),
        minimum_quantized_share=record.number("minimum_quantized_share"),
        minimum_snr_db=record.number("minimum_snr_db"),
        minimum_agreement=record.number("minimum_agreement"),
        smaller_than_float=record.boolean("smaller_than_float"),
    )
    record.finish()
    return recipe


def _pass_record(step: Pass) -> dict[str, Any]:
    return {"pass": pass_reference(type(step)), "settings": dict(step.settings)}


def _read_pass(record: Fields) -> Any:
    kind = find_pass(record.text("pass", maximum_chars=_LONGEST_NAME))
    settings = record.scalars("settings")
    record.finish()
    return kind(**settings)


def _check_chain(name: str, steps: tuple[Pass, ...]) -> None:
    """Refuse steps that do not lead from the model to a file, each taking what the one before gives."""
    given = MODEL
    for step in steps:
        if step.takes != given:
            raise RecipeError(name, f"a pass that takes {given}", f"{step.name}, which takes {step.takes}")
        given = step.gives
    if given == MODEL:
        raise RecipeError(name, "an export and file passes in passes", "no file at their end")


def _check_promise(recipe: Recipe) -> None:
    limits = {"minimum_quantized_share": 1.0, "minimum_agreement": 1.0, "minimum_snr_db": _MAXIMUM_SNR_DB}
    for name, highest in limits.items():
        found = getattr(recipe, name)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= highest:
            raise RecipeError(recipe.name, f"{name} from 0 to {highest:g}", shown(found))
    smaller: object = recipe.smaller_than_float
    if not isinstance(smaller, bool):
        raise RecipeError(recipe.name, "smaller_than_float True or False", f"{type(smaller).__name__} {shown(smaller)}")
