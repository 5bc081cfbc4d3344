"""Quantize a float file from elsewhere by the file passes of recipes, and judge the result as our own artifacts are."""

import contextlib
import time
from collections.abc import Callable, Sequence

from hedgerow.compile.arena import installed_version
from hedgerow.compile.bench import HOST_RUNTIMES, Bench
from hedgerow.compile.budget import Budget
from hedgerow.compile.edgetpu import compiled_for
from hedgerow.compile.errors import (
    Failure,
    ForeignFileError,
    RecipeMismatchError,
    RuntimeRefusedError,
    TimeLimitError,
    UnsuitableError,
    VerificationError,
)
from hedgerow.compile.evaluation import evaluate_parts
from hedgerow.compile.golden import NO_TOLERANCES, replay_tolerances
from hedgerow.compile.judgement import FileScores, Judged, left_out
from hedgerow.compile.messages import Unit
from hedgerow.compile.model_file import ModelFile
from hedgerow.compile.profile.model import NO_ARENA, profile_model
from hedgerow.compile.recipe import Recipe, finishing, plain_export
from hedgerow.compile.recipes import find_recipe
from hedgerow.compile.refused import refused_trial
from hedgerow.compile.scoring import all_finite, chosen, largest_held
from hedgerow.compile.search import PASSED, TriedRecipe
from hedgerow.compile.toolchains import MICRO, NO_MCU
from hedgerow.compile.verify import OF_THE_ORACLE, Measured, Oracle, of_outputs, verify_artifact
from hedgerow.errors import HedgerowError
from hedgerow.hardware.target import Target

__all__ = ["Requantizer"]

_REFUSED = "the target's own runtime does not run the file"
_HOPELESS = frozenset({"format", "weights"})
"""Checks that no file pass helps against."""


