"""``hedgerow targets check``: which targets can hold a compiled model, and what is in the way of the others."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hedgerow.compile.errors import ModelFileError
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.inspection.model import format_of, model_facts, read_facts
from hedgerow.compile.mlpackage import pack
from hedgerow.compile.profile.model import Profile, profile_model
from hedgerow.compile.toolchains import check_installed
from hedgerow.errors import DecodeError
from hedgerow.hardware.fit import Misfit, fit
from hedgerow.hardware.target import Target, load_target, target_names

__all__ = ["Answer", "check", "check_model"]

_LIMIT_BYTES = 2 * 2**30
_READERS = {"onnx": "onnx", "tflite": "ai_edge_litert", "mlpackage": "coremltools"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one target says of a model.

    Attributes:
        target: The target.
        profile: What one prediction asks of it; None for a model of another format.
        misfits: Everything in the way; empty when the model fits.
    """

    target: Target
    profile: Profile | None
    misfits: tuple[Misfit, ...]

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "target": self.target.name,
            "fits": not self.misfits,
            "misfits": [
                {"check": misfit.check, "expected": misfit.expected, "found": misfit.found, "names": list(misfit.names)}
                for misfit in self.misfits
            ],
            "profile": self.profile.metrics() if self.profile is not None else None,
        }


def check_model(kind: str, size_bytes: int, facts: FileFacts, targets: Sequence[Target]) -> tuple[Answer, ...]:
    """Ask each target whether it can hold a model.

    Args:
        kind: The model's format.
        size_bytes: Of its file.
        facts: Read from it.
        targets: Whom to ask.
    """
    return tuple(_ask(target, kind, size_bytes, facts) for target in targets)


def _ask(target: Target, kind: str, size_bytes: int, facts: FileFacts) -> Answer:
    # The operators of another format mean nothing to the target's cost model.
    profile = profile_model(facts, target) if target.format == kind and facts.graph else None
    held = model_facts(
        kind,
        size_bytes,
        facts,
        activation_bytes=profile.peak_memory_bytes if profile else None,
        latency_ms=profile.target_latency_ms if profile else None,
    )
    return Answer(target, profile, fit(target, held))


@click.command("check", epilog="\b\nExample:\n  hedgerow targets check model.tflite --target cortex-m7")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "names",
    multiple=True,
    metavar="NAME",
    help="Ask this target only; repeat it for more.  [default: every target of the model's format]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, the last line of stdout.")
def check(model: Path, names: tuple[str, ...], as_json: bool) -> int:
    """Say which targets can hold MODEL: a .onnx or .tflite file, or a .mlpackage (a folder or a zip of it).

    Operators, their versions, number types, shapes, storage, memory and modelled latency are compared; accuracy is not
    measured. Exits with 1 when a target cannot hold the model that was asked for by --target.
    """
    targets = [load_target(name) for name in dict.fromkeys(names)]
    kind, content = _read(model)
    facts = _inspect(model, kind, content)
    if not targets:
        targets = [target for target in map(load_target, target_names()) if target.format == kind]
    answers = check_model(kind, len(content), facts, targets)
    if as_json:
        record = {"model": str(model), "format": kind, "bytes": len(content)}
        click.echo(json.dumps({**record, "targets": [answer.to_record() for answer in answers]}))
    else:
        _print(answers)
    return int(bool(names) and any(answer.misfits for answer in answers))


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


def _inspect(path: Path, kind: str, content: bytes) -> FileFacts:
    check_installed(kind, (_READERS[kind],))
    # coremltools and what it imports log what they miss, such as triton, which no check needs.
    logging.disable(logging.WARNING)
    try:
        return read_facts(kind, content)
    except DecodeError as exc:
        raise ModelFileError(str(path), exc.expected, exc.found) from exc
    finally:
        logging.disable(logging.NOTSET)


def _print(answers: Sequence[Answer]) -> None:
    width = max((len(answer.target.name) for answer in answers), default=0)
    for answer in answers:
        if not answer.misfits:
            click.echo(f"{answer.target.name:<{width}}  fits{_cost(answer.profile)}")
        for index, misfit in enumerate(answer.misfits):
            click.echo(f"{'' if index else answer.target.name:<{width}}  {misfit}")


def _cost(profile: Profile | None) -> str:
    if profile is None:
        return ""
    low, high = profile.target_latency_ms / profile.error_factor, profile.target_latency_ms * profile.error_factor
    memory = f"{profile.peak_memory_bytes:,} bytes of memory beside the weights"
    return f"; {memory}, {_ms(low)} to {_ms(high)} ms by the target's cost model"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2g}" if milliseconds < 10 else f"{milliseconds:,.0f}"
