"""Which recipe to try next for a target, and when to stop. Pure: trials in, a recipe or nothing out.

The order learns from what is known already, also from other targets of the same format: one recipe makes the same
file for all of them, so its size is known exactly, its operations are known, and a file that lost too much accuracy
for one target has lost it for all of the same runtime. A recipe that cannot beat the best one any more is not tried.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hedgerow.compile.profile.model import COST_DIGITS
from hedgerow.compile.recipe import Recipe
from hedgerow.compile.recipes import find_recipe
from hedgerow.compile.scoring import score_in
from hedgerow.hardware.cost import Workload, estimate_cost
from hedgerow.hardware.target import Target

__all__ = [
    "PREFERENCES",
    "UNMODELLED_PREFERENCE",
    "Contest",
    "TriedRecipe",
    "best_trial",
    "next_recipe",
    "pareto_front",
    "refused_elsewhere",
]

PREFERENCES = ("size", "latency", "energy")
UNMODELLED_PREFERENCE = "size"
"""What is looked for instead where a target's latency and energy are not known."""
PASSED, REFUSED, SKIPPED = "passed", "refused", "skipped"
_OBJECTIVES = {"size": "bytes", "latency": "target_latency_ms", "energy": "target_energy_mj"}
_OF_THE_FILE = frozenset({"pass", "quantized", "size", "task", "weights"})
"""Checks whose refusal does not depend on the target."""
_OF_ITS_OUTPUTS = frozenset({"accuracy", "golden", "parity", "score"})
"""Checks whose refusal depends on the runtime alone."""
_OF_SMALL_MODELS = frozenset({"size", "task"})
"""What refuses a default recipe when a model is too small for it: nothing to quantize, or no byte saved."""
_OF_EVERY_RECIPE = frozenset({"disk", "internal", "time", "weights"})
"""Checks whose refusal no other recipe helps against."""
_MOST_DEATHS = 2
"""After so many processes that ended without an answer it is no longer the recipe."""
_BITS_OF_INTEGERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedRecipe:
    """One recipe tried for one target.

    Attributes:
        target, recipe: Names.
        runtime: Of the target.
        state: ``passed``; ``refused`` by a check or a failed pass; ``skipped``: refused without making it again.
        check: What refused it; empty when it passed.
        reason: The sentence of the refusal.
        step: The pass that failed, where one did.
        metrics: Of an artifact that passed, see :class:`hedgerow.manifest.artifact.Artifact`; of a refused one what was
            measured before a check refused it.
    """

    target: str
    recipe: str
    state: str
    check: str = ""
    reason: str = ""
    step: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    runtime: str = ""

    def to_record(self) -> dict[str, object]:
        """Return this as plain JSON values."""
        return {
            "target": self.target,
            "recipe": self.recipe,
            "state": self.state,
            "check": self.check,
            "reason": self.reason,
            "step": self.step,
            "metrics": dict(sorted(self.metrics.items())),
        }


@dataclass(frozen=True, slots=True)
class Contest:
    """What is looked for.

    Attributes:
        target: What must run it.
        candidates: Recipes that may be tried, in order of preference; the first one is tried first when nothing is
            known.
        prefer: ``size``, ``latency`` or ``energy``; None: the first candidate that passes.
    """

    target: Target
    candidates: tuple[str, ...]
    prefer: str | None = None


def best_trial(contest: Contest, trials: Sequence[TriedRecipe]) -> TriedRecipe | None:
    """Return the trial that wins so far: least objective, then best score, then smallest, then first in order."""
    order = {recipe: place for place, recipe in enumerate(contest.candidates)}
    passed = [trial for trial in _own(contest, trials) if trial.state == PASSED]
    return min(
        passed,
        key=lambda trial: (
            _objective(contest, trial.metrics),
            -(score_in(trial.metrics) or 0.0),
            trial.metrics.get("bytes", math.inf),
            order[trial.recipe],
        ),
        default=None,
    )


def next_recipe(contest: Contest, trials: Sequence[TriedRecipe]) -> str | None:
    """Return the recipe to try next, or None when nothing left can win.

    Which artifact wins in the end does not depend on the order: only what cannot win is left out.

    Args:
        contest: What is looked for.
        trials: Everything known, of this target and of others.
    """
    best = best_trial(contest, trials)
    tried = {trial.recipe for trial in _own(contest, trials)}
    left = [recipe for recipe in contest.candidates if recipe not in tried]
    own = _own(contest, trials)
    deaths = sum(trial.check == "process" for trial in own)
    if deaths >= _MOST_DEATHS or any(trial.check in _OF_EVERY_RECIPE for trial in own):
        return None
    left = [recipe for recipe in left if not _fails_again(recipe, own)]
    if contest.prefer is None:
        return _next_default(left, own) if best is None else None
    # One that can do no better than as well may still be more accurate.
    limit = _objective(contest, best.metrics) if best is not None else math.inf
    left = [recipe for recipe in left if _lower_bound(contest, recipe, trials) <= limit]
    if not any(trial.state == PASSED for trial in trials):
        return left[0] if left else None
    # The most promising first: it is what lets the others be left out. Equal promises go by the order of preference.
    return min(left, key=lambda recipe: _expected(contest, recipe, trials), default=None)


def _next_default(left: Sequence[str], own: Sequence[TriedRecipe]) -> str | None:
    """Return the recipe to try where those before it were refused; one that trains a model takes too long for that."""
    tried = bool(own)
    too_small = any(trial.check in _OF_SMALL_MODELS for trial in own)
    for name in left:
        recipe = find_recipe(name)
        if not tried or (not recipe.model_passes and not (too_small and recipe.smaller_than_float)):
            return name
    return None


