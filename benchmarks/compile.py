"""ResNet-8 on photographs: Hedgerow's artifacts against each tool's own defaults, from one float checkpoint.

``python -m benchmarks.compile --json`` trains the checkpoint once (kept under HEDGEROW_CACHE), quantizes it with every
tool, runs every file on 500 test images with ONNX Runtime or LiteRT on one thread, and prints
``{rows: [{tool, format, bytes, accuracy, latency_ms}], not_run, named, ours_on_front: {onnx, tflite}, ...}``. It needs
``cifar10-subset`` under HEDGEROW_DATA.

It is strict with ours: the checks that refuse our files see the other 500 test images only, and whether ours is on the
front is asked of one recipe for each format, the target's default, which is named before anything is measured. The rows
of our other recipes, with 16 bits among them, are there to read.
"""

import argparse
import contextlib
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.front import OURS, Row, ours_on_front
from benchmarks.tools import TOOLS, NotRunError
from hedgerow.checkpoint import load_checkpoint
from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.errors import HedgerowError
from hedgerow.examples.zoo.resnet8_cifar import task as photographs
from hedgerow.examples.zoo.training import save_trained, train_centrally
from hedgerow.hardware import load_target
from hedgerow.task import Dataset, Task, TaskData, load_task
from hedgerow.task_module import load_weights, predict

__all__ = ["main"]

GATE_TASK = "benchmarks.compile:gate_task"
EPOCHS, LEARNING_RATE, THREADS = 24, 0.006, 2
MAX_DROP = 0.01
TARGETS = {"onnx": "raspberry-pi-5", "tflite": "android-arm64"}
"""Whose operators and limits our artifacts are checked against."""
_CALLS = 200


