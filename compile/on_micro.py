"""Run a recipe's file as on a microcontroller, in TensorFlow Lite Micro's interpreter."""

import numpy as np

from hedgerow.compile.arena import installed_version
from hedgerow.compile.errors import ForeignFileError, RuntimeRefusedError
from hedgerow.compile.foreign import ForeignFile
from hedgerow.compile.foundation import Foundation, Made, Micro
from hedgerow.compile.golden import choose_samples, encode_golden
from hedgerow.compile.recipe import Recipe
from hedgerow.compile.toolchains import NO_MCU
from hedgerow.compile.verify import Oracle
from hedgerow.weights import decode_arrays

__all__ = ["run_on_micro"]


def run_on_micro(foundation: Foundation, recipe: Recipe, made: Made) -> Micro:
    """Run a file as on a microcontroller, in a process of its own, once for all targets."""
    found = foundation.micro.get(recipe)
    if found is None:
        found = foundation.micro[recipe] = _run(foundation, made)
    return found


def _run(foundation: Foundation, made: Made) -> Micro:
    stage = made.stage
    if installed_version() is None:
        return Micro(oracle=Oracle(not_run=NO_MCU))
    samples = choose_samples(foundation.data.held_out)
    name = f"{foundation.source.task.name}.tflite"
    with ForeignFile(name, stage.format, stage.content) as file:
        try:
            arena = file.arena()
            replay = file.replay("tflite-micro", samples.inputs, (stage.inputs, stage.outputs), arena_bytes=arena.bytes)
        except RuntimeRefusedError as exc:
            return Micro(oracle=Oracle(expected=exc.expected, found=exc.found))
        except ForeignFileError as exc:
            expected = f"{exc.runtime} to live through {exc.step} the file"
            return Micro(oracle=Oracle(expected=expected, found=exc.found))
    differences = [replay.difference]
    if made.golden is not None:
        wanted = decode_arrays(made.golden, "golden samples", limit_bytes=len(made.golden))
        differences += [
            float(np.abs(values.astype(np.float64) - wanted[f"output.{output}"]).max(initial=0.0))
            for output, values in replay.outputs.items()
        ]
    largest = float(np.nan_to_num(differences, nan=np.inf).max())
    return Micro(
        oracle=Oracle(difference=largest),
        arena=arena,
        golden=encode_golden(samples.inputs, replay.outputs),
        executed_by=replay.executed_by,
    )
