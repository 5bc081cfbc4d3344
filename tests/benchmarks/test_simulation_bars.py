import pytest
from benchmarks.simulation_bars import BARS, bars, measured_row, missing_row, ratios


def row(work: str, system: str, round_ms: float, **more: object) -> dict[str, object]:
    return {"work": work, "system": system, "round_ms": round_ms, "seconds": round_ms / 1000, **more}


def test_a_row_holds_the_sum_of_the_timed_rounds_and_their_median():
    figures = {"rounds_s": [0.3, 0.1, 0.2, 1.0], "accuracy": 0.5, "startup_s": 1.23456, "engine": "workers"}

    found = measured_row("cifar10", "hedgerow", 50, figures)

    assert found["seconds"] == 1.6
    assert found["round_ms"] == 250.0
    assert found["clients_per_s"] == 125.0  # 4 rounds of 50 clients
    assert (found["accuracy"], found["rounds"], found["startup_s"], found["engine"]) == (0.5, 4, 1.235, "workers")


def test_a_row_that_was_not_run_has_the_same_columns_and_a_reason():
    found = missing_row("cifar10", "pfl", "pfl is not installed here")

    assert list(found) == ["work", "system", "seconds", "clients_per_s", "accuracy", "not_run"]
    assert found["seconds"] is None


def test_ratios_compare_medians_with_the_chosen_engine_on_the_same_device():
    rows = [
        row("lr-mnist", "hedgerow", 10),
        row("lr-mnist", "pfl", 25),
        row("cifar10", "hedgerow", 1000),
        row("cifar10", "hedgerow cuda", 10),
        row("cifar10", "pfl cuda", 50),
        row("overhead", "flower-ray", 300),
        missing_row("lr-mnist", "flower-ray", "no ray"),
    ]

    assert ratios(rows) == {"lr-mnist": {"pfl": 2.5}, "cifar10": {"pfl cuda": 5.0}}


def test_a_bar_whose_rows_are_absent_is_neither_met_nor_missed():
    found = bars([missing_row("overhead", "hedgerow", "it failed")])

    assert list(found) == list(BARS)
    assert {bar["met"] for bar in found.values()} == {None}


@pytest.mark.parametrize(("round_ms", "met"), [(3.0, True), (3.1, False)])
def test_a_bar_holds_at_its_limit(round_ms, met):
    assert bars([row("overhead", "hedgerow", round_ms)])["overhead_ms"] == {
        "value": round_ms,
        "bar": "<= 3",
        "met": met,
    }


def test_pfl_is_compared_in_its_fastest_form():
    rows = [
        row("cifar10", "hedgerow", 100),
        row("cifar10", "pfl", 90),
        row("cifar10", "pfl, 1 process", 300),
        row("cifar10", "flower-ray", 250),
    ]

    found = bars(rows)

    assert (found["cifar10_over_pfl"]["value"], found["cifar10_over_pfl"]["met"]) == (0.9, False)
    assert (found["cifar10_over_flower_ray"]["value"], found["cifar10_over_flower_ray"]["met"]) == (2.5, True)
    assert found["cuda_cifar10_over_pfl"]["value"] is None


def test_a_million_is_judged_by_start_memory_and_the_difference_to_a_thousand():
    rows = [
        row("thousand", "hedgerow", 40),
        row("million", "hedgerow", 55, grid_made_s=1.5, peak_rss_bytes=5_000_000_000),
    ]

    found = bars(rows)

    assert [found[name]["met"] for name in ("million_startup_s", "million_peak_rss_bytes", "million_slower_ms")] == [
        True,
        False,
        True,
    ]
    assert found["million_slower_ms"]["value"] == 15
