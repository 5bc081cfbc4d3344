"""Forward, backward and optimizer step as one file, and what goes in and out of it. Pure."""

from dataclasses import dataclass, replace
from typing import Any

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Blob, Tensor
from hedgerow.outputs.labelled import ONLY_OUTPUT
from hedgerow.outputs.outputs import MOST_OUTPUTS

__all__ = ["EXTRA_KINDS", "Extra", "TrainGraph"]

EXTRA_KINDS = ("state", "anchor", "proximal_mu", "control", "mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """An input of a train graph beside the batch, the learning rate and the parameters.

    Attributes:
        kind: ``state``: of the optimizer, zero before the first step, and given back by each. ``anchor``: the
            parameter's value when the round began. ``proximal_mu``: the weight of the proximal term that pulls there.
            ``control``: added to the parameter's gradient. ``mask``: ones and zeros, drawn anew for each step.
        tensor: The input; no parameter has its name.
        parameter: What an anchor or a control variate belongs to.
        updated: A state's output tensor in the file.
        keep: The share of ones in a mask.
    """

    kind: str
    tensor: Tensor
    parameter: str | None = None
    updated: str | None = None
    keep: float = 1.0

    @property
    def output(self) -> Tensor | None:
        """The output side of a state."""
        if self.updated is None:
            return None
        return Tensor(self.tensor.name, self.updated, self.tensor.shape, self.tensor.dtype)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "kind": self.kind,
            "tensor": self.tensor.to_record(),
            "parameter": self.parameter,
            "updated": self.updated,
            "keep": self.keep,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Extra":
        """Decode an extra input."""
        extra = cls(
            kind=fields.choice("kind", {kind: kind for kind in EXTRA_KINDS}),
            tensor=Tensor.from_fields(fields.nested("tensor")),
            parameter=fields.optional_text("parameter", maximum_chars=256),
            updated=fields.optional_text("updated", maximum_chars=256),
            keep=fields.number("keep", minimum=0, maximum=1),
        )
        for wanted, found, name in (
            (extra.kind == "state", extra.updated, "updated"),
            (extra.kind in {"anchor", "control"}, extra.parameter, "parameter"),
        ):
            if wanted != (found is not None):
                expected = "a value" if wanted else "none"
                raise DecodeError(f"{fields.where}.{name}", f"{expected} for the kind {extra.kind}", repr(found))
        fields.finish()
        return extra


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainGraph:
    """Forward, backward and optimizer step as one file.

    The graph maps ``(*inputs, *targets, learning_rate, *parameters, *extras)`` to ``(loss, *parameters, *state)``.

    Attributes:
        format: ``onnx`` or ``tflite``.
        runtime: Key of the device's runtime table.
        blob: The file.
        batch_size: The static batch it was traced with.
        inputs: The schema's inputs.
        targets: The target values of each output that is trained with any, named after it, in the order of the
            outputs; none for what learns from inputs alone. They have the form that the output declares; or, where
            classes are asked for and it is a float, the value that each logit should have.
        learning_rate: A scalar.
        loss: The mean loss of the batch, before the step.
        parameters: Input side of each parameter, named as in the checkpoint.
        updated: Output side of the parameters that change, in the same order and with the same names.
        extras: Further inputs. A plain graph has none, and its record does not name them, so that devices of every age
            can read it.
    """

    format: str
    runtime: str
    blob: Blob
    batch_size: int
    inputs: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    learning_rate: Tensor
    loss: Tensor
    parameters: tuple[Tensor, ...]
    updated: tuple[Tensor, ...]
    extras: tuple[Extra, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        record = {
            "format": self.format,
            "runtime": self.runtime,
            "blob": self.blob.to_record(),
            "batch_size": self.batch_size,
            "inputs": [tensor.to_record() for tensor in self.inputs],
            "targets": [tensor.to_record() for tensor in self.targets],
            "learning_rate": self.learning_rate.to_record(),
            "loss": self.loss.to_record(),
            "parameters": [tensor.to_record() for tensor in self.parameters],
            "updated": [tensor.to_record() for tensor in self.updated],
        }
        return record | ({"extras": [extra.to_record() for extra in self.extras]} if self.extras else {})

    @classmethod
    def from_fields(cls, fields: Fields) -> "TrainGraph":
        """Decode a train graph."""
        graph = cls(
            format=fields.text("format", maximum_chars=16),
            runtime=fields.text("runtime", maximum_chars=32),
            blob=Blob.from_fields(fields.nested("blob")),
            batch_size=fields.integer("batch_size", minimum=1, maximum=65536),
            inputs=fields.sequence("inputs", Tensor.from_fields, maximum_items=16),
            targets=_targets(fields),
            learning_rate=Tensor.from_fields(fields.nested("learning_rate")),
            loss=Tensor.from_fields(fields.nested("loss")),
            parameters=fields.sequence("parameters", Tensor.from_fields),
            updated=fields.sequence("updated", Tensor.from_fields),
            extras=fields.sequence("extras", Extra.from_fields) if "extras" in fields.names() else (),
        )
        names = [tensor.name for tensor in (*graph.parameters, *(extra.tensor for extra in graph.extras))]
        if graph.extras and len(set(names)) != len(names):
            raise DecodeError(f"{fields.where}.extras", "names of their own", "a repeated name")
        targets = [tensor.name for tensor in graph.targets]
        if len(set(targets)) != len(targets):
            raise DecodeError(f"{fields.where}.targets", "one for each output", "a repeated name")
        fields.finish()
        return graph


def _targets(fields: Fields) -> tuple[Tensor, ...]:
    if "labels" not in fields.names() or "targets" in fields.names():
        return fields.sequence("targets", Tensor.from_fields, maximum_items=MOST_OUTPUTS)
    # A graph of a release that was signed when there was one output, of classes.
    return (replace(Tensor.from_fields(fields.nested("labels")), name=ONLY_OUTPUT),)
