"""Damage ONNX and TFLite files, and put each through check, measure, profile and pack.

    python -m tools.fuzz_model_files 2000 --seed 0 --json

What may come of a damaged file is a build, or a refusal in one sentence. Counted as wrong are an exception that is none
of Hedgerow's, a bug of its own, and an end that takes longer than a minute. Files that something went wrong with are
kept.
"""

import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import click

from hedgerow.compile.errors import InternalError
from hedgerow.compile.outcome import Outcome
from hedgerow.compile.packing import pack_targets
from hedgerow.compile.refused import INTERNAL
from hedgerow.compile.samples import SampleFile
from hedgerow.compile.targets_cli import ask_targets
from hedgerow.compile.third_party import FileWishes
from hedgerow.errors import HedgerowError

__all__ = ["Fate", "fate_of", "fuzz", "main", "mutated"]

LONGEST_S = 60.0
_TARGETS = {".onnx": ["x86-gateway"], ".tflite": ["android-arm64", "cortex-m7"]}
_WRONG = frozenset({"raised", "internal", "slow"})
_LONGEST_RUN = 64


@dataclass(frozen=True, slots=True)
class Fate:
    """What came of one damaged file.

    Attributes:
        kind: ``packed``, ``refused``, ``raised`` (an exception that is none of Hedgerow's), ``internal`` (a bug of our
            own) or ``slow``.
        said: What was said of it.
        refused_by: The check that refused each target; ``file`` where the file itself was refused.
        is_measured: Whether its accuracy was measured in a target's runtime.
    """

    kind: str
    said: str
    refused_by: tuple[str, ...] = ()
    is_measured: bool = False


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return a damaged copy: bits turned over, bytes written over, cut out, put in twice, or the end cut off."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(damaged))
        length = min(rng.randint(1, _LONGEST_RUN), len(damaged) - at)
        kind = rng.choice(("bit", "bit", "bytes", "extreme", "cut", "twice", "end"))
        if kind == "bit":
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind == "bytes":
            damaged[at : at + length] = rng.randbytes(length)
        elif kind == "extreme":
            damaged[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00"))
        elif kind == "cut" and len(damaged) > 2 * length:
            del damaged[at : at + length]
        elif kind == "twice":
            damaged[at:at] = damaged[at : at + length]
        elif kind == "end" and at > 8:
            del damaged[at:]
    return bytes(damaged)


def fate_of(path: Path, data: Path, *, clock: Callable[[], float] = time.monotonic) -> Fate:
    """Put one file through everything; its build lies beside it."""
    begun = clock()
    try:
        _check(path)
        wishes = FileWishes(samples=SampleFile(data))
        fate = _fate(pack_targets(path, _TARGETS[path.suffix], path.with_suffix(".build"), wishes))
    except InternalError as exc:
        fate = Fate("internal", exc.details or str(exc))
    except HedgerowError as exc:
        fate = Fate("refused", str(exc), ("file",))
    # Whatever comes here is what this looks for.
    except Exception as exc:  # noqa: BLE001 - see above
        fate = Fate("raised", f"{type(exc).__name__}: {exc}")
    taken_s = clock() - begun
    return replace(fate, kind="slow", said=f"{taken_s:.0f} s: {fate.said}") if taken_s > LONGEST_S else fate


def _check(path: Path) -> None:
    try:
        ask_targets(path, _TARGETS[path.suffix], {})
    except InternalError:
        raise
    # Packing it is refused in the same words.
    except HedgerowError:
        return


def _fate(outcome: Outcome) -> Fate:
    bugs = [refusal.details for refusal in outcome.refused if refusal.check == INTERNAL]
    said = bugs[0] if bugs else "; ".join(refusal.reason for refusal in outcome.refused)
    return Fate(
        kind="internal" if bugs else "refused" if outcome.build is None else "packed",
        said=said,
        refused_by=tuple(refusal.check for refusal in outcome.refused),
        is_measured=any("accuracy" in found for found in outcome.executed_by.values()),
    )


def fuzz(
    files: Mapping[str, tuple[bytes, Path]],
    count: int,
    *,
    seed: int,
    kept: Path,
    jobs: int = 2,
    budget_s: float = float("inf"),
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, object]:
    """Damage files so many times, one after the other.

    Args:
        files: Name -> the file and its samples.
        count: How many damaged files.
        seed: Of all damage.
        kept: Folder for files that something went wrong with.
        jobs: How many are looked at at once.
        budget_s: No further file is begun after this time.
        clock: Seconds, monotonic.

    Returns:
        How many came to what, and what went wrong.
    """
    begun = clock()

    def look(number: int) -> tuple[int, str, Fate] | None:
        if clock() - begun > budget_s:
            return None
        name = sorted(files)[number % len(files)]
        content, data = files[name]
        damaged = mutated(content, random.Random(f"{seed}:{number}"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(damaged)
            fate = fate_of(path, data)
        if fate.kind in _WRONG:
            kept.mkdir(parents=True, exist_ok=True)
            (kept / f"{number}-{name}").write_bytes(damaged)
        return number, name, fate

    with ThreadPoolExecutor(jobs) as pool:
        found = [each for each in pool.map(look, range(count)) if each is not None]
    fates = Counter(fate.kind for _, _, fate in found)
    checks = Counter(check for _, _, fate in found for check in fate.refused_by)
    wrong = [{"number": n, "file": name, "kind": f.kind, "said": f.said} for n, name, f in found if f.kind in _WRONG]
    return {
        "mutations": len(found),
        "seed": seed,
        "fates": dict(sorted(fates.items())),
        "measured": sum(fate.is_measured for _, _, fate in found),
        "refused_by": dict(sorted(checks.items())),
        "wrong": wrong,
    }


def _files(folder: Path) -> dict[str, tuple[bytes, Path]]:
    """Return whole files with samples for them."""
    import numpy as np
    from tests.compile import foreign_models as made

    values, labels = made.samples(24)
    found = {}
    for name, tensor, content in (
        ("branching.onnx", "x", made.branching_onnx()),
        ("forest.onnx", "x", made.forest_onnx()),
        ("int16.tflite", "main/0", made.linear_tflite(border="INT16")),
        ("plain.onnx", "x", made.linear_onnx()),
        ("plain.tflite", "main/0", made.linear_tflite()),
        ("quantized.onnx", "x", made.quantized_onnx()),
        ("recurrent.onnx", "x", made.recurrent_onnx()),
        ("signed.tflite", "x", made.signed_tflite()),
    ):
        data = folder / f"{name}.npz"
        np.savez(data, **{tensor: values, "labels": labels})
        found[name] = (content, data)
    return found


@click.command()
@click.argument("count", type=click.IntRange(1, 1_000_000), default=2000)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--budget", "budget_s", type=click.FloatRange(1), default=86_400.0, metavar="SECONDS")
@click.option("--kept", type=click.Path(path_type=Path), default=Path("out/fuzz"), show_default=True, metavar="DIR")
@click.option("--json", "as_json", is_flag=True)
def main(count: int, seed: int, jobs: int, budget_s: float, kept: Path, as_json: bool) -> None:
    """Damage COUNT files; exit with 1 when anything went wrong with one."""
    with tempfile.TemporaryDirectory() as folder:
        result = fuzz(_files(Path(folder)), count, seed=seed, kept=kept, jobs=jobs, budget_s=budget_s)
    click.echo(json.dumps(result, indent=None if as_json else 1))
    sys.exit(1 if result["wrong"] else 0)


if __name__ == "__main__":
    main()