def _fails_again(recipe: str, own: Sequence[TriedRecipe]) -> bool:
    """Say whether a recipe needs an export that failed already."""
    failed = {trial.step for trial in own if trial.step}
    if not failed:
        return False
    about = find_recipe(recipe)
    return not failed.isdisjoint((about.passes[0].name, about.float_passes[0].name))


def refused_elsewhere(contest: Contest, recipe: str, trials: Sequence[TriedRecipe]) -> TriedRecipe | None:
    """Return *recipe* as a skipped trial when its file was refused for another target and so is here; or None."""
    name, runtime = contest.target.name, contest.target.runtime
    for trial in trials:
        if trial.recipe != recipe or trial.target == name or trial.state != REFUSED:
            continue
        if trial.check in _OF_THE_FILE or (trial.check in _OF_ITS_OUTPUTS and trial.runtime == runtime):
            return TriedRecipe(
                target=name,
                recipe=recipe,
                state=SKIPPED,
                check=trial.check,
                reason=f"its file was refused for {trial.target}: {trial.reason}",
                runtime=runtime,
            )
    return None


def pareto_front(trials: Sequence[TriedRecipe], objective: str = "bytes") -> tuple[TriedRecipe, ...]:
    """Return the passed trials of one target that no other beats in both *objective* and score, smallest first."""
    passed = [trial for trial in trials if trial.state == PASSED and objective in trial.metrics]
    front = [
        trial
        for trial in passed
        if not any(_dominates(other.metrics, trial.metrics, objective) for other in passed if other is not trial)
    ]
    return tuple(sorted(front, key=lambda trial: (trial.metrics[objective], trial.recipe)))


def _dominates(one: Mapping[str, float], other: Mapping[str, float], objective: str) -> bool:
    here = (one[objective], -(score_in(one) or 0.0))
    there = (other[objective], -(score_in(other) or 0.0))
    return here != there and here[0] <= there[0] and here[1] <= there[1]


def _own(contest: Contest, trials: Sequence[TriedRecipe]) -> list[TriedRecipe]:
    return [trial for trial in trials if trial.target == contest.target.name and trial.recipe in contest.candidates]


def _objective(contest: Contest, metrics: Mapping[str, float]) -> float:
    return metrics.get(_OBJECTIVES[contest.prefer or "size"], math.inf)


def _same_file(recipe: str, trials: Sequence[TriedRecipe]) -> Mapping[str, float] | None:
    return next((trial.metrics for trial in trials if trial.recipe == recipe and trial.state == PASSED), None)


def _parameters(contest: Contest, trials: Sequence[TriedRecipe]) -> Mapping[str, float] | None:
    """Return the metrics of a trial that kept the model as it was, for its numbers of weights and operations."""
    return next(
        (
            trial.metrics
            for trial in trials
            if trial.state == PASSED
            and not find_recipe(trial.recipe).model_passes
            and find_recipe(trial.recipe).format == contest.target.format
        ),
        None,
    )


def _lower_bound(contest: Contest, recipe: str, trials: Sequence[TriedRecipe]) -> float:
    """Return a value that this recipe's objective cannot be below; 0 when nothing is known."""
    known = _same_file(recipe, trials)
    if known is not None:
        return _of_file(contest, recipe, known)
    about = find_recipe(recipe)
    model = _parameters(contest, trials)
    if about.model_passes or model is None:
        return 0.0
    weights_bytes = model.get("parameters", 0.0) * about.weight_bits / 8
    if contest.prefer in {None, "size"}:
        return weights_bytes
    # No activation moved: the real artifact is slower.
    return _cost(contest, about, model.get("macs", 0.0), weights_bytes)


def _of_file(contest: Contest, recipe: str, known: Mapping[str, float]) -> float:
    """Return the objective of a file that another target has already, or less."""
    if contest.prefer in {None, "size"}:
        return known.get("bytes", 0.0)
    return _cost(contest, find_recipe(recipe), known.get("macs", 0.0), known.get("moved_bytes", 0.0))


def _cost(contest: Contest, recipe: Recipe, macs: float, moved_bytes: float) -> float:
    """Return the least latency or energy of a prediction, with the fastest numbers that the recipe's weights allow."""
    rates = contest.target.cost.macs_per_s
    wide = recipe.weight_bits > _BITS_OF_INTEGERS
    kinds = [kind for kind in sorted(rates) if not wide or kind.startswith("float")] or sorted(rates)
    fastest = max(kinds, key=lambda kind: rates[kind])
    cost = estimate_cost(contest.target, Workload(macs=int(macs), moved_bytes=int(moved_bytes), number_type=fastest))
    # Rounded as an artifact's metrics are: an equal one must not look worse.
    return round(cost.latency_ms if contest.prefer == "latency" else cost.energy_mj, COST_DIGITS)


def _expected(contest: Contest, recipe: str, trials: Sequence[TriedRecipe]) -> tuple[float, int]:
    """Return what to sort by: the bound; a recipe that changes the model is slow to make and waits for the others."""
    known = _same_file(recipe, trials)
    about = find_recipe(recipe)
    model = _parameters(contest, trials)
    parameters = model.get("parameters", 0.0) if model else 0.0
    place = contest.candidates.index(recipe)
    if known is not None:
        return _of_file(contest, recipe, known), place
    if about.model_passes:
        return parameters * about.weight_bits / 8 if contest.prefer == "size" else math.inf, place
    return _lower_bound(contest, recipe, trials), place
