"""What becomes of a recipe's file in a runtime: outputs on held-out data, golden samples, evaluation.

Each runtime of a target is asked itself. What one of them gave never stands for another.
"""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.evaluation import evaluate_parts
from hedgerow.compile.foundation import Executed, Foundation, Made
from hedgerow.compile.golden import choose_samples, encode_golden, replay_tolerances
from hedgerow.compile.on_micro import run_on_micro
from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.passes.runner import own_errors
from hedgerow.compile.profile.host import HostLatency, measure_latency
from hedgerow.compile.recipe import Recipe
from hedgerow.compile.scoring import chosen, largest_differences
from hedgerow.compile.stepwise import golden_steps, with_state
from hedgerow.compile.toolchains import MICRO
from hedgerow.outputs.outputs import Arrays
from hedgerow.task import Dataset
from hedgerow.tensor_border import one_sample, to_stored

if TYPE_CHECKING:
    from hedgerow.compile.coreml_evaluation.evaluate import UnknownOperator

__all__ = ["execute"]


def execute(
    foundation: Foundation, recipe: Recipe, made: Made, runtime: str, done: Callable[[int, int], None]
) -> Executed:
    """Return what came of a recipe's file in a runtime, or in what stands for it on this host, once for all targets.

    Args:
        foundation: Task, data and float model.
        recipe: It.
        made: Its file.
        runtime: Of a target.
        done: Called now and then with how many samples were run, and of how many.

    Raises:
        PassError: A runtime failed on the file of a user's own pass.
    """
    key = (recipe, runtime, made.all_integer)
    if key not in foundation.executed:
        if runtime == MICRO:
            foundation.executed[key] = run_on_micro(foundation, made, done)
        else:
            with own_errors((*recipe.float_passes, *recipe.model_passes, *recipe.passes)):
                foundation.executed[key] = _run_on_host(foundation, made)
    return foundation.executed[key]


def _run_on_host(foundation: Foundation, made: Made) -> Executed:
    stage, held_out = made.stage, foundation.given(made, foundation.data.held_out)
    if foundation.steps:
        return _run_stream(foundation, made, held_out)
    answers = _predict(stage, held_out.inputs)
    if not isinstance(answers, Mapping):
        return Executed(answers=None, not_run=answers.reason)
    tolerances = replay_tolerances(foundation.outputs, foundation.float_answers, answers)
    golden, differences = _golden(foundation, made)
    difference, tolerance = tolerances.worst(differences)
    return Executed(
        answers=answers,
        golden=golden,
        replay_difference=difference,
        replay_tolerance=tolerance,
        tolerances=tolerances,
        latency=_latency(stage, held_out) if stage.format != "mlpackage" else None,
        executed_by=_executed_by(stage),
        evaluation=_parts(foundation, answers),
    )


def _parts(foundation: Foundation, answers: Arrays) -> dict[str, Any]:
    task, held_out = foundation.source.task, foundation.data.held_out
    return evaluate_parts(foundation.outputs, answers, foundation.wanted, held_out, task.subgroup)


def _run_stream(foundation: Foundation, made: Made, held_out: Dataset) -> Executed:
    """Run a file with state through the held-out sequences step by step, its own state carried."""
    stage = made.stage
    outputs = _predict_steps(stage, held_out.inputs, foundation.steps)
    if not isinstance(outputs, Mapping):
        return Executed(answers=None, not_run=outputs.reason)
    answers = {name: outputs[name] for name in foundation.outputs}
    places, length = golden_steps(len(held_out), foundation.steps)
    replayed = _predict_steps(stage, held_out.take(places).inputs, length)
    if not isinstance(replayed, Mapping):
        raise TypeError("a file that was run before cannot be run again")
    tolerances = replay_tolerances(foundation.outputs, foundation.float_answers, answers)
    difference, tolerance = tolerances.worst(largest_differences(replayed, chosen(outputs, places)))
    samples = foundation.data.held_out.take(places).inputs
    return Executed(
        answers=answers,
        golden=encode_golden(with_state(samples, replayed, stage.state, length), replayed),
        replay_difference=difference,
        replay_tolerance=tolerance,
        tolerances=tolerances,
        latency=_latency(stage, held_out) if stage.format != "mlpackage" else None,
        executed_by=_executed_by(stage),
        evaluation=_parts(foundation, answers),
    )


