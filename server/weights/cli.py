"""``hedgerow checkpoint import``. Importing this module imports neither torch nor Flower."""

from pathlib import Path

import click

from hedgerow.decode import encode_json
from hedgerow.installation import require
from hedgerow.options import json_option
from hedgerow.progress import Progress
from hedgerow.progress_display import ProgressDisplay
from hedgerow.task import load_task

__all__ = ["import_command"]


@click.command(
    "import",
    epilog="\b\nExample:\n  hedgerow checkpoint import model.pt --task task.py:task -o out/imported",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--task", "reference", required=True, metavar="T", help="module:attribute or file.py:attribute.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/imported"),
    show_default=True,
    metavar="DIR",
    help="Folder of the checkpoint; one that was imported before is replaced.",
)
@click.option(
    "--entry",
    default="",
    metavar="NAME",
    help="What holds the state dict in FILE.  [default: the whole file, state_dict, model_state_dict or model]",
)
@json_option
def import_command(file: Path, reference: str, out: Path, entry: str, as_json: bool) -> None:
    """Make a checkpoint of your own trained weights: FILE is a state dict of torch (.pt) or a .safetensors file.

    They are checked against the task's model, and measured on its held-out data. FILE is read in a process of its own,
    and no code in it is run. The checkpoint goes where one of `hedgerow train` does.
    """
    require("importing weights", "train", ("rich", "torch"))
    task = load_task(reference)
    from hedgerow.server.check import examine_task
    from hedgerow.server.weights.importing import import_checkpoint

    with ProgressDisplay() as display:
        display.report(Progress(f"import {file.name}", 0, 2, "check the task"))
        _report, data = examine_task(task, clients=1)
        display.report(Progress(f"import {file.name}", 1, 2, "read and measure"))
        found = import_checkpoint(file, task, data, out, entry=entry)
        display.report(Progress(f"import {file.name}", 2, 2))
    if as_json:
        click.echo(encode_json(found.to_record()))
        return
    for note in found.notes:
        click.echo(note)
    values = sum(array.size for array in found.checkpoint.weights.values())
    click.echo(f"{task.name}: {len(found.checkpoint.weights)} tensors, {values:,} values; {found.score.line()}")
    click.echo(f"checkpoint: {out}")
