"""The gate: measurements of an artifact in, metrics and check states out, or an error that names the failed check.

Quantizers fail silently: recipes that quantize nothing, int8 files bigger than float, calibrators that destroy the
model. Nothing here converts or runs a model; a check that could not be run is recorded ``not run``, never ``passed``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hedgerow.compile.errors import Failure, VerificationError
from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.inspection.model import model_facts
from hedgerow.compile.recipe import Recipe
from hedgerow.compile.scoring import all_finite, mean_score, signal_to_noise_db, why_unscored
from hedgerow.compile.toolchains import MICRO
from hedgerow.hardware.fit import fit
from hedgerow.hardware.target import Target
from hedgerow.outputs import Outputs
from hedgerow.outputs.outputs import Arrays

__all__ = [
    "NOT_RUN",
    "OF_THE_ORACLE",
    "PASSED",
    "TRAIN_TOLERANCE",
    "Measured",
    "Oracle",
    "Verdict",
    "judge_artifact",
    "judge_file",
    "of_outputs",
    "together",
    "verify_artifact",
    "verify_train_graph",
]

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
TRAIN_TOLERANCE = 1e-5
"""Largest difference of any weight or the loss after one step from torch's, relative to the tensor's largest number."""
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
        outputs: What the model's outputs are for, with what was measured of the float model.
        wanted: Target values of the held-out data, as far as they are known.
        float_answers: The float model's answers to it.
        answers: The artifact's; None where this host cannot run or evaluate the file.
        replay_difference: Largest difference between two runs of the golden samples, the second sample by sample in a
            fresh session; None where this host cannot run or evaluate the file.
        replay_tolerance: What the golden samples allow.
        not_run: Why there are no *answers*; empty when there are.
        by_reference: Whether the outputs come from a reference evaluation of the file's operators, because the runtime
            that will run it does not exist on this host.
        activation_bytes: What lives at once during a prediction on the target, without weights; None: not known.
        latency_ms: Modelled time of a prediction on the target; None: not known.
        oracle: What the target's own runtime says, where *answers* are of none but it; None: another one is.
        profile_not_run: Check -> why the profile of the target knows nothing for it.
        state: Each state, with what is at its two ends in the file, in words.
        largest: Output -> the largest number that it holds in the file; nothing of floats.
    """

    size_bytes: int
    float_bytes: int
    facts: FileFacts
    outputs: Outputs
    wanted: Arrays
    float_answers: Arrays
    answers: Arrays | None
    replay_difference: float | None
    replay_tolerance: float
    not_run: str = ""
    by_reference: bool = False
    activation_bytes: int | None = None
    latency_ms: float | None = None
    oracle: Oracle | None = None
    profile_not_run: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    largest: Mapping[str, float] = field(default_factory=dict)


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


def of_outputs(outputs: Outputs) -> tuple[str, str, str]:
    """Return the checks of what a file answers; the first is called as the mean score is in metrics."""
    return (outputs.score_key, "parity", "golden")


