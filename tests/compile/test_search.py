from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.compile.recipes import find_recipe
from hedgerow.compile.search import Contest, TriedRecipe, best_trial, next_recipe, pareto_front, refused_elsewhere
from hedgerow.hardware.lookup import load_target

PI, PI_5 = load_target("raspberry-pi-4"), load_target("raspberry-pi-5")
RECIPES = ("onnx-int8-s8s8", "onnx-int8-s8s8-per-channel", "onnx-int4-weights", "onnx-fp16", "onnx-float")
SIZES = {
    "onnx-int8-s8s8": 100_000,
    "onnx-int8-s8s8-per-channel": 105_000,
    "onnx-int4-weights": 70_000,
    "onnx-fp16": 170_000,
    "onnx-float": 330_000,
}


def passed(recipe: str, *, target=PI, size: int | None = None, accuracy: float = 0.9) -> TriedRecipe:
    metrics = {
        "bytes": float(size or SIZES[recipe]),
        "accuracy": accuracy,
        "parameters": 80_000.0,
        "macs": 12e6,
        "moved_bytes": 300_000.0,
        "target_latency_ms": 2.2,
        "target_energy_mj": 8.0,
    }
    return TriedRecipe(target=target.name, recipe=recipe, state="passed", metrics=metrics, runtime=target.runtime)


def refused(recipe: str, check: str, *, target=PI) -> TriedRecipe:
    return TriedRecipe(
        target=target.name, recipe=recipe, state="refused", check=check, reason="because", runtime=target.runtime
    )


def run(contest: Contest, results: dict[str, TriedRecipe], known: tuple[TriedRecipe, ...] = ()) -> list[str]:
    """Return the recipes that a search tries, in order."""
    trials, tried = list(known), []
    while (recipe := next_recipe(contest, trials)) is not None:
        tried.append(recipe)
        trials.append(results[recipe])
    return tried


def test_a_contest_ends_with_its_only_candidate():
    contest = Contest(PI, RECIPES[:1])
    assert run(contest, {RECIPES[0]: refused(RECIPES[0], "accuracy")}) == [RECIPES[0]]


def test_a_model_too_small_for_the_first_candidate_gets_a_float_one():
    contest = Contest(PI, RECIPES)
    for check in ("size", "task"):
        results = {"onnx-int8-s8s8": refused("onnx-int8-s8s8", check), "onnx-float": passed("onnx-float")}
        assert run(contest, results) == ["onnx-int8-s8s8", "onnx-float"]
        assert best_trial(contest, list(results.values())) == results["onnx-float"]
    assert run(contest, {recipe: passed(recipe) for recipe in contest.candidates}) == ["onnx-int8-s8s8"]


@pytest.mark.parametrize(
    "check", ["accuracy", "parity", "quantized", "golden", "pass", "memory", "operators", "process"]
)
def test_a_refused_candidate_is_followed_by_the_next_one_that_passes(check):
    contest = Contest(PI, RECIPES)
    results = {recipe: passed(recipe) for recipe in RECIPES} | {"onnx-int8-s8s8": refused("onnx-int8-s8s8", check)}
    assert run(contest, results) == ["onnx-int8-s8s8", "onnx-int8-s8s8-per-channel"]


@pytest.mark.parametrize("check", ["disk", "internal", "time", "weights"])
@pytest.mark.parametrize("prefer", [None, "size"])
def test_what_no_recipe_helps_against_ends_the_search(check, prefer):
    contest = Contest(PI, RECIPES, prefer)
    assert run(contest, {"onnx-int8-s8s8": refused("onnx-int8-s8s8", check)}) == ["onnx-int8-s8s8"]


def test_two_processes_that_died_are_enough():
    contest = Contest(PI, RECIPES)
    results = {recipe: refused(recipe, "process") for recipe in RECIPES}
    assert run(contest, results) == list(RECIPES[:2])


@pytest.mark.parametrize("prefer", [None, "size"])
def test_recipes_that_need_an_export_that_failed_are_not_tried(prefer):
    contest = Contest(PI, ("onnx-int8-s8s8", "onnx-int8-inc", "onnx-float"), prefer)
    failed = TriedRecipe(
        target=PI.name, recipe="onnx-int8-s8s8", state="refused", check="pass", reason="because", step="export-onnx"
    )
    assert run(contest, {"onnx-int8-s8s8": failed}) == ["onnx-int8-s8s8"]
    # The float file of the second one is written by the export that failed; its own first step is another.
    assert find_recipe("onnx-int8-inc").passes[0].name == "quantize-inc-static"
    quantizer = replace(failed, step="quantize-onnx-static")
    others = {recipe: passed(recipe, size=100_000) for recipe in contest.candidates[1:]}
    assert run(contest, {"onnx-int8-s8s8": quantizer, **others})[:2] == ["onnx-int8-s8s8", "onnx-int8-inc"]


def test_recipes_that_train_another_model_are_tried_where_they_come_first_or_were_asked_for():
    training = "onnx-pruned-int8"
    contest = Contest(PI, ("onnx-int8-s8s8", training, "onnx-float"))
    results = {recipe: passed(recipe, size=100_000) for recipe in contest.candidates}
    results |= {"onnx-int8-s8s8": refused("onnx-int8-s8s8", "accuracy")}
    assert run(contest, results) == ["onnx-int8-s8s8", "onnx-float"]
    assert training in run(replace(contest, prefer="size"), results)
    assert run(Contest(PI, (training,)), results) == [training]


