"""One compiled model for one hardware target, and how it was checked. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hedgerow.decode import Fields
from hedgerow.manifest.content import Blob, Tensor
from hedgerow.manifest.preparation import Preparation

__all__ = ["CHECK_STATES", "Artifact"]

CHECK_STATES = ("passed", "failed", "not run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One compiled model for one hardware target.

    Attributes:
        target: Name of the target in ``hardware/targets``.
        format: ``onnx``, ``tflite`` or ``mlpackage`` (a zip of the folder).
        runtime: Key of the device's runtime table: ``onnxruntime``, ``litert`` or ``coreml``.
        blob: The file.
        inputs, outputs: The places of the schema's tensors in it; the inputs are prepared tensors where there is a
            *prepare*.
        recipe: The passes that made it, in order.
        golden: Safetensors blob: ``input.<name>`` and ``output.<name>``, this very artifact's outputs at build time.
        golden_tolerance: Largest absolute difference at which a replay on the device still counts as the same.
        golden_tolerances: Output -> the same for it, where outputs have unlike units; of the others, and of state, the
            one above. See :meth:`tolerance_of`.
        metrics: Measured at build time: the mean score, called ``accuracy`` or ``score``, and on how many
            ``held_out_samples``, the same of the float model (``float_accuracy``), ``bytes``, ``float_bytes``,
            ``snr_db``, ``agreement``, with several outputs also ``snr_db.<output>`` and ``agreement.<output>``; a
            metric that could not be measured here is absent.
        checks: Check -> ``passed``, ``failed`` or ``not run``. ``runs on device`` is there, and ``not run``, where the
            runtime does not exist on the build host (Core ML): accuracy, parity and golden samples are then by a
            reference evaluation of the file's operators.
        prepare: What makes the file's inputs of the schema's; None: the file takes these. Golden samples hold the
            schema's inputs in both cases.
    """

    target: str
    format: str
    runtime: str
    blob: Blob
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    recipe: tuple[str, ...]
    golden: Blob | None
    golden_tolerance: float
    metrics: Mapping[str, float]
    checks: Mapping[str, str]
    prepare: Preparation | None = None
    golden_tolerances: Mapping[str, float] = field(default_factory=dict)

    def tolerance_of(self, output: str) -> float:
        """Return the largest absolute difference of an output at which a replay still counts as the same."""
        return self.golden_tolerances.get(output, self.golden_tolerance)

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Everything that belongs to it, each once."""
        found = [self.blob, self.golden]
        found += [self.prepare.blob, self.prepare.source] if self.prepare is not None else []
        return tuple(dict.fromkeys(blob for blob in found if blob is not None))

    def state_misfit(self, state: Mapping[str, str]) -> tuple[str, str] | None:
        """Return what was expected of the tensors of a state and what was found, or None where they are alike.

        Args:
            state: Of the schema: input -> the output of the prediction before that it takes.
        """
        taken, given = ({tensor.name: tensor for tensor in side} for side in (self.inputs, self.outputs))
        for into, out in state.items():
            if into not in taken or out not in given:
                return "both ends of each state among its tensors", f"not {into} and {out}"
            one, other = taken[into], given[out]
            # Where one end leaves its batch open, the other may say 1.
            if [max(1, s) for s in one.shape] != [max(1, s) for s in other.shape] or one.dtype != other.dtype:
                found = f"{one.dtype}{list(one.shape)} as {into} and {other.dtype}{list(other.shape)} as {out}"
                return "one shape and one dtype at both ends of a state", found
        return None

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        record = {
            "target": self.target,
            "format": self.format,
            "runtime": self.runtime,
            "blob": self.blob.to_record(),
            "inputs": [tensor.to_record() for tensor in self.inputs],
            "outputs": [tensor.to_record() for tensor in self.outputs],
            "recipe": list(self.recipe),
            "golden": self.golden.to_record() if self.golden else None,
            "golden_tolerance": self.golden_tolerance,
            "metrics": dict(self.metrics),
            "checks": dict(self.checks),
            "prepare": self.prepare.to_record() if self.prepare is not None else None,
        }
        # With one output a record is what it always was.
        return record | ({"golden_tolerances": dict(self.golden_tolerances)} if self.golden_tolerances else {})

    @classmethod
    def from_fields(cls, fields: Fields) -> "Artifact":
        """Decode an artifact."""
        golden = fields.optional("golden")
        prepare = fields.optional("prepare")
        tolerances = fields.optional("golden_tolerances")
        metrics = fields.nested("metrics")
        checks = fields.nested("checks")
        artifact = cls(
            target=fields.text("target", maximum_chars=64),
            format=fields.text("format", maximum_chars=16),
            runtime=fields.text("runtime", maximum_chars=32),
            blob=Blob.from_fields(fields.nested("blob")),
            inputs=fields.sequence("inputs", Tensor.from_fields, maximum_items=16),
            outputs=fields.sequence("outputs", Tensor.from_fields, maximum_items=16),
            recipe=fields.texts("recipe"),
            golden=Blob.from_fields(golden) if golden else None,
            golden_tolerance=fields.number("golden_tolerance", minimum=0),
            metrics={name: metrics.number(name) for name in metrics.names()},
            checks={name: checks.choice(name, {s: s for s in CHECK_STATES}) for name in checks.names()},
            prepare=Preparation.from_fields(prepare) if prepare else None,
            golden_tolerances={n: tolerances.number(n, minimum=0) for n in tolerances.names()} if tolerances else {},
        )
        fields.finish()
        return artifact
