"""The gate: measurements of an artifact in, metrics and check states out, or an error that names the failed check.

Quantizers fail silently: recipes that quantize nothing, int8 files bigger than float, calibrators that destroy the
model. Nothing here converts or runs a model; a check that could not be run is recorded ``not run``, never ``passed``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.errors import Failure, VerificationError
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.inspection.model import model_facts
from hedgerow.compile.recipe import Recipe
from hedgerow.compile.toolchains import MICRO
from hedgerow.features import predicted_classes
from hedgerow.hardware.fit import fit
from hedgerow.hardware.target import Target
from hedgerow.task import accuracy

__all__ = [
    "NOT_RUN",
    "OF_THE_ORACLE",
    "PASSED",
    "TRAIN_TOLERANCE",
    "Measured",
    "Oracle",
    "Verdict",
    "agreement",
    "judge_artifact",
    "judge_file",
    "signal_to_noise_db",
    "together",
    "verify_artifact",
    "verify_train_graph",
]

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
TRAIN_TOLERANCE = 1e-5
"""Largest difference of any weight or the loss after one step from torch's, relative to the tensor's largest number."""
_SNR_LIMIT_DB = 200.0
_OF_OUTPUTS = ("accuracy", "parity", "golden")
OF_THE_ORACLE = ("oracle", "operators")
"""Checks that a microcontroller's own runtime answers by taking a file and running it; a table only foresees them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """What the runtime of the target itself, on this host, has to say of a file; nothing: it takes and runs it.

    Attributes:
        failure: What it has against it.
        not_run: Why it was not asked; else empty.
    """

    failure: Failure | None = None
    not_run: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one artifact.

    Attributes:
        size_bytes: Of the artifact.
        float_bytes: Of the float artifact in the same format.
        facts: Read from the file.
        labels: ``int64[n]``, of the held-out data.
        float_probabilities: The float model's output on it, ``(n, classes)``.
        probabilities: The artifact's; None where this host cannot run or evaluate the file.
        replay_difference: Largest difference between two runs of the golden samples, the second sample by sample in a
            fresh session; None where this host cannot run or evaluate the file.
        replay_tolerance: What the golden samples allow.
        not_run: Why there are no *probabilities*; empty when there are.
        by_reference: Whether the outputs come from a reference evaluation of the file's operators, because the runtime
            that will run it does not exist on this host.
        activation_bytes: What lives at once during a prediction on the target, without weights; None: not known.
        latency_ms: Modelled time of a prediction on the target; None: not known.
        oracle: What the target's own runtime says, where *probabilities* are of none but it; None: another one is.
        profile_not_run: Check -> why the profile of the target knows nothing for it.
        state: Each state, with what is at its two ends in the file, in words.
    """

    size_bytes: int
    float_bytes: int
    facts: FileFacts
    labels: NDArray[np.int64]
    float_probabilities: NDArray[Any]
    probabilities: NDArray[Any] | None
    replay_difference: float | None
    replay_tolerance: float
    not_run: str = ""
    by_reference: bool = False
    activation_bytes: int | None = None
    latency_ms: float | None = None
    oracle: Oracle | None = None
    profile_not_run: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Metrics and check states of an artifact; see :class:`hedgerow.manifest.artifact.Artifact`.

    Attributes:
        metrics: Numbers that could be measured.
        checks: Check -> ``passed``, ``failed`` or ``not run``. A check that the target or the recipe does not ask for
            is absent.
        failures: What failed, in the order of the checks.
        not_run: Check that is ``not run`` -> why.
    """

    metrics: Mapping[str, float]
    checks: Mapping[str, str]
    failures: tuple[Failure, ...] = ()
    not_run: Mapping[str, str] = field(default_factory=dict)


def signal_to_noise_db(signal: NDArray[Any], other: NDArray[Any]) -> float:
    """Return ``10 log10(sum(signal^2) / sum((signal - other)^2))``, at most 200; NaN in *other* gives -200."""
    power = float(np.square(signal, dtype=np.float64).sum())
    noise = float(np.square(signal.astype(np.float64) - other).sum())
    if not math.isfinite(noise) or power == 0:
        return -_SNR_LIMIT_DB
    return min(_SNR_LIMIT_DB, max(-_SNR_LIMIT_DB, 10 * math.log10(power / noise))) if noise > 0 else _SNR_LIMIT_DB


def agreement(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the share of samples on which both predict the same class; what is not finite agrees with nothing."""
    first = predicted_classes(one)
    return float(((first == predicted_classes(other)) & (first >= 0)).mean())


