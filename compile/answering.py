"""Which outputs of a file from elsewhere answer what, and how its numbers are read as answers. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.class_output import ClassOutput, class_scores, find_class_output
from hedgerow.compile.samples import SampleSet
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs

__all__ = ["Answering", "find_answering"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """Which outputs of a file answer what.

    Attributes:
        outputs: What they are for.
        of: Name in *outputs* -> the file's output, by its name in the schema.
        classes: How the numbers of the only one are read as a score for each class; None: they are what they are.
    """

    outputs: Outputs
    of: Mapping[str, str]
    classes: ClassOutput | None = None

    def answers(self, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return answers, each ``float32[n, *shape]``.

        Args:
            given: What the file gave, by the names of the schema.
        """
        if self.classes is not None:
            [name] = self.outputs
            return {name: class_scores(self.classes, given)}
        return {
            name: given[self.of[name]].reshape(-1, *output.tensor(name).shape) for name, output in self.outputs.items()
        }

    def renamed(self, names: Mapping[str, str]) -> "Answering":
        """Return this for the same file with other names.

        Args:
            names: What each of its outputs was called -> what it is called now.
        """
        of = {name: names[found] for name, found in self.of.items()}
        classes = replace(self.classes, name=next(iter(of.values()))) if self.classes is not None else None
        return replace(self, of=of, classes=classes)


def find_answering(schema: ModelSchema, samples: SampleSet) -> Answering | str:
    """Return which outputs of a file answer what the samples know, or why none does.

    Samples that have one class each are looked for as :func:`hedgerow.compile.class_output.find_class_output` says. For
    any other the outputs of the file are called as those of the task; or each has one, of the same number of values.
    """
    labels = samples.classes
    if labels is not None:
        known = samples.outputs.alone.part_names if samples.outputs.alone is not None else ()
        found = find_class_output(schema, np.append(labels[samples.scored], len(known) - 1))
        if isinstance(found, str):
            return found
        known = known or (schema.answers.alone.part_names if schema.answers.alone is not None else ())
        named = known if len(known) == found.classes else tuple(map(str, range(found.classes)))
        return Answering(outputs=Outputs({found.name: Classes(named)}), of={found.name: found.name}, classes=found)
    outputs, given = samples.outputs, {spec.name: spec for spec in schema.given.outputs}
    sizes = {name: int(np.prod(output.tensor(name).shape)) for name, output in outputs.items()}
    of = {name: name for name in outputs if name in given}
    if len(of) < len(outputs) == len(given):
        of = dict(zip(outputs, given, strict=True))
    fits = all(
        given[found].dtype == "float32" and int(np.prod(given[found].shape)) == sizes[name]
        for name, found in of.items()
    )
    if len(of) == len(outputs) and fits:
        return Answering(outputs=outputs, of=of)
    wanted = ", ".join(f"{name} of float32{list(output.tensor(name).shape)}" for name, output in outputs.items())
    shapes = ", ".join(f"{spec.name} of {spec.dtype}{list(spec.shape)}" for spec in given.values())
    return f"the file does not give what the task asks for, {wanted}: {shapes}"
