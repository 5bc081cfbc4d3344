import itertools
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.compile.pareto_plot import Axis, Point, draw_plot


def point(**changes) -> Point:
    fields = {
        "label": "pi",
        "about": "pi: 1,000 bytes",
        "size_bytes": 1000.0,
        "score": 0.9,
        "latency_ms": 2.0,
        "kind": "chosen",
        "front": False,
    }
    return Point(**(fields | changes))


def drawn(points, float_accuracy=0.91, allowed_accuracy=0.895):
    text = draw_plot("All artifacts", points, float_accuracy, allowed_accuracy)
    return ET.fromstring(text)  # noqa: S314 - our own text


def circles(root):
    return [
        (float(c.get("cx")), float(c.get("cy")), float(c.get("r")), c.get("class"), c.find("title").text)
        for c in root.iter("circle")
    ]


def test_more_bytes_lie_further_right_and_more_accuracy_higher():
    small, large = point(about="small"), point(about="large", size_bytes=4000.0, score=0.95)
    found = {about: (left, top) for left, top, _radius, _kind, about in circles(drawn([small, large]))}
    assert found["small"][0] < found["large"][0]
    assert found["small"][1] > found["large"][1]


def test_the_area_of_a_point_is_its_share_of_the_slowest_one():
    slow, fast = point(about="slow", latency_ms=8.0), point(about="fast", latency_ms=4.0, size_bytes=2000.0)
    unknown = point(about="unknown", latency_ms=None)
    radii = {about: radius for _x, _y, radius, _kind, about in circles(drawn([slow, fast, unknown]))}
    # Coordinates are written with one decimal.
    assert radii["slow"] ** 2 / radii["fast"] ** 2 == pytest.approx(2.0, rel=0.05)
    assert radii["unknown"] == 4.0


def test_the_front_is_a_line_through_its_points_from_small_to_large():
    points = [
        point(size_bytes=3000.0, score=0.95, front=True, kind="passed"),
        point(size_bytes=1000.0, score=0.90, front=True),
        point(size_bytes=2000.0, score=0.88, kind="refused"),
    ]
    root = drawn(points)
    (line,) = root.iter("polyline")
    found = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
    placed = [(left, top) for left, top, _radius, kind, _about in circles(root) if kind != "refused"]
    assert found == sorted(placed)


def test_float_and_least_allowed_accuracy_are_lines_within_the_plot():
    root = drawn([point(score=0.5)], float_accuracy=0.99, allowed_accuracy=0.975)
    lines = {path.get("class"): path.get("d") for path in root.iter("path") if path.get("class").startswith("level")}
    heights = {name: float(re.search(r",([\d.]+)H", line)[1]) for name, line in lines.items()}
    assert 0 < heights["level float"] < heights["level least"] < 250


def test_names_are_escaped():
    text = draw_plot("a <b>", [point(label="<i>", about='"&')], 0.9, 0.9)
    assert "<b>" not in text
    assert "<i>" not in text
    ET.fromstring(text)  # noqa: S314 - our own text


def test_labels_lie_on_neither_points_nor_each_other():
    names = [f"target-number-{n}" for n in range(5)]
    root = drawn([point(label=name, about=name) for name in names])
    boxes = [
        (float(t.get("x")), float(t.get("x")) + 5.6 * len(t.text), float(t.get("y")))
        for t in root.iter("text")
        if t.get("class") == "label"
    ]
    tops = sorted(top for _left, _right, top in boxes)
    assert len(boxes) == 5
    assert min(b - a for a, b in itertools.pairwise(tops)) >= 10.9


@given(
    sizes=st.lists(st.floats(1, 1e9), min_size=1, max_size=12),
    accuracies=st.lists(st.floats(0, 1), min_size=12, max_size=12),
    latencies=st.lists(st.one_of(st.none(), st.floats(0, 1e5)), min_size=12, max_size=12),
    float_accuracy=st.floats(0, 1),
)
def test_every_point_lies_within_the_frame(sizes, accuracies, latencies, float_accuracy):
    points = [
        point(size_bytes=size, score=accuracy, latency_ms=latency)
        for size, accuracy, latency in zip(sizes, accuracies, latencies, strict=False)
    ]
    root = drawn(points, float_accuracy, max(0.0, float_accuracy - 0.015))
    for left, top, _radius, _kind, _about in circles(root):
        assert 52 <= left <= 346
        assert 12 <= top <= 210


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e9))
def test_ticks_are_few_round_and_inside(low, width):
    axis = Axis(low, low + width, 0.0, 100.0)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 6
    assert all(axis.low - width * 1e-6 <= tick <= axis.high + width * 1e-6 for tick in ticks)