def flip_and_shift(images: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Return *images* mirrored at random and moved by up to three pixels, one distance for the whole batch."""
    mirrored = torch.rand(len(images), generator=draws) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    down, right = torch.randint(-3, 4, (2,), generator=draws).tolist()
    return images.roll((down, right), dims=(2, 3))


def _data() -> tuple[TaskData, Dataset]:
    """Return the task's data with every second test image for our own checks, and the others to measure on."""
    whole = photographs.load_data()
    places = np.arange(len(whole.held_out))
    return replace(whole, held_out=whole.held_out.take(places[::2])), whole.held_out.take(places[1::2])


gate_task = replace(photographs, data=lambda: _data()[0])


def cache_folder() -> Path:
    """Return the folder that HEDGEROW_CACHE names, or a default in the user's home."""
    return Path(os.environ.get("HEDGEROW_CACHE") or Path.home() / ".cache" / "hedgerow")


def float_checkpoint(task: Task, data: TaskData) -> Path:
    """Return the folder of the trained float checkpoint; it is trained when it is not there yet."""
    settings = f"{EPOCHS} {LEARNING_RATE} {THREADS} {len(data.train)} {torch.__version__}"
    key = hashlib.sha256(settings.encode()).hexdigest()[:12]
    folder = cache_folder() / "benchmarks" / f"{task.name}-{key}"
    if not (folder / "checkpoint.json").is_file():
        torch.set_num_threads(THREADS)
        model = train_centrally(task, data, epochs=EPOCHS, learning_rate=LEARNING_RATE, augment=flip_and_shift)
        save_trained(folder, task, model, data, epochs=EPOCHS)
    torch.set_num_threads(1)
    return folder


def stage_of(source: FloatModel, kind: str, content: bytes) -> CompiledModel:
    """Return a file of another tool with its tensors, as our runners take it."""
    if kind == "onnx":
        from hedgerow.compile.passes.onnx.exporter import onnx_tensors

        inputs, outputs = onnx_tensors(source.task.schema)
    else:
        from hedgerow.compile.runners.tflite import signature_tensors

        inputs, outputs = signature_tensors(content, source.task.schema)
    return CompiledModel(format=kind, content=content, inputs=inputs, outputs=outputs)


def measure(task: Task, tool: str, stage: CompiledModel, held_out: Dataset) -> Row:
    """Run a file on all test images and then on one image again and again."""
    from hedgerow.compile.runners.onnx import predict_onnx
    from hedgerow.compile.runners.tflite import predict_tflite

    run = predict_onnx if stage.format == "onnx" else predict_tflite
    found = task.measure(run(stage, held_out.inputs), task.wanted(held_out))["accuracy"]
    call = _single_call(stage, {name: values[:1] for name, values in held_out.inputs.items()})
    times_ms = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        call()
        times_ms.append((time.perf_counter() - start) * 1e3)
    return Row(
        tool=tool,
        format=stage.format,
        bytes=len(stage.content),
        accuracy=found,
        latency_ms=round(statistics.median(times_ms), 4),
    )


def _single_call(stage: CompiledModel, sample: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
    from hedgerow.tensor_border import to_stored

    values = {tensor.tensor: to_stored(sample[tensor.name], tensor) for tensor in stage.inputs}
    if stage.format == "onnx":
        from hedgerow.compile.runners.onnx import open_session

        session, names = open_session(stage.content), [stage.outputs[0].tensor]
        return lambda: session.run(names, values)
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=stage.content, num_threads=1).get_signature_runner()
    return lambda: runner(**values)


def our_rows(folder: Path, checkpoint: Path, measured_on: Dataset) -> tuple[list[Row], dict[str, str]]:
    """Compile by every recipe for ONNX and TFLite; return rows of what passed its checks, and what did not and why."""
    from hedgerow.compile.build import BLOB_FOLDER
    from hedgerow.compile.foundation import Workbench
    from hedgerow.compile.recipes import RECIPES
    from hedgerow.compile.units import compile_artifact
    from hedgerow.progress import silent

    foundation = Workbench().foundation(GATE_TASK, checkpoint, "")
    rows, refused = [], {}
    for name, recipe in RECIPES.items():
        target = TARGETS.get(recipe.format)
        if target is None:
            continue
        try:
            compiled = compile_artifact(
                foundation, load_target(target), recipe, folder, max_drop=MAX_DROP, report=silent
            )
        except HedgerowError as exc:
            refused[OURS + name] = str(exc)
            continue
        artifact = compiled.artifact
        content = (folder / BLOB_FOLDER / artifact.blob.sha256).read_bytes()
        stage = CompiledModel(format=artifact.format, content=content, inputs=artifact.inputs, outputs=artifact.outputs)
        # The plain float files are the exporters' work: they are here to compare with, and not ours to boast of.
        label = OURS + name if recipe.smaller_than_float else f"float {recipe.format}"
        rows.append(measure(foundation.source.task, label, stage, measured_on))
    return rows, refused


def their_rows(source: FloatModel, held_out: Dataset) -> tuple[list[Row], dict[str, str]]:
    """Quantize by every other tool; return rows, and the tools that did not run and why."""
    rows, absent = [], {}
    for tool, (kind, quantize) in TOOLS.items():
        try:
            content = quantize(source)
        except NotRunError as exc:
            absent[tool] = str(exc)
        # Each tool fails in its own way; the others are still worth comparing with.
        except Exception as exc:  # noqa: BLE001
            absent[tool] = f"it failed: {type(exc).__name__}: {str(exc)[:200]}"
        else:
            rows.append(measure(source.task, tool, stage_of(source, kind, content), held_out))
    return rows, absent


def run() -> dict[str, Any]:
    """Return everything that ``--json`` prints.

    Raises:
        TaskError: The photographs are absent.
    """
    begun = time.perf_counter()
    named = {kind: load_target(target).recipe for kind, target in TARGETS.items()}
    task = load_task(GATE_TASK)
    data, measured_on = _data()
    checkpoint = float_checkpoint(task, data)
    trained_s = time.perf_counter() - begun
    model = load_weights(task, load_checkpoint(checkpoint).weights)
    source = FloatModel(task=task, model=model, calibration=task.calibration(data), train=data.train)
    rows, not_run = their_rows(source, measured_on)
    with tempfile.TemporaryDirectory() as folder:
        ours, refused = our_rows(Path(folder), checkpoint, measured_on)
    rows = sorted([*rows, *ours], key=lambda row: (row.format, row.bytes))
    return {
        "task": task.name,
        "float_accuracy": task.measure(predict(task, model, measured_on.inputs), task.wanted(measured_on))["accuracy"],
        "rows": [asdict(row) for row in rows],
        "not_run": not_run,
        "refused": refused,
        "named": named,
        "ours_on_front": ours_on_front(rows, named),
        "training_s": round(trained_s, 1),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; return 1 when ours is off the front of a format, or a row cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile", description="Compare with other tools.")
    parser.add_argument("--json", action="store_true", help="print one JSON object, the last line of stdout")
    chosen = parser.parse_args(arguments)
    try:
        # Converters talk on the standard output, which is for the result alone.
        with contextlib.redirect_stdout(sys.stderr):
            result = run()
    except HedgerowError as exc:
        sys.stderr.write(f"benchmarks.compile: {exc}\n")
        return 1
    if chosen.json:
        print(json.dumps(result))
    else:
        print(f"{task_line(result)}\n")
        for row in result["rows"]:
            numbers = f"{row['bytes']:>9,}{row['accuracy']:>9.1%}{row['latency_ms']:>9.3f} ms"
            print(f"{row['tool']:<36}{row['format']:<8}{numbers}")
        for state in ("not_run", "refused"):
            for tool, reason in result[state].items():
                print(f"{tool}: {state.replace('_', ' ')}: {reason}")
    return 0 if all(result["ours_on_front"].values()) else 1


def task_line(result: Mapping[str, Any]) -> str:
    """Return the heading of the table."""
    fronts = ", ".join(f"{kind}: {'yes' if ours else 'no'}" for kind, ours in result["ours_on_front"].items())
    return f"{result['task']}, float accuracy {result['float_accuracy']:.1%}; ours on the front: {fronts}"


if __name__ == "__main__":
    sys.exit(main())