def test_the_smallest_is_found_without_trying_what_cannot_be_smaller():
    contest = Contest(PI, RECIPES, "size")
    results = {recipe: passed(recipe) for recipe in RECIPES}
    tried = run(contest, results)
    assert tried[0] == RECIPES[0]
    # 80,000 parameters are at least 80,000 bytes in int8 and 40,000 in int4.
    assert tried == ["onnx-int8-s8s8", "onnx-int4-weights"]
    assert best_trial(contest, list(results.values())) == results["onnx-int4-weights"]


def test_a_refused_favourite_lets_the_next_ones_be_tried():
    contest = Contest(PI, RECIPES, "size")
    results = {recipe: passed(recipe) for recipe in RECIPES} | {
        "onnx-int4-weights": refused("onnx-int4-weights", "accuracy")
    }
    assert run(contest, results) == ["onnx-int8-s8s8", "onnx-int4-weights", "onnx-int8-s8s8-per-channel"]


def test_sizes_known_from_another_target_change_the_order_and_end_the_search():
    contest = Contest(PI_5, RECIPES, "size")
    known = tuple(passed(recipe) for recipe in RECIPES)
    assert run(contest, {r: passed(r, target=PI_5) for r in RECIPES}, known) == ["onnx-int4-weights"]


def test_a_file_that_lost_its_accuracy_elsewhere_is_known_to_have_lost_it_here():
    contest = Contest(PI_5, RECIPES, "size")
    skipped = refused_elsewhere(contest, "onnx-int4-weights", [refused("onnx-int4-weights", "accuracy")])
    assert (skipped.state, skipped.target) == ("skipped", "raspberry-pi-5")
    assert "raspberry-pi-4: because" in skipped.reason
    assert refused_elsewhere(contest, "onnx-int4-weights", [refused("onnx-int4-weights", "storage")]) is None
    assert refused_elsewhere(Contest(PI, RECIPES), "onnx-fp16", [refused("onnx-fp16", "accuracy")]) is None


@pytest.mark.parametrize("check", ["accuracy", "parity", "golden"])
def test_what_one_runtime_made_of_a_file_says_nothing_of_another(check):
    contest = Contest(load_target("cortex-m7"), ("tflite-int8-full",), "size")
    [npu, core] = [
        refused("tflite-int8-full", check, target=load_target(name)) for name in ("android-npu", "cortex-m4")
    ]
    assert refused_elsewhere(contest, "tflite-int8-full", [npu]) is None
    assert (
        refused_elsewhere(contest, "tflite-int8-full", [npu, core]).reason
        == "its file was refused for cortex-m4: because"
    )
    of_the_file = refused("tflite-int8-full", "quantized", target=load_target("android-npu"))
    assert refused_elsewhere(contest, "tflite-int8-full", [of_the_file]).check == "quantized"


def test_equal_objectives_are_decided_by_accuracy():
    contest = Contest(PI, RECIPES[:2], "latency")
    trials = [passed(RECIPES[0], accuracy=0.9), passed(RECIPES[1], accuracy=0.91)]
    assert best_trial(contest, trials) == trials[1]
    assert run(contest, dict(zip(RECIPES[:2], trials, strict=True))) == list(RECIPES[:2])


def test_floats_are_not_tried_where_integers_are_faster():
    contest = Contest(PI, RECIPES, "latency")
    results = {recipe: passed(recipe) for recipe in RECIPES}
    assert {"onnx-fp16", "onnx-float"}.isdisjoint(run(contest, results))


def test_equal_objectives_and_accuracies_are_decided_by_size():
    contest = Contest(PI, RECIPES[:3], "latency")
    trials = [passed(recipe) for recipe in RECIPES[:3]]
    assert best_trial(contest, trials).recipe == "onnx-int4-weights"


def test_the_front_holds_what_no_other_beats():
    trials = [
        passed("onnx-int8-s8s8", accuracy=0.9),
        passed("onnx-fp16", accuracy=0.9),
        passed("onnx-float", accuracy=0.95),
    ]
    trials.append(refused("onnx-int4-weights", "accuracy"))
    assert [trial.recipe for trial in pareto_front(trials)] == ["onnx-int8-s8s8", "onnx-float"]


@pytest.mark.parametrize("prefer", ["size", "latency", "energy"])
@given(
    sizes=st.lists(st.integers(40_000, 400_000), min_size=5, max_size=5),
    states=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_stopping_early_never_loses_the_smallest(prefer, sizes, states):
    """Sizes below what the weights alone take are no files, so they are raised to it."""
    least = {
        "onnx-int8-s8s8": 80_000,
        "onnx-int8-s8s8-per-channel": 80_000,
        "onnx-fp16": 160_000,
        "onnx-float": 320_000,
    }
    results = {
        recipe: passed(recipe, size=max(size, least.get(recipe, 40_000))) if good else refused(recipe, "parity")
        for recipe, size, good in zip(RECIPES, sizes, states, strict=True)
    }
    contest = Contest(PI, RECIPES, prefer)
    tried = [results[recipe] for recipe in run(contest, results)]
    best, everything = best_trial(contest, tried), best_trial(contest, list(results.values()))
    assert (best is None) == (everything is None)
    if best is not None and prefer == "size":
        assert best.metrics["bytes"] == everything.metrics["bytes"]