def verify_artifact(
    target: Target, recipe: Recipe, measured: Measured, *, max_drop: float, explain: Callable[[], str] = lambda: ""
) -> Verdict:
    """Judge one artifact, and refuse it when any check failed.

    Args:
        target: What must run it.
        recipe: What it promises.
        measured: What was found.
        max_drop: Largest allowed loss of held-out accuracy, as a share (0.015: 1.5 points).
        explain: Called where the outputs are too far from the float model's; gives what is known of why, or nothing.

    Raises:
        VerificationError: A check failed; the error names all that did.
    """
    verdict = judge_artifact(target, recipe, measured, max_drop=max_drop)
    if verdict.failures:
        first, *more = verdict.failures
        is_far = any(failure.check in {"accuracy", "parity"} for failure in verdict.failures)
        raise VerificationError(
            target.name,
            first.check,
            first.expected,
            first.found,
            further=more,
            measured=verdict.metrics,
            note=explain() if is_far else "",
        )
    return verdict


def judge_artifact(target: Target, recipe: Recipe, measured: Measured, *, max_drop: float) -> Verdict:
    """Judge one artifact by every check; see :func:`verify_artifact`."""
    promised, promises = _judge_promises(recipe, measured)
    fitting, misfits = judge_file(
        target,
        recipe.format,
        measured.size_bytes,
        measured.facts,
        activation_bytes=measured.activation_bytes,
        latency_ms=measured.latency_ms,
    )
    metrics = {
        "bytes": float(measured.size_bytes),
        "float_bytes": float(measured.float_bytes),
        "float_accuracy": accuracy(measured.float_probabilities, measured.labels),
    }
    outputs = _judge_outputs(recipe, measured, metrics, max_drop)
    failures = together((*promises, *misfits, *outputs), measured.oracle)
    checks = dict.fromkeys((*promised, *fitting), PASSED)
    known = measured.probabilities is not None and measured.replay_difference is not None
    not_run = {} if known else dict.fromkeys(_OF_OUTPUTS, measured.not_run or "this machine cannot run the file")
    not_run |= measured.profile_not_run
    if measured.oracle is not None:
        checks["oracle"] = PASSED if measured.oracle.failure is None else FAILED
        not_run |= dict.fromkeys(OF_THE_ORACLE, measured.oracle.not_run) if measured.oracle.not_run else {}
    if measured.by_reference:
        instead = "; its operators were evaluated one by one instead" if known else ""
        not_run["runs on device"] = f"the runtime {target.runtime} does not exist for this machine{instead}"
    checks |= dict.fromkeys(_OF_OUTPUTS, PASSED) | dict.fromkeys(not_run, NOT_RUN)
    return Verdict(metrics, checks | {failure.check: FAILED for failure in failures}, failures, not_run)


def judge_file(
    target: Target,
    kind: str,
    size_bytes: int,
    facts: FileFacts,
    *,
    activation_bytes: int | None = None,
    latency_ms: float | None = None,
) -> tuple[tuple[str, ...], tuple[Failure, ...]]:
    """Judge a file by itself: whether its numbers are numbers, and whether the target can hold and run it.

    Args:
        target: What must run it.
        kind: Its format.
        size_bytes: Its size.
        facts: Read from it.
        activation_bytes: See :class:`Measured`.
        latency_ms: See :class:`Measured`.

    Returns:
        The checks that this target asks for, in order, and the failures among them.
    """
    asked = ["weights", "storage", "operators", "operator versions", "number types"]
    asked += ["ranks"] if target.operator_ranks else []
    asked += ["all integer"] if target.all_integer else []
    asked += ["integer border"] if target.integer_io else []
    asked += ["symmetric"] if target.symmetric else []
    asked += ["static shapes"] if target.static_shapes else []
    asked += ["inline constants"] if target.runtime == MICRO else []
    asked += ["memory"] if activation_bytes is not None else []
    asked += ["latency"] if latency_ms is not None and target.maximum_latency_ms is not None else []
    failures = [Failure("weights", "finite weights", "NaN or infinity")] if facts.has_nan else []
    held = model_facts(kind, size_bytes, facts, activation_bytes=activation_bytes, latency_ms=latency_ms)
    failures += [Failure(misfit.check, misfit.expected, misfit.found) for misfit in fit(target, held)]
    return tuple(asked), tuple(failures)