def verify_artifact(
    target: Target, recipe: Recipe, measured: Measured, *, max_drop: float, explain: Callable[[], str] = lambda: ""
) -> Verdict:
    """Judge one artifact, and refuse it when any check failed.

    Args:
        target: What must run it.
        recipe: What it promises.
        measured: What was found.
        max_drop: Largest allowed loss of the mean score on held-out data, as a share (0.015: 1.5 points).
        explain: Called where the outputs are too far from the float model's; gives what is known of why, or nothing.

    Raises:
        VerificationError: A check failed; the error names all that did.
    """
    verdict = judge_artifact(target, recipe, measured, max_drop=max_drop)
    if verdict.failures:
        first, *more = verdict.failures
        is_far = any(failure.check in of_outputs(measured.outputs)[:2] for failure in verdict.failures)
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
    }
    asked = of_outputs(measured.outputs)
    if (score := mean_score(measured.outputs, measured.float_answers, measured.wanted)) is not None:
        metrics[f"float_{asked[0]}"] = score
    outputs = _judge_outputs(recipe, measured, metrics, max_drop)
    failures = together((*promises, *misfits, *outputs), measured.oracle)
    checks = dict.fromkeys((*promised, *fitting), PASSED)
    known = measured.answers is not None and measured.replay_difference is not None
    not_run = {} if known else dict.fromkeys(asked, measured.not_run or "this machine cannot run the file")
    if known and score is None:
        not_run[asked[0]] = why_unscored(measured.outputs)
    not_run |= measured.profile_not_run
    if measured.oracle is not None:
        checks["oracle"] = PASSED if measured.oracle.failure is None else FAILED
        not_run |= dict.fromkeys(OF_THE_ORACLE, measured.oracle.not_run) if measured.oracle.not_run else {}
    if measured.by_reference:
        instead = "; its operators were evaluated one by one instead" if known else ""
        not_run["runs on device"] = f"the runtime {target.runtime} does not exist for this machine{instead}"
    checks |= dict.fromkeys(asked, PASSED) | dict.fromkeys(not_run, NOT_RUN)
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
    answers, floats, outputs = measured.answers, measured.float_answers, measured.outputs
    if answers is None or measured.replay_difference is None:
        return ()
    key, name = outputs.score_key, outputs.score_name
    if not all_finite(answers):
        return (Failure(key, "finite outputs", "NaN or infinity"),)
    failures = []
    found = mean_score(outputs, answers, measured.wanted)
    if found is not None:
        metrics |= {key: found, "held_out_samples": float(outputs.known(measured.wanted).sum())}
        # A drop of exactly the budget is allowed; 1e-9 is for the subtraction.
        if metrics[f"float_{key}"] - found > max_drop + 1e-9:
            expected = f"at most {max_drop * 100:g} points below the float {name} {metrics[f'float_{key}']:.4f}"
            failures.append(Failure(key, expected, f"{found:.4f}"))
    # A budget that was kept is not overruled in silence.
    kept = "" if failures or found is None else f" (the {name}, {found:.4f}, is within its budget)"
    metrics |= _nearness(outputs, _within(outputs, floats, measured.largest), answers)
    failures += _far_outputs(recipe, outputs, metrics, kept)
    # Not > the tolerance: NaN fails, too.
    if not measured.replay_difference <= measured.replay_tolerance:
        expected = f"the golden samples again, within {measured.replay_tolerance:g}"
        failures.append(Failure("golden", expected, f"a difference of {measured.replay_difference}"))
    return tuple(failures)


def _within(outputs: Outputs, floats: Arrays, largest: Mapping[str, float]) -> Arrays:
    """Return answers as a file can give them: where the largest number may stand for a larger one, it does."""
    return {
        name: np.minimum(floats[name], largest[name]) if output.saturates and name in largest else floats[name]
        for name, output in outputs.items()
    }


def _nearness(outputs: Outputs, floats: Arrays, answers: Arrays) -> dict[str, float]:
    """Return how near answers are to the float model's: of all together, and with several outputs of each."""
    snr_db = {name: signal_to_noise_db(floats[name], answers[name]) for name in outputs}
    found = {
        "snr_db": min(snr_db.values()),
        "agreement": float(outputs.agreement(floats, answers).mean()),
    }
    for name, output in outputs.items() if len(outputs) > 1 else ():
        found[f"snr_db.{name}"] = snr_db[name]
        found[f"agreement.{name}"] = float(output.agreement(floats[name], answers[name]).mean())
    return found


def _far_outputs(recipe: Recipe, outputs: Outputs, metrics: Mapping[str, float], kept: str) -> list[Failure]:
    """Return what is wrong with outputs that are farther from the float model's than the recipe promises."""
    found, expected = [], []
    for name, output in outputs.items():
        of, where = (f".{name}", f"{name}: ") if len(outputs) > 1 else ("", "")
        snr_db, same = metrics[f"snr_db{of}"], metrics[f"agreement{of}"]
        if snr_db < recipe.minimum_snr_db or same < recipe.minimum_agreement:
            promised = f"{recipe.minimum_snr_db:g} dB and {recipe.minimum_agreement:.1%}"
            expected.append(f"{where}at least {promised} {output.agreement_name}")
            found.append(f"{where}{snr_db:.1f} dB and {same:.1%}")
    return [Failure("parity", "; ".join(expected), f"{'; '.join(found)}{kept}")] if found else []


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