def _predict_steps(
    stage: CompiledModel, inputs: Mapping[str, NDArray[Any]], steps: int
) -> "Mapping[str, NDArray[np.float32]] | UnknownOperator":
    """Return all outputs of a file with state for sequences of so many rows."""
    if stage.format == "onnx":
        from hedgerow.compile.runners.onnx import predict_onnx_steps

        return predict_onnx_steps(stage, inputs, steps)
    if stage.format == "tflite":
        from hedgerow.compile.runners.tflite import predict_tflite_steps

        return predict_tflite_steps(stage, inputs, steps)
    from hedgerow.compile.coreml_evaluation.evaluate import predict_coreml_steps

    return predict_coreml_steps(stage, inputs, steps)


def _executed_by(stage: CompiledModel) -> str:
    if stage.format == "onnx":
        from hedgerow.compile.runners.onnx import executed_by as of_onnx
        from hedgerow.compile.runners.onnx import open_session

        return of_onnx(open_session(stage.content))
    if stage.format == "tflite":
        from hedgerow.compile.runners.tflite import executed_by as of_tflite

        return of_tflite(stage.content)
    return "Hedgerow's reference evaluation of Core ML's operators"


def _predict(
    stage: CompiledModel, inputs: Mapping[str, NDArray[Any]]
) -> "Mapping[str, NDArray[np.float32]] | UnknownOperator":
    if stage.format == "onnx":
        from hedgerow.compile.runners.onnx import predict_onnx

        return predict_onnx(stage, inputs)
    if stage.format == "tflite":
        from hedgerow.compile.runners.tflite import predict_tflite

        return predict_tflite(stage, inputs)
    # Core ML itself predicts on Apple's systems only.
    from hedgerow.compile.coreml_evaluation.evaluate import predict_coreml

    found = predict_coreml(stage.content, {t.tensor: to_stored(inputs[t.name], t) for t in stage.inputs})
    return {t.name: found[t.tensor] for t in stage.outputs} if isinstance(found, Mapping) else found


def _latency(stage: CompiledModel, held_out: Dataset) -> HostLatency:
    """Time single predictions of a file that this host runs."""
    values = {t.tensor: to_stored(one_sample(held_out.inputs[t.name], 0, t), t) for t in stage.inputs}
    if stage.format == "onnx":
        from hedgerow.compile.runners.onnx import open_session

        session = open_session(stage.content)
        return measure_latency(lambda: session.run(None, values), time.perf_counter)
    from hedgerow.compile.runners.tflite import open_signature

    run = open_signature(stage.content)
    return measure_latency(lambda: run(values), time.perf_counter)


def _golden(foundation: Foundation, made: Made) -> tuple[bytes, dict[str, float]]:
    """Return the golden samples, and how far each output of a replay sample by sample is from them."""
    stage, samples = made.stage, choose_samples(foundation.data.held_out)
    given = foundation.given(made, samples).inputs
    outputs = _predict(stage, given)
    replayed = [
        _predict(stage, {name: values[index : index + 1] for name, values in given.items()})
        for index in range(len(samples))
    ]
    rows = [row for row in replayed if isinstance(row, Mapping)]
    if not isinstance(outputs, Mapping) or len(rows) != len(samples):
        raise ValueError("golden samples need a file that this host runs or evaluates")
    joined = {name: np.concatenate([row[name] for row in rows]) for name in outputs}
    return encode_golden(samples.inputs, outputs), largest_differences(outputs, joined)
