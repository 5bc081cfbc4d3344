"""One file from elsewhere in one runtime after the other: in each once, for all targets that have it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.arena import Arena
from hedgerow.compile.errors import CompileError
from hedgerow.compile.foreign import ForeignFile, Prediction, Replay
from hedgerow.compile.golden import choose_places, encode_golden
from hedgerow.compile.inspection.border import Border
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.model_file import ModelFile, draw_samples
from hedgerow.compile.portions import portions
from hedgerow.compile.samples import SampleSet
from hedgerow.compile.stepwise import with_state
from hedgerow.errors import DecodeError

__all__ = ["HOST_RUNTIMES", "Bench", "GoldenInputs", "golden_inputs"]

HOST_RUNTIMES: Mapping[str, str] = {"onnx": "onnxruntime", "tflite": "litert"}
"""Format -> the runtime of this machine that a file is compared in."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GoldenInputs:
    """What golden samples are made from.

    Attributes:
        inputs: Schema name -> ``(n, *shape)``.
        steps: How many of them after one another are a sequence.
    """

    inputs: Mapping[str, NDArray[Any]]
    steps: int


def golden_inputs(model: ModelFile, samples: SampleSet | None, seed: int) -> GoldenInputs:
    """Return the inputs of golden samples: held-out ones, or drawn from the valid ranges where there are none."""
    if samples is None:
        drawn = dict(draw_samples(model.schema, seed))
        drawn |= {name: np.zeros_like(drawn[name]) for name in model.state}
        return GoldenInputs(drawn, len(next(iter(drawn.values()))) if model.state else 1)
    if samples.steps == 1:
        places = choose_places(len(samples.held_out))
    else:
        # Whole sequences from their first step on, as many as there is room for.
        places = np.arange(min(len(samples.held_out), len(choose_places(len(samples.held_out)))))
    return GoldenInputs(samples.held_out.take(places).inputs, samples.steps)


class Bench:
    """Runs a file, and keeps what came of it.

    Args:
        foreign: The file.
        border: Its tensors, with the schema's names.
        facts: Read from it.
        golden: What golden samples are made from.
        samples: What is measured; None: nothing.
        state: Input -> the output of the call before that it takes.
    """

    def __init__(
        self,
        foreign: ForeignFile,
        border: Border,
        facts: FileFacts,
        golden: GoldenInputs,
        samples: SampleSet | None,
        state: Mapping[str, str],
    ) -> None:
        self.foreign, self.border, self.facts = foreign, border, facts
        self.golden, self.samples, self.state = golden, samples, state
        self._kept: dict[tuple[str, str], Any] = {}

    def rename(self, border: Border) -> None:
        """Call the file's tensors as in *border*, in what was run before, too."""
        names = {old.name: new.name for old, new in zip(self.border[1], border[1], strict=True)}
        self.border = border
        self.state = {into: names[out] for into, out in self.state.items()}
        for key, found in self._kept.items():
            if isinstance(found, Prediction):
                self._kept[key] = replace(
                    found, outputs={names[name]: values for name, values in found.outputs.items()}
                )

    def arena(self) -> Arena:
        """Return the smallest arena.

        Raises:
            ForeignFileError: TensorFlow Lite Micro died or hung.
            RuntimeRefusedError: It does not take the file.
        """
        return self._once("arena", "", self.foreign.arena)

    def replay(self, runtime: str, arena_bytes: int = 0) -> Replay:
        """Return the golden samples' predictions.

        Raises:
            ForeignFileError: The runtime died or hung.
            ModelFileError: An output has another size for one sample than for another.
            RuntimeRefusedError: It does not take the file.
        """
        golden = self.golden

        def run() -> Replay:
            return self.foreign.replay(
                runtime, golden.inputs, self.border, arena_bytes=arena_bytes, state=self.state, steps=golden.steps
            )

        return self._once("replay", runtime, run)

    def golden_file(self, replay: Replay) -> bytes:
        """Return golden samples and their predictions, encoded."""
        inputs = with_state(self.golden.inputs, replay.outputs, self.state, self.golden.steps)
        # A class or a count is a whole number, as callers get it.
        kinds = {
            t.name: t.dtype if t.scale is None and not t.dtype.startswith("float") else None for t in self.border[1]
        }
        outputs = {name: values.astype(kinds[name] or values.dtype) for name, values in replay.outputs.items()}
        return encode_golden(inputs, outputs)

    def held_out(self, runtime: str, arena_bytes: int = 0) -> Prediction:
        """Return the predictions of all held-out samples.

        Raises:
            ForeignFileError: The runtime died or hung.
            RuntimeRefusedError: It does not take the file.
            ValueError: There are no samples.
        """
        samples = self.samples
        if samples is None:
            raise ValueError("there are no samples to predict")

        def run() -> Prediction:
            return self._predict(runtime, samples.held_out.inputs, samples.steps, arena_bytes)

        return self._once("held out", runtime, run)

    def calibration(self, runtime: str) -> Mapping[str, NDArray[Any]]:
        """Return the calibration inputs, with the state that the file itself gives.

        Raises:
            ForeignFileError: The runtime died or hung.
            RuntimeRefusedError: It does not take the file.
            ValueError: There are no samples.
        """
        samples = self.samples
        if samples is None:
            raise ValueError("there are no samples to calibrate with")
        inputs = samples.calibration.inputs
        if not self.state:
            return inputs
        steps = samples.calibration_steps

        def run() -> Prediction:
            return self._predict(runtime, inputs, steps, 0)

        return with_state(inputs, self._once("calibration", runtime, run).outputs, self.state, steps)

    def _predict(self, runtime: str, inputs: Mapping[str, NDArray[Any]], steps: int, arena_bytes: int) -> Prediction:
        """Predict in portions, each bounded in time and memory; a sequence is never cut."""
        rows = len(next(iter(inputs.values())))
        row_bytes = sum(values[:1].nbytes for values in inputs.values())
        rows += -rows % steps
        parts = [
            self.foreign.predict(
                runtime,
                {name: values[begin * steps : end * steps] for name, values in inputs.items()},
                self.border,
                arena_bytes=arena_bytes,
                state=self.state,
                steps=steps,
            )
            for begin, end in portions(rows // steps, (self.facts.macs or 0) * steps, row_bytes * steps)
        ]
        outputs = {name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs}
        return Prediction(outputs=outputs, executed_by=parts[0].executed_by)

    def _once(self, what: str, runtime: str, make: Callable[[], T]) -> T:
        key = (what, runtime)
        if key not in self._kept:
            try:
                self._kept[key] = make()
            except (CompileError, DecodeError) as exc:
                self._kept[key] = exc
        found = self._kept[key]
        if isinstance(found, CompileError | DecodeError):
            raise found
        kept: T = found
        return kept
