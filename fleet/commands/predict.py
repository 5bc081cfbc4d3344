"""``hedgerow predict``: a checkpoint, a build or a release over a file of samples."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hedgerow.errors import CheckpointError
from hedgerow.installation import require
from hedgerow.manifest.release import RELEASE_ID
from hedgerow.model_schema import ModelSchema
from hedgerow.options import json_option
from hedgerow.progress import Report
from hedgerow.progress_display import ProgressDisplay
from hedgerow.task import Task, load_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hedgerow.compile.foreign import Prediction
    from hedgerow.manifest.artifact import Artifact
    from hedgerow.manifest.content import Blob

__all__ = ["predict"]


@dataclass(frozen=True, slots=True)
class _Model:
    """What predicts.

    Attributes:
        name: For people.
        schema: What it takes and gives.
        run: Predicts samples.
        task: Whose metrics are measured; None: only whether answers are right.
    """

    name: str
    schema: ModelSchema
    run: "Callable[[Any], Prediction]"
    task: Task | None


@click.command(
    epilog="\b\nExamples:\n  hedgerow predict out/imported samples.npz --task task.py:task\n"
    "  hedgerow predict out/build samples.csv --target android-arm64\n"
    "  hedgerow predict digits@1 samples.npz --fleet out/fleet -o a.jsonl"
)
@click.argument("what", metavar="CHECKPOINT|BUILD|RELEASE")
@click.argument("samples", type=click.Path(path_type=Path))
@click.option("--task", "reference", metavar="T", help="module:attribute or file.py:attribute; a checkpoint needs it.")
@click.option("--target", metavar="NAME", help="Whose artifact, where a build or release has several.")
@click.option(
    "--fleet",
    "fleet_path",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The fleet's folder; a release needs it.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("out/answers.csv"),
    show_default=True,
    metavar="FILE",
    help="Where the answers go: a table (.csv), lines of JSON (.jsonl) or arrays (.npz).",
)
@json_option
def predict(
    what: str,
    samples: Path,
    reference: str | None,
    target: str | None,
    fleet_path: Path | None,
    out: Path,
    as_json: bool,
) -> None:
    """Predict SAMPLES, and score the answers where the file has target values.

    SAMPLES is a .npz file with an array for each input and perhaps 'labels' or 'target_values' (with several outputs
    'target_values.NAME'), a .npy file for a model of one input, or a .csv table with a column for each number (x, or
    x.0, x.1 and so on, or any names for the only input) and perhaps those of target values, called likewise. A
    checkpoint runs in torch, an artifact in its own runtime, in a process of its own.
    """
    from hedgerow.compile.predict.answers import tell
    from hedgerow.compile.predict.given import read_samples
    from hedgerow.compile.predict.writing import check_ending, write_answers

    check_ending(out)
    with ProgressDisplay() as display:
        model = _open(what, reference, target, fleet_path, display.report)
        given = read_samples(samples, model.schema)
        found = model.run(given.inputs)
    steps = next(iter(given.inputs.values())).shape[1] if model.schema.state else 1
    told = tell(model.schema, found.outputs, given.target_values, steps=steps, task=model.task)
    write_answers(out, told)
    notes = list(given.notes)
    if given.target_values is not None and not told.metrics:
        notes.append(f"the answers are not scored: {_unscored(model)}")
    if as_json:
        record = {
            "out": str(out),
            "samples": len(given),
            "rows": told.rows,
            "executed_by": found.executed_by,
            "scored": told.scored,
            "metrics": dict(told.metrics),
            "notes": notes,
        }
        click.echo(json.dumps(record, allow_nan=False))
        return
    for note in notes:
        click.echo(f"note: {note}")
    shown = ", ".join(f"{name} {value:.3f}" for name, value in told.metrics.items())
    scored = f"; {shown} on {told.scored:,} {model.schema.answers.known_word} ones" if told.metrics else ""
    click.echo(f"{model.name}: {told.rows:,} answers by {found.executed_by}{scored}")
    click.echo(f"answers: {out}")


def _unscored(model: _Model) -> str:
    """Return why answers have no score although there are target values."""
    answers = model.schema.answers if model.schema.answers.can_score or model.task is None else model.task.answers
    unscored = ", ".join(name for name, output in answers.items() if not output.can_score)
    if not unscored:
        return "no sample has all its target values"
    if model.task is None:
        return f"the score function of {unscored} is not part of a build or a release; name the task with --task"
    return f"the task has no score function for {unscored}"


def _open(what: str, reference: str | None, target: str | None, fleet_path: Path | None, report: Report) -> _Model:
    """Return what *what* names.

    Raises:
        CheckpointError: Nothing of the kind is there.
        HedgerowError: It is damaged, or cannot be run here.
        click.UsageError: An option is missing.
    """
    place = Path(what)
    task = load_task(reference) if reference is not None else None
    if (place / "build.json").is_file():
        from hedgerow.compile.build import load_build

        build = load_build(place)
        return _of_artifacts(what, build.model_schema, build.artifacts, target, place / "blobs", task, report)
    if (place / "checkpoint.json").is_file():
        if reference is None or task is None or target is not None:
            raise click.UsageError("expected --task for a checkpoint, and no --target")
        return _of_checkpoint(what, place, task, report)
    if RELEASE_ID.fullmatch(what) and not place.exists():
        if fleet_path is None:
            raise click.UsageError(f"expected --fleet DIR for the release {what}")
        from hedgerow.fleet.folder import FleetFolder
        from hedgerow.fleet.trust.releases import load_release

        folder = FleetFolder(fleet_path)
        manifest = load_release(folder, what)
        blobs = folder.release(what) / "blobs"
        return _of_artifacts(what, manifest.model_schema, manifest.artifacts, target, blobs, task, report)
    raise CheckpointError(
        f"expected the folder of a checkpoint or a build, or a release such as digits@1, found none of them at {what}; "
        "correct it, or make one with `hedgerow checkpoint import` or `hedgerow compile`"
    )


def _of_checkpoint(name: str, place: Path, task: Task, report: Report) -> _Model:
    require("predicting with a checkpoint", "train", ("torch",))
    from hedgerow.checkpoint import load_checkpoint_of
    from hedgerow.compile.predict.running import measured_schema, run_float_model

    weights = load_checkpoint_of(task.name, place).weights
    return _Model(
        name,
        measured_schema(task, weights, report),
        lambda inputs: run_float_model(task, weights, inputs, report),
        task,
    )


def _of_artifacts(
    name: str,
    schema: ModelSchema,
    artifacts: "Sequence[Artifact]",
    target: str | None,
    blobs: Path,
    task: Task | None,
    report: Report,
) -> _Model:
    from hedgerow.compile.predict.running import RunArtifact

    names = ", ".join(artifact.target for artifact in artifacts)
    chosen = [artifact for artifact in artifacts if target in {None, artifact.target}]
    if len(chosen) != 1:
        found = f"found none called {target!r}" if target is not None else f"found {len(chosen)}"
        raise click.UsageError(f"expected --target to name one artifact of {name} ({names}), {found}")

    def content(blob: "Blob") -> bytes:
        payload = (blobs / blob.sha256).read_bytes()
        if sha256(payload).hexdigest() != blob.sha256:
            raise CheckpointError(
                f"expected the file {blob.sha256[:12]}... whole in {blobs}, found another; restore it"
            )
        return payload

    run = RunArtifact(chosen[0], schema, content, report)
    run.check()
    return _Model(f"{name} for {chosen[0].target}", schema, run, task)
