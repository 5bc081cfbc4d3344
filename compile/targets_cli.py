"""``hedgerow targets check``: which targets can hold a compiled model, and what is in the way of the others."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from hedgerow.compile.arena import Arena, installed_version
from hedgerow.compile.edgetpu import COMPILED_OPERATOR
from hedgerow.compile.errors import ForeignFileError, ModelFileError, RuntimeRefusedError
from hedgerow.compile.foreign import ForeignFile
from hedgerow.compile.input_shapes import parse_shapes, shape_option
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.inspection.model import format_of, model_facts
from hedgerow.compile.mlpackage import pack
from hedgerow.compile.model_file import whole_file
from hedgerow.compile.profile.model import Profile, profile_model
from hedgerow.compile.toolchains import NO_MCU
from hedgerow.errors import DecodeError
from hedgerow.hardware.fit import Misfit, fit
from hedgerow.hardware.lookup import load_target, target_names
from hedgerow.hardware.target import Target
from hedgerow.options import json_option
from hedgerow.progress import Progress, Report, silent
from hedgerow.progress_display import ProgressDisplay

__all__ = ["TargetFit", "ask_targets", "check", "check_model"]

_LIMIT_BYTES = 2 * 2**30
_INPUT_PLACE = " of the input "


@dataclass(frozen=True, slots=True)
class TargetFit:
    """What one target says of a model.

    Attributes:
        target: The target.
        profile: What one prediction asks of it; None for a model of another format.
        misfits: Everything in the way.
        unknown: Check -> why it cannot be answered. A model fits when nothing is in the way and nothing is unknown.
    """

    target: Target
    profile: Profile | None
    misfits: tuple[Misfit, ...]
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def fits(self) -> bool | None:
        """Whether the target can hold the model; None: nobody knows."""
        if self.misfits:
            return False
        return None if self.unknown else True

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "target": self.target.name,
            "fits": self.fits,
            "misfits": [
                {"check": misfit.check, "expected": misfit.expected, "found": misfit.found, "names": list(misfit.names)}
                for misfit in self.misfits
            ],
            "unknown": dict(self.unknown),
            "profile": self.profile.metrics() if self.profile is not None else None,
        }


def check_model(
    kind: str,
    size_bytes: int,
    facts: FileFacts,
    targets: Sequence[Target],
    arena: "Arena | Misfit | str" = NO_MCU,
) -> tuple[TargetFit, ...]:
    """Ask each target whether it can hold a model.

    Args:
        kind: The model's format.
        size_bytes: Of its file.
        facts: Read from it.
        targets: Whom to ask.
        arena: For targets with one: the smallest that works, why none does, or why nobody knows.
    """
    return tuple(_ask(target, kind, size_bytes, facts, arena) for target in targets)


def _ask(target: Target, kind: str, size_bytes: int, facts: FileFacts, arena: "Arena | Misfit | str") -> TargetFit:
    if target.accelerator == "edgetpu" and facts.operators == {COMPILED_OPERATOR}:
        # What is inside is the compiler's matter, not that of a table.
        facts = replace(facts, operators=frozenset(), operator_versions={})
    # The operators of another format mean nothing to the target's cost model.
    profile = None
    if target.format == kind and facts.graph:
        profile = profile_model(facts, target, "no arena works" if isinstance(arena, Misfit) else arena)
    held = model_facts(
        kind,
        size_bytes,
        facts,
        activation_bytes=profile.peak_memory_bytes if profile else None,
        latency_ms=profile.target_latency_ms if profile else None,
    )
    misfits = fit(target, held)
    if profile is None:
        return TargetFit(target, None, misfits)
    if target.arena_bytes is not None and isinstance(arena, Misfit):
        # What the runtime itself says stands for what a table says.
        return TargetFit(target, profile, (*(misfit for misfit in misfits if misfit.check != arena.check), arena))
    asked = {"memory"} | ({"latency"} if target.maximum_latency_ms is not None else set[str]())
    return TargetFit(target, profile, misfits, {name: why for name, why in profile.not_run.items() if name in asked})


@click.command("check", epilog="\b\nExample:\n  hedgerow targets check model.tflite --target cortex-m7")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "names",
    multiple=True,
    metavar="NAME",
    help="Ask this target only, by name or a .toml file of your own; repeat it for more.  "
    "[default: every target of the model's format]",
)
@shape_option
@json_option
def check(model: Path, names: tuple[str, ...], shapes: tuple[str, ...], as_json: bool) -> int:
    """Say which targets can hold MODEL: a .onnx or .tflite file, or a .mlpackage (a folder or a zip of it).

    Operators, their versions, number types, shapes, storage, memory and modelled latency are compared; accuracy is not
    measured. What the file leaves open is unknown. Exits with 1 when a target that was asked for by --target cannot
    hold the model, or when nobody knows.
    """
    with ProgressDisplay() as display:
        given = parse_shapes(shapes)
        kind, size_bytes, answers = ask_targets(model, tuple(dict.fromkeys(names)), given, report=display.report)
    if as_json:
        record = {"model": str(model), "format": kind, "bytes": size_bytes}
        click.echo(json.dumps({**record, "targets": [answer.to_record() for answer in answers]}))
    else:
        _print(answers)
    return int(bool(names) and not all(answer.fits for answer in answers))


def ask_targets(
    model: Path, names: Sequence[str], shapes: Mapping[str, tuple[int, ...]], *, report: Report = silent
) -> tuple[str, int, tuple[TargetFit, ...]]:
    """Read a file, and ask targets whether they can hold it.

    Args:
        model: It; see :func:`check`.
        names: Of the targets; none: all of its format.
        shapes: Input -> its sizes, where the file leaves one open.
        report: Takes progress.

    Returns:
        Its format, its bytes, and what each target says.

    Raises:
        HedgerowError: The file cannot be read, or there is no such target.
    """
    targets = [load_target(name) for name in names]
    kind, content = _read(model)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(whole_file(model, ForeignFile(model.name, kind, content)))
        work = f"check {model.name}"
        report(Progress(work, 0, 2, "read"))
        try:
            if shapes:
                file = stack.enter_context(file.fixed(shapes))
            facts = file.facts()
        except DecodeError as exc:
            raise ModelFileError(str(model), exc.expected, exc.found) from exc
        if not targets:
            targets = [target for target in map(load_target, target_names()) if target.format == kind]
        micro = kind == "tflite" and any(target.arena_bytes is not None for target in targets)
        report(Progress(work, 1, 2, "find the smallest arena" if micro else "ask the targets"))
        arena = _arena(file) if micro else NO_MCU
    size_bytes = len(file.content)
    return kind, size_bytes, check_model(kind, size_bytes, facts, targets, arena)


def _arena(file: ForeignFile) -> "Arena | Misfit | str":
    """Return the smallest arena of a file, why no arena works, or why nobody knows."""
    if installed_version() is None:
        return NO_MCU
    try:
        return file.arena()
    except RuntimeRefusedError as exc:
        return Misfit("operators" if exc.operator else "runtime", exc.expected, exc.found)
    except ForeignFileError as exc:
        return Misfit("process", f"{exc.runtime} to live through {exc.step} the file", exc.found)


def _read(path: Path) -> tuple[str, bytes]:
    """Return the format and the bytes of a model; a package is zipped.

    Raises:
        ModelFileError: There is nothing that can be read, or it is too large.
    """
    try:
        if path.is_dir():
            if not (path / "Manifest.json").is_file():
                raise ModelFileError(str(path), "a folder with a Manifest.json, as Core ML packages have", "none")
            size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        else:
            size_bytes = path.stat().st_size
        if size_bytes > _LIMIT_BYTES:
            raise ModelFileError(str(path), f"at most {_LIMIT_BYTES} bytes", f"{size_bytes} bytes")
        if path.is_dir():
            return "mlpackage", pack(path)
        content = path.read_bytes()
    except OSError as exc:
        raise ModelFileError(str(path), "a file that can be read", exc.strerror or str(exc)) from exc
    # Malformed JSON, or a manifest without the entries that every package has.
    except (ValueError, KeyError) as exc:
        raise ModelFileError(str(path), "a Core ML package with a whole manifest", str(exc)) from exc
    return format_of(content), content


def _print(answers: Sequence[TargetFit]) -> None:
    width = max((len(answer.target.name) for answer in answers), default=0)
    for answer in answers:
        lines = [str(misfit) for misfit in answer.misfits]
        lines += [f"unknown  {check}: {_advised(why)}" for check, why in answer.unknown.items()]
        for index, line in enumerate(lines or [f"fits{_cost(answer.profile)}"]):
            click.echo(f"{'' if index else answer.target.name:<{width}}  {line}")


def _advised(why: str) -> str:
    """Return why something is unknown, with what to do about it where the command can be told."""
    return f"{why}; give its sizes with --shape NAME=SIZExSIZE..." if _INPUT_PLACE in why else why


def _cost(profile: Profile | None) -> str:
    if profile is None or profile.peak_memory_bytes is None:
        return ""
    memory = f"; {profile.peak_memory_bytes:,} bytes of memory beside the weights"
    if profile.target_latency_ms is None or profile.error_factor is None:
        return f"{memory}; its time was not run: {profile.not_run['latency']}"
    low, high = profile.target_latency_ms / profile.error_factor, profile.target_latency_ms * profile.error_factor
    return f"{memory}, {_ms(low)} to {_ms(high)} ms by the target's cost model"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2g}" if milliseconds < 10 else f"{milliseconds:,.0f}"
