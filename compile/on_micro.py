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
from hedgerow.compile.golden import choose_rows, encode_golden, replay_tolerances
from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.portions import portions
from hedgerow.compile.scoring import chosen, largest_differences
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
        return Executed(answers=None, not_run=NO_MCU, oracle=Oracle(not_run=NO_MCU))
    with ForeignFile(f"{foundation.source.task.name}.tflite", stage.format, stage.content) as file:
        try:
            arena = file.arena()
            return _executed(foundation, made, file, arena, done)
        except RuntimeRefusedError as exc:
            failure = exc.failure()
        except ForeignFileError as exc:
            failure = Failure("oracle", f"{exc.runtime} to live through {exc.step} the file", exc.found)
    return Executed(answers=None, not_run=_REFUSED, oracle=Oracle(failure=failure))


def _executed(foundation: Foundation, made: Made, file: ForeignFile, arena: Arena, done: Done) -> Executed:
    stage, held_out, task = made.stage, foundation.data.held_out, foundation.source.task
    places, length = choose_rows(held_out), 1
    if foundation.steps:
        places, length = golden_steps(len(held_out), foundation.steps)
    samples, given = held_out.take(places), foundation.given(made, held_out)
    replay = file.replay(
        MICRO, given.take(places).inputs, _border(stage), arena_bytes=arena.bytes, state=stage.state, steps=length
    )
    answers = _held_out(made, file, given.inputs, arena.bytes, done, foundation.steps or 1)
    # The same samples among all the others: an interpreter that remembers earlier ones gives something else there.
    again = largest_differences({name: replay.outputs[name] for name in answers}, chosen(answers, places))
    tolerances = replay_tolerances(foundation.outputs, foundation.float_answers, answers)
    repeated, replayed = tolerances.worst(again), (replay.difference, tolerances.least)
    difference, tolerance = max(repeated, replayed, key=lambda pair: pair[0] / pair[1] if pair[1] else np.inf)
    return Executed(
        answers=answers,
        golden=encode_golden(with_state(samples.inputs, replay.outputs, stage.state, length), replay.outputs),
        replay_difference=difference,
        replay_tolerance=tolerance,
        tolerances=tolerances,
        executed_by=replay.executed_by,
        evaluation=evaluate_parts(foundation.outputs, answers, foundation.wanted, held_out, task.subgroup),
        arena=arena,
        oracle=Oracle(),
    )


def _border(stage: CompiledModel) -> Any:
    return stage.inputs, stage.outputs


def _held_out(
    made: Made, file: ForeignFile, inputs: Mapping[str, NDArray[Any]], arena_bytes: int, done: Done, steps: int
) -> dict[str, NDArray[np.float32]]:
    """Return all answers to all held-out samples, each ``float32[n, ...]``; *steps* of them are never parted."""
    samples = len(next(iter(inputs.values())))
    sample_bytes = sum(values[:1].nbytes for values in inputs.values())
    rows: list[Mapping[str, NDArray[np.float32]]] = []
    for begin, end in portions(samples // steps, (made.facts.macs or 0) * steps, sample_bytes * steps):
        portion = {name: values[begin * steps : end * steps] for name, values in inputs.items()}
        found = file.predict(
            MICRO, portion, _border(made.stage), arena_bytes=arena_bytes, state=made.stage.state, steps=steps
        )
        rows.append(found.outputs)
        done(end * steps, samples)
    state = set(made.stage.state.values())
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0] if name not in state}
