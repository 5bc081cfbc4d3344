import pytest
from benchmarks.front import Row, ours_on_front

NAMED = {"onnx": "x", "tflite": "x"}


def row(tool: str, kind: str, size_bytes: int, accuracy: float) -> Row:
    return Row(tool=tool, format=kind, bytes=size_bytes, accuracy=accuracy, latency_ms=1.0)


@pytest.mark.parametrize(
    ("size_bytes", "accuracy", "expected"),
    [
        (90, 0.8, True),  # smaller, less accurate
        (110, 0.95, True),  # larger, more accurate
        (100, 0.9, True),  # equal to the other: neither beats the other
        (110, 0.9, False),
        (100, 0.89, False),
    ],
)
def test_a_row_is_on_the_front_unless_another_is_as_good_in_both_and_better_in_one(size_bytes, accuracy, expected):
    rows = [row("other", "onnx", 100, 0.9), row("hedgerow x", "onnx", size_bytes, accuracy)]
    assert ours_on_front(rows, NAMED)["onnx"] is expected


def test_formats_are_compared_apart():
    rows = [
        row("other", "onnx", 100, 0.9),
        row("hedgerow a", "onnx", 200, 0.8),
        row("hedgerow b", "onnx", 90, 0.9),
        row("other", "tflite", 50, 0.99),
        row("hedgerow a", "tflite", 60, 0.98),
    ]
    assert ours_on_front(rows, {"onnx": "b", "tflite": "a"}) == {"onnx": True, "tflite": False}


def test_a_format_without_rows_of_ours_is_not_on_the_front():
    assert ours_on_front([], NAMED) == {"onnx": False, "tflite": False}


def test_a_recipe_that_was_not_named_neither_stands_in_for_ours_nor_beats_it():
    rows = [row("other", "onnx", 100, 0.9), row("hedgerow x", "onnx", 110, 0.9), row("hedgerow y", "onnx", 90, 0.9)]
    assert ours_on_front(rows, {"onnx": "x", "tflite": "x"})["onnx"] is False
    assert ours_on_front(rows, {"onnx": "y", "tflite": "x"})["onnx"] is True
    assert ours_on_front(rows[1:], {"onnx": "x", "tflite": "x"})["onnx"] is True