def _judge_promises(recipe: Recipe, measured: Measured) -> tuple[list[str], list[Failure]]:
    """Return the checks of what the recipe promises, and the failures among them."""
    checks, failures = [], []
    if recipe.smaller_than_float:
        checks.append("size")
        if measured.size_bytes >= measured.float_bytes:
            expected = f"fewer bytes than the float artifact's {measured.float_bytes}"
            failures.append(Failure("size", expected, f"{measured.size_bytes} bytes"))
    if recipe.minimum_quantized_share > 0:
        checks.append("quantized")
        share = measured.facts.quantized_share
        if share < recipe.minimum_quantized_share:
            expected = f"at least {recipe.minimum_quantized_share:.1%} of the weights in at most 8 bits"
            failures.append(Failure("quantized", expected, f"{share:.1%}"))
    if measured.state:
        checks.append("state")
        for name, (taken, given) in measured.state.items():
            if taken != given:
                expected = f"the state {name} stored alike at both ends, to be copied as it is"
                failures.append(Failure("state", expected, f"{taken} in, {given} out"))
    return checks, failures


def _judge_outputs(
    recipe: Recipe, measured: Measured, metrics: dict[str, float], max_drop: float
) -> tuple[Failure, ...]:
    """Return what is wrong with the outputs; write what was measured of them into *metrics*."""
    if measured.probabilities is None or measured.replay_difference is None:
        return ()
    if not np.isfinite(measured.probabilities).all():
        return (Failure("accuracy", "finite outputs", "NaN or infinity"),)
    found = accuracy(measured.probabilities, measured.labels)
    snr_db = signal_to_noise_db(measured.float_probabilities, measured.probabilities)
    same = agreement(measured.float_probabilities, measured.probabilities)
    metrics |= {"accuracy": found, "held_out_samples": float(len(measured.labels)), "snr_db": snr_db, "agreement": same}
    failures = []
    # A drop of exactly the budget is allowed; 1e-9 is for the subtraction.
    if metrics["float_accuracy"] - found > max_drop + 1e-9:
        expected = f"at most {max_drop * 100:g} points below the float accuracy {metrics['float_accuracy']:.4f}"
        failures.append(Failure("accuracy", expected, f"{found:.4f}"))
    if snr_db < recipe.minimum_snr_db or same < recipe.minimum_agreement:
        expected = f"at least {recipe.minimum_snr_db:g} dB and {recipe.minimum_agreement:.1%} equal classes"
        # A budget that was kept is not overruled in silence.
        kept = "" if failures else f" (the accuracy, {found:.4f}, is within its budget)"
        failures.append(Failure("parity", expected, f"{snr_db:.1f} dB and {same:.1%}{kept}"))
    # Not > the tolerance: NaN fails, too.
    if not measured.replay_difference <= measured.replay_tolerance:
        expected = f"the golden samples again, within {measured.replay_tolerance:g}"
        failures.append(Failure("golden", expected, f"a difference of {measured.replay_difference}"))
    return tuple(failures)


def together(failures: tuple[Failure, ...], oracle: Oracle | None) -> tuple[Failure, ...]:
    """Return all failures; where the runtime itself says what is wrong, that stands for what a table says of it."""
    if oracle is None or oracle.failure is None:
        return failures
    return (*(failure for failure in failures if failure.check != oracle.failure.check), oracle.failure)


def verify_train_graph(kind: str, difference: float) -> None:
    """Judge one train graph.

    Args:
        kind: Its format, for the message.
        difference: Largest relative difference from one step in torch.

    Raises:
        VerificationError: It is above :data:`TRAIN_TOLERANCE`, or NaN.
    """
    if not difference <= TRAIN_TOLERANCE:
        expected = f"one step within {TRAIN_TOLERANCE:g} of torch's"
        raise VerificationError(f"the {kind} train graph", "train graph", expected, f"a difference of {difference:g}")
