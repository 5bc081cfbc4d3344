"""Curves of a run and of a sweep are drawn in both formats, the same bytes for the same history."""

import pytest

from hedgerow.server.run_records import RoundRecord
from hedgerow.server.simulation.plots import draw_curves, draw_sweep

pytestmark = pytest.mark.heavy


def history(virtual: bool) -> list[RoundRecord]:
    return [
        RoundRecord(
            round=number, loss=1 / number if number % 2 else None, score=number / 10 if number % 2 else None,
            train_loss=2 / number, seconds=200.0, examples=3, participants=("0",),
            virtual_s=9000.0 * number if virtual else None,
        )
        for number in range(1, 6)
    ]  # fmt: skip


def test_curves_are_png_and_svg_and_the_same_for_the_same_history():
    first, second = (draw_curves(history(virtual=True), "digits", "accuracy") for _ in range(2))

    assert first == second
    assert first["png"].startswith(b"\x89PNG")
    text = first["svg"].decode()
    for label in ("digits", "round", "wall time (minutes)", "virtual time (hours)", "accuracy", "loss"):
        assert label in text


def test_without_a_device_model_there_is_no_virtual_time():
    assert b"virtual" not in draw_curves(history(virtual=False), "digits")["svg"]


def test_runs_without_rounds_are_drawn_too():
    assert draw_curves([], "digits")["png"]
    assert draw_sweep([], [])["png"]


def test_a_sweep_shows_its_best_curves_and_each_setting_with_numbers():
    images = draw_sweep(
        [(f"learning-rate={rate}", history(virtual=False)) for rate in (0.1, 0.01)],
        [("learning-rate", [0.1, 0.01], [0.9, 0.8])],
    )

    text = images["svg"].decode()
    assert "learning-rate=0.1" in text
    assert set(images) == {"png", "svg"}
