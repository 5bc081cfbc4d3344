"""The zoo x targets table: ``python -m benchmarks.zoo [--json] [--write docs/zoo.md]``.

Every model of :mod:`hedgerow.examples.zoo` is trained for some seconds and compiled for every target by the target's
default recipe; where that is refused, the target's other recipes are searched for the smallest file that passes. A
cell is an artifact that passed every check this host can run, or a refusal that says what was in the way.
"""

import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import click

from hedgerow import __version__
from hedgerow.compile.outcome import Outcome
from hedgerow.compile.packing import pack_targets
from hedgerow.compile.pipeline import compile_targets
from hedgerow.compile.samples import HeldOutSamples
from hedgerow.compile.search import REFUSED
from hedgerow.compile.third_party import FileWishes
from hedgerow.compile.verify import PASSED
from hedgerow.compile.workers import CompileWorkers
from hedgerow.errors import UnknownNameError
from hedgerow.examples.zoo import ZOO, ZooModel
from hedgerow.hardware.lookup import load_target, target_names
from hedgerow.options import json_option
from hedgerow.progress import Progress, Report
from hedgerow.progress_display import ProgressDisplay
from hedgerow.task import load_attribute, load_task

__all__ = ["Cell", "cells_of", "document", "zoo_table_command"]

_TOOLS = ("torch", "onnxruntime", "litert-torch", "ai-edge-litert", "tflite-micro", "ai-edge-quantizer", "coremltools")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model for one target.

    Attributes:
        model, target: The name of the zoo's model, and that of the hardware target.
        recipe: Of the artifact, or of the default recipe that was refused.
        bytes: Of the artifact; None where there is none.
        accuracy: Of the artifact on held-out data; None where this host cannot run it.
        float_accuracy: Of the float model; None where there is no artifact.
        not_run: Checks that this host could not run.
        default_refused: What refused the target's default recipe, in a few words; empty when nothing did.
    """

    model: str
    target: str
    recipe: str
    bytes: int | None = None
    accuracy: float | None = None
    float_accuracy: float | None = None
    not_run: tuple[str, ...] = ()
    default_refused: str = ""


def cells_of(model: str, targets: Sequence[str], default: Outcome, search: Outcome | None) -> tuple[Cell, ...]:
    """Return one cell for each target.

    Args:
        model: Name of the model.
        targets: Names of the targets.
        default: The compile by default recipes.
        search: The compile by search of what was refused; None: nothing was.
    """
    refused = {refusal.target: refusal for refusal in default.refused}
    found = []
    for target in targets:
        outcome = search if target in refused and search is not None else default
        artifact = outcome.build.artifact(target) if outcome.build is not None else None
        first = load_target(target).recipe
        why = next(
            (_brief(t.reason) for t in default.trials if (t.target, t.recipe, t.state) == (target, first, REFUSED)), ""
        )
        if target in refused:
            why = _brief(refused[target].reason)
        if artifact is None:
            found.append(Cell(model=model, target=target, recipe=first, default_refused=why))
            continue
        found.append(
            Cell(
                model=model,
                target=target,
                recipe=outcome.recipes[target],
                bytes=artifact.blob.length_bytes,
                accuracy=artifact.metrics.get("accuracy"),
                float_accuracy=artifact.metrics.get("float_accuracy"),
                not_run=tuple(sorted(name for name, state in artifact.checks.items() if state != PASSED)),
                default_refused=why,
            )
        )
    return tuple(found)


def _brief(reason: str) -> str:
    """Return what is in the way, without the frame of the sentence, which the table gives."""
    inside = re.sub(r"^the artifact for \S+ failed the check ", "", reason)
    return inside.partition("; ")[0].replace("'", "").replace("|", "/")


def document(cells: Sequence[Cell], *, made_by: str, versions: Mapping[str, str]) -> str:
    """Return the table as a page of Markdown.

    Args:
        cells: All cells, grouped by model.
        made_by: The command.
        versions: Of Hedgerow and of the tools.
    """
    models = tuple(dict.fromkeys(cell.model for cell in cells))
    passed = sum(cell.bytes is not None for cell in cells)
    listed = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines = [
        "# The model zoo on every target",
        "",
        f"Made by `{made_by}` with {listed}; do not edit.",
        "",
        "Each model of `examples/zoo` is trained for some seconds, compiled by each target's default recipe and put",
        "through every check. Where the default is refused, the smallest file that passes is searched for among the",
        f"target's other recipes: {passed} of {len(cells)} cells hold an artifact. A model that int8 makes no smaller",
        "stays float where the target runs floats. A check that this machine cannot run is named, and does not count",
        "as passed.",
        "",
        "Each artifact ran in its target's runtime: ONNX Runtime, LiteRT or TensorFlow Lite Micro, as their wheels for",
        "x86-64 are; Core ML's are evaluated operator by operator. What operators a CPU's runtime has, is in tables",
        "that were made by running it (`python -m tools.operator_tables`); for `android-npu` and `coral-edgetpu`, of",
        "which nothing is here, in lists made from documents.",
        "",
        "The data is synthetic or tiny. That of the newer models is so noisy that no float score is 100 %, and a loss",
        "shows; `python -m benchmarks.compile` measures on photographs. `detector` has two outputs, and a task says",
        "one: its owner's ONNX and TFLite files are packed, and there is none for Core ML.",
    ]
    for model in models:
        rows = [cell for cell in cells if cell.model == model]
        floats = [cell.float_accuracy for cell in rows if cell.float_accuracy is not None]
        heading = f"{ZOO[model].parameters:,} parameters" + (f", float accuracy {floats[0]:.1%}" if floats else "")
        lines += ["", f"## {model}", "", f"{heading}.", "", "| target | recipe | bytes | accuracy | remarks |"]
        lines += ["|---|---|---:|---:|---|", *(_row(cell) for cell in rows)]
    return "\n".join(lines) + "\n"


def _row(cell: Cell) -> str:
    if cell.bytes is None:
        return f"| {cell.target} | {cell.recipe} | | | refused: {cell.default_refused} |"
    remarks = [f"the default {load_target(cell.target).recipe} was refused: {cell.default_refused}"] * bool(
        cell.default_refused
    )
    remarks += [f"not run here: {', '.join(cell.not_run)}"] * bool(cell.not_run)
    accuracy = f"{cell.accuracy:.1%}" if cell.accuracy is not None else "not run"
    return f"| {cell.target} | {cell.recipe} | {cell.bytes:,} | {accuracy} | {'; '.join(remarks)} |"


def _compile_model(
    name: str, model: ZooModel, targets: Sequence[str], folder: Path, workers: CompileWorkers, report: Report
) -> tuple[Cell, ...]:
    from hedgerow.examples.zoo.training import save_trained, train_centrally

    task = load_task(model.task)
    data = task.load_data()
    report(Progress(f"train {name}", 0, 1))
    trained = train_centrally(task, data, epochs=model.epochs, learning_rate=model.learning_rate)
    save_trained(folder / "checkpoint", task, trained, data, epochs=model.epochs)
    report(Progress(f"train {name}", 1, 1))
    default = compile_targets(
        model.task, folder / "checkpoint", targets, folder / "default", workers=workers, report=report
    )
    refused = [refusal.target for refusal in default.refused if refusal.target in targets]
    search = None
    if refused:
        search = compile_targets(
            model.task, folder / "checkpoint", refused, folder / "search", prefer="size", workers=workers, report=report
        )
    return cells_of(name, targets, default, search)


def _pack_model(name: str, model: ZooModel, targets: Sequence[str], folder: Path, report: Report) -> tuple[Cell, ...]:
    """Pack the files that a model's owner brings: by a target's default recipe, else by its others."""
    folder.mkdir()
    report(Progress(f"train and export {name}", 0, 1))
    # Its exporters tell their progress on the standard output.
    with contextlib.redirect_stdout(sys.stderr):
        files = load_attribute(str(model.brings))(folder)
    report(Progress(f"train and export {name}", 1, 1))
    task = load_task(model.task)
    samples = HeldOutSamples(task, task.load_data())
    cells: dict[str, Cell] = {}
    for kind, file in files.items():
        # What no file is for gets one all the same: the refusal is the compiler's own.
        others = [target for target in targets if load_target(target).format not in files] if kind == "onnx" else []
        chosen = [target for target in targets if load_target(target).format == kind]
        recipes = {target: load_target(target).recipe for target in chosen}
        wishes = FileWishes(task=task.name, samples=samples, recipes=recipes)
        if not (chosen or others):
            continue
        default = pack_targets(file, [*chosen, *others], folder / kind, wishes, report=report)
        refused = [refusal.target for refusal in default.refused if refusal.target in chosen]
        search = None
        if refused:
            search = pack_targets(
                file, refused, folder / f"{kind}-search", FileWishes(task=task.name, samples=samples), report=report
            )
        cells |= {cell.target: cell for cell in cells_of(name, [*chosen, *others], default, search)}
    return tuple(cells[target] for target in targets)


def _read_cells(file: Path, targets: Sequence[str]) -> dict[str, tuple[Cell, ...]]:
    """Return the cells of each model that *file* has for all *targets*, in their order."""
    if not file.exists():
        return {}
    read = [Cell(**{**cell, "not_run": tuple(cell["not_run"])}) for cell in json.loads(file.read_text())]
    found = {}
    for name in {cell.model for cell in read}:
        own = {cell.target: cell for cell in read if cell.model == name}
        if set(targets) <= set(own):
            found[name] = tuple(own[target] for target in targets)
    return found


@click.command("zoo-table")
@click.option("--model", "models", multiple=True, metavar="NAME", help="Only this model; repeat it for more.")
@click.option("--target", "targets", multiple=True, metavar="NAME", help="Only this target; repeat it for more.")
@click.option("--write", type=click.Path(path_type=Path), metavar="FILE", help="Write the table as Markdown.")
@click.option(
    "--cells",
    "kept",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep the cells of each finished model in this file; models that are in it are not made again.",
)
@json_option
def zoo_table_command(
    models: tuple[str, ...], targets: tuple[str, ...], write: Path | None, kept: Path | None, as_json: bool
) -> None:
    """Compile every model of the zoo for every target and show what came of it."""
    import torch

    torch.set_num_threads(1)
    chosen = targets or tuple(target_names())
    for name in models:
        if name not in ZOO:
            raise UnknownNameError("zoo model", name, ZOO)
    known = _read_cells(kept, chosen) if kept is not None else {}
    with ProgressDisplay() as display, CompileWorkers() as workers, tempfile.TemporaryDirectory() as folder:
        for name in models or ZOO:
            if name in known:
                continue
            place = Path(folder) / name
            if ZOO[name].brings is None:
                known[name] = _compile_model(name, ZOO[name], chosen, place, workers, display.report)
            else:
                known[name] = _pack_model(name, ZOO[name], chosen, place, display.report)
            passed = sum(cell.bytes is not None for cell in known[name])
            display.say(f"{name}: {passed} of {len(known[name])} targets")
            if kept is not None:
                kept.write_text(json.dumps([asdict(cell) for found in known.values() for cell in found]))
    cells = [cell for name in models or ZOO for cell in known[name]]
    page = document(
        cells,
        made_by="python -m benchmarks.zoo --write docs/zoo.md",
        versions={"Hedgerow": __version__, **{name: version(name) for name in _TOOLS}},
    )
    if write is not None:
        write.write_text(page, encoding="utf-8")
    click.echo(json.dumps({"cells": [asdict(cell) for cell in cells]}) if as_json else page)


if __name__ == "__main__":
    zoo_table_command()
