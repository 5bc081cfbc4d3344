"""Run a recipe's file as on a microcontroller, in TensorFlow Lite Micro's interpreter, in processes of its own.

All held-out samples are run, whatever they take: the reference kernels need about a nanosecond for a
multiply-accumulate, which is 1 to 2 minutes for 10,000 images through ResNet-8. They are run in portions, each in a new
process with an interpreter of its own, so that each is bounded in time and memory, and so that the work can say how far
it is.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.arena import Arena, installed_version
from hedgerow.compile.errors import Failure, ForeignFileError, RuntimeRefusedError
from hedgerow.compile.evaluation import evaluate_parts
from hedgerow.compile.foreign import ForeignFile
from hedgerow.compile.foundation import Executed, Foundation, Made
from hedgerow.compile.golden import choose_rows, encode_golden, replay_tolerance
from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.portions import portions
from hedgerow.compile.stepwise import golden_steps, with_state
from hedgerow.compile.toolchains import MICRO, NO_MCU
from hedgerow.compile.verify import Oracle

__all__ = ["run_on_micro"]

_REFUSED = "the target's own runtime does not run the file"

Done = Callable[[int, int], None]


def run_on_micro(foundation: Foundation, made: Made, done: Done) -> Executed:
    """Run a file as on a microcontroller.

    Args:
        foundation: Task, data and float model.
        made: The file.
        done: Called with how many samples were run, and of how many.
    """
    stage = made.stage
    if installed_version() is None:
        return Executed(probabilities=None, not_run=NO_MCU, oracle=Oracle(not_run=NO_MCU))
    with ForeignFile(f"{foundation.source.task.name}.tflite", stage.format, stage.content) as file:
        try:
            arena = file.arena()
            return _executed(foundation, made, file, arena, done)
        except RuntimeRefusedError as exc:
            failure = exc.failure()
        except ForeignFileError as exc:
            failure = Failure("oracle", f"{exc.runtime} to live through {exc.step} the file", exc.found)
    return Executed(probabilities=None, not_run=_REFUSED, oracle=Oracle(failure=failure))


def _executed(foundation: Foundation, made: Made, file: ForeignFile, arena: Arena, done: Done) -> Executed:
    stage, held_out, task = made.stage, foundation.data.held_out, foundation.source.task
    places, length = choose_rows(held_out), 1
    if foundation.steps:
        places, length = golden_steps(len(held_out), foundation.steps)
    samples, given = held_out.take(places), foundation.given(made, held_out)
    replay = file.replay(
        MICRO, given.take(places).inputs, _border(stage), arena_bytes=arena.bytes, state=stage.state, steps=length
    )
    probabilities = _held_out(made, file, given.inputs, arena.bytes, done, foundation.steps or 1)
    name = stage.outputs[0].name
    # The same samples among all the others: an interpreter that remembers earlier ones gives something else there.
    again = np.abs(replay.outputs[name].astype(np.float64) - probabilities[places]).max(initial=0.0)
    difference = float(np.nan_to_num([replay.difference, again], nan=np.inf).max())
    largest = float(np.abs(probabilities.astype(np.float64) - foundation.float_probabilities).max())
    return Executed(
        probabilities=probabilities,
        golden=encode_golden(with_state(samples.inputs, replay.outputs, stage.state, length), replay.outputs),
        replay_difference=difference,
        replay_tolerance=replay_tolerance(largest) if np.isfinite(largest) else 0.0,
        executed_by=replay.executed_by,
        evaluation=evaluate_parts(task.schema.labels, probabilities, held_out, task.subgroup),
        arena=arena,
        oracle=Oracle(),
    )


def _border(stage: CompiledModel) -> Any:
    return stage.inputs, stage.outputs


def _held_out(
    made: Made, file: ForeignFile, inputs: Mapping[str, NDArray[Any]], arena_bytes: int, done: Done, steps: int
) -> NDArray[np.float32]:
    """Return the first output for all held-out samples, ``float32[n, ...]``; *steps* of them are never parted."""
    samples = len(next(iter(inputs.values())))
    sample_bytes = sum(values[:1].nbytes for values in inputs.values())
    rows = []
    for begin, end in portions(samples // steps, (made.facts.macs or 0) * steps, sample_bytes * steps):
        portion = {name: values[begin * steps : end * steps] for name, values in inputs.items()}
        found = file.predict(
            MICRO, portion, _border(made.stage), arena_bytes=arena_bytes, state=made.stage.state, steps=steps
        )
        rows.append(found.outputs[made.stage.outputs[0].name])
        done(end * steps, samples)
    return np.concatenate(rows)