class Requantizer:
    """Makes files of a float file by recipes, each once for all targets.

    Args:
        model: The float file.
        bench: Runs it.
        own: What it gives itself on this machine.
        budget: What a quantized file may lose.
        stack: Closes the files.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        model: ModelFile,
        bench: Bench,
        own: FileScores,
        budget: Budget,
        stack: contextlib.ExitStack,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._bench, self._own, self._budget = model, bench, own, budget
        self._stack, self._clock = stack, clock
        self._made: dict[str, Bench | HedgerowError] = {}

    def instead(self, target: Target, refused: HedgerowError, trials: list[TriedRecipe]) -> Judged:
        """Return the artifact of the target's first recipe that passes, where the file as it is does not.

        Raises:
            HedgerowError: *refused*, where the file is not to be quantized or no recipe passes.
        """
        if isinstance(refused, VerificationError) and refused.check in _HOPELESS:
            raise refused
        if target.format != self._model.format or not self._is_float or self._own.answers is None:
            raise refused
        # Nothing can be compared with what is no number.
        if not all_finite(self._own.answers):
            raise refused
        candidates = [name for name in target.recipes if self._is_suitable(find_recipe(name))]
        if not candidates:
            raise refused
        unit = Unit("artifact", target.name, "third-party")
        trials.append(refused_trial(unit, target.runtime, refused))
        try:
            return self.judge(target, candidates, trials)
        except HedgerowError:
            raise refused from None

    def judge(self, target: Target, candidates: Sequence[str], trials: list[TriedRecipe]) -> Judged:
        """Return the artifact of the first of *candidates* that passes.

        Raises:
            CompileError: None does: the refusal of the first one.
        """
        begun, first = self._clock(), None
        for name in candidates:
            recipe = find_recipe(name)
            try:
                if self._clock() - begun > self._budget.limit_s:
                    raise TimeLimitError(f"compile {target.name}", self._budget.limit_s, candidates[0])
                judged = self._judge(target, recipe)
            except HedgerowError as exc:
                trials.append(refused_trial(Unit("artifact", target.name, name), target.runtime, exc))
                first = first or exc
                if isinstance(exc, TimeLimitError):
                    break
            else:
                metrics = {**judged.metrics, "bytes": float(len(judged.content)), **judged.profile.metrics()}
                trials.append(
                    TriedRecipe(target=target.name, recipe=name, state=PASSED, metrics=metrics, runtime=target.runtime)
                )
                return judged
        if first is None:
            raise ValueError("expected at least one recipe")
        raise first

    @property
    def _is_float(self) -> bool:
        return bool(self._model.facts.float_weights) and not self._model.facts.quantized_weights and not self._is_half

    @property
    def _is_half(self) -> bool:
        """Whether weights are float16 in a format whose quantizer takes float32 alone."""
        bits = self._model.facts.weights_bytes_by_bits
        return self._model.format == "onnx" and bits.get(16, 0) > bits.get(32, 0)

    def _is_suitable(self, recipe: Recipe) -> bool:
        """Say whether a recipe quantizes files of this format by file passes alone."""
        kind = self._model.format
        return (
            recipe.format == kind
            and not recipe.model_passes
            and recipe.passes[0] == plain_export(kind)
            and len(recipe.passes) > 1 + len(finishing(kind))
        )

    def _judge(self, target: Target, recipe: Recipe) -> Judged:
        if recipe.format != target.format:
            raise RecipeMismatchError(target.name, target.format, recipe.name, recipe.format)
        if recipe.format != self._model.format:
            expected = f"a file in the format {recipe.format}"
            raise VerificationError(target.name, "format", expected, self._model.format)
        if recipe.model_passes or recipe.passes[0] != plain_export(recipe.format):
            step = (*recipe.model_passes, *recipe.passes)[0].name
            advice = "choose a recipe that exports plainly and then works on files"
            raise UnsuitableError(step, "a torch model", "a file from elsewhere", advice)
        if self._own.answers is None or self._own.answering is None or self._bench.samples is None:
            raise UnsuitableError(
                recipe.name,
                "samples to calibrate with and to measure on",
                self._own.why,
                "give samples of the file's inputs, with labels",
            )
        if not self._is_float:
            found = f"{self._model.facts.quantized_weights} numbers in integers"
            found = "most of them in float16" if self._is_half else found
            expected = "a file whose weights are float32" if self._is_half else "a file whose weights are floats"
            raise UnsuitableError(recipe.name, expected, found, "give the float file")
        return self._verified(target, self._budget.applied_to(recipe), self._bench_of(recipe))

    def _bench_of(self, recipe: Recipe) -> Bench:
        """Return the file that a recipe makes, to be run."""
        if recipe.name not in self._made:
            try:
                self._made[recipe.name] = self._convert(recipe)
            except HedgerowError as exc:
                self._made[recipe.name] = exc
        made = self._made[recipe.name]
        if isinstance(made, HedgerowError):
            raise made
        return made

    def _convert(self, recipe: Recipe) -> Bench:
        model, bench = self._model, self._bench
        foreign, border = bench.foreign.converted(
            recipe,
            model.schema,
            model.border,
            bench.calibration(HOST_RUNTIMES[model.format]),
            timeout_s=self._budget.limit_s,
        )
        self._stack.enter_context(foreign)
        shapes = {tensor.tensor: tuple(max(1, size) for size in tensor.shape) for tensor in border[0]}
        facts = foreign.facts(shapes if any(-1 in tensor.shape for tensor in border[0]) else None)
        return Bench(foreign, border, facts, bench.golden, bench.samples, bench.state)

    def _verified(self, target: Target, recipe: Recipe, made: Bench) -> Judged:
        own, samples, answering, floats = self._own, made.samples, self._own.answering, self._own.answers
        if samples is None or answering is None or floats is None:
            raise ValueError("a file that was not measured cannot be compared with")
        scored = samples.held_out.take(samples.scored)
        arena, replay, answers, oracle, not_run = None, None, None, None, ""
        try:
            if target.runtime == MICRO and installed_version() is None:
                oracle, not_run = Oracle(not_run=NO_MCU), NO_MCU
            else:
                arena = made.arena() if target.runtime == MICRO else None
                arena_bytes = arena.bytes if arena is not None else 0
                replay = made.replay(target.runtime, arena_bytes)
                given = made.held_out(target.runtime, arena_bytes).outputs
                answers = chosen(answering.answers(given), samples.scored)
                oracle = Oracle() if target.runtime == MICRO else None
        except RuntimeRefusedError as exc:
            if target.runtime != MICRO:
                raise VerificationError(target.name, "golden", exc.expected, exc.found) from exc
            oracle, not_run = Oracle(failure=exc.failure()), _REFUSED
        except ForeignFileError as exc:
            if target.runtime != MICRO:
                raise
            failure = Failure("oracle", f"{exc.runtime} to live through {exc.step} the file", exc.found)
            oracle, not_run = Oracle(failure=failure), _REFUSED
        profile = profile_model(made.facts, target, arena or not_run or NO_ARENA)
        known = replay_tolerances(own.outputs, floats, answers) if answers is not None else NO_TOLERANCES
        content = made.foreign.content
        measured = Measured(
            size_bytes=len(content),
            float_bytes=len(self._model.content),
            facts=made.facts,
            outputs=own.outputs,
            wanted=own.wanted,
            float_answers=floats,
            answers=answers,
            replay_difference=replay.difference if replay is not None else None,
            replay_tolerance=known.least,
            not_run=not_run,
            activation_bytes=profile.peak_memory_bytes,
            latency_ms=profile.target_latency_ms,
            oracle=oracle,
            profile_not_run=profile.not_run,
            largest=largest_held(made.border[1]),
        )
        verdict = verify_artifact(target, recipe, measured, max_drop=self._budget.max_drop)
        content, mapped = compiled_for(target, content)
        ran = (*of_outputs(own.outputs), *(OF_THE_ORACLE if oracle is not None else ()))
        ran += ("memory",) if arena is not None else ()
        absent = {**verdict.not_run, **left_out(self._model)}
        return Judged(
            target=target,
            content=content,
            border=made.border,
            profile=profile,
            checks={**verdict.checks, **mapped, **dict.fromkeys(left_out(self._model), "not run")},
            not_run=absent,
            executed_by=dict.fromkeys(ran, replay.executed_by) if replay is not None else {},
            golden=made.golden_file(replay) if replay is not None else None,
            tolerance=known.largest,
            tolerances=known.unlike,
            arena=arena,
            metrics=verdict.metrics,
            latency=replay.latency if replay is not None else None,
            evaluation=(
                evaluate_parts(own.outputs, answers, own.wanted, scored, samples.subgroup)
                if answers is not None
                else None
            ),
            recipe=recipe.name,
            steps=tuple(str(step) for step in recipe.passes[1:]),
        )
