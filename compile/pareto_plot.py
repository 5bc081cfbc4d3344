"""Plots of what was tried, as SVG inside the report: bytes against the mean score, the area of a point its latency.

Written by hand: a compile from the cache ends in less time than a plotting library takes to import, and the page's own
colours, light and dark, reach inside.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Point", "draw_plot"]

_WIDTH, _HEIGHT = 360, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 40
_SMALLEST, _LARGEST = 4.0, 11.0
_CHARACTER = 5.6
_LINE = 11.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One artifact, or one recipe tried for a target.

    Attributes:
        label: What stands beside it; empty: nothing, as where it is one of many.
        about: What a pointer that rests on it is told.
        size_bytes: Of the file.
        score: Mean on held-out data, as a share.
        latency_ms: Of a prediction on the target, by its model; None: not known.
        kind: ``chosen``, ``passed`` or ``refused``.
        front: Whether no other of its target beats it in both bytes and score.
    """

    label: str
    about: str
    size_bytes: float
    score: float
    latency_ms: float | None
    kind: str
    front: bool


@dataclass(frozen=True, slots=True)
class Axis:
    """A span of numbers on a span of the picture.

    Attributes:
        low, high: The numbers; *low* is below *high*.
        begin, end: Where they lie.
    """

    low: float
    high: float
    begin: float
    end: float

    def place(self, value: float) -> float:
        """Return where a number lies."""
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)

    def ticks(self) -> tuple[float, ...]:
        """Return three to six round numbers within the span."""
        rough = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return tuple(step * place for place in range(first, math.floor(self.high / step + 1e-9) + 1))


def _spanned(values: Sequence[float], begin: float, end: float, *, least: float, limits: tuple[float, float]) -> Axis:
    """Return an axis around *values*, at least *least* wide and within *limits*."""
    low, high = min(values), max(values)
    margin = max((high - low) * 0.12, (least - (high - low)) / 2)
    return Axis(max(low - margin, limits[0]), min(high + margin, limits[1]), begin, end)


def draw_plot(
    title: str, points: Sequence[Point], float_score: float, allowed_score: float, *, score_name: str = "accuracy"
) -> str:
    """Return a plot as an ``svg`` element, to be written into a page that has the style sheet of the report.

    Args:
        title: What it shows, for those who cannot see it.
        points: At least one.
        float_score: Of the float model, as a share: a line.
        allowed_score: The least that passes: another.
        score_name: What people call the score.
    """
    sizes = [point.size_bytes for point in points]
    x = _spanned(sizes, _LEFT, _WIDTH - _RIGHT, least=max(sizes) * 0.2, limits=(0.0, math.inf))
    heights = [*(point.score for point in points), float_score, allowed_score]
    y = _spanned(heights, _HEIGHT - _BOTTOM, _TOP, least=0.02, limits=(0.0, 1.0))
    parts = [*_frame(x, y, score_name), *_line(y, float_score, "float"), *_line(y, allowed_score, "least allowed")]
    front = sorted((point.size_bytes, point.score) for point in points if point.front)
    if len(front) > 1:
        path = " ".join(f"{x.place(size):.1f},{y.place(score):.1f}" for size, score in front)
        parts.append(f'<polyline class="front" points="{path}"/>')
    slowest = max((point.latency_ms or 0.0 for point in points), default=0.0)
    # Large ones first: a small one stays to be seen on them.
    ordered = sorted(points, key=lambda point: (-(point.latency_ms or 0.0), point.about))
    parts += [_mark(point, x, y, slowest) for point in ordered]
    parts += _labels(ordered, x, y, slowest)
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _frame(x: Axis, y: Axis, score_name: str) -> list[str]:
    parts = [f'<path class="axis" d="M{x.begin:.1f},{y.end:.1f}V{y.begin:.1f}H{x.end:.1f}"/>']
    for value in x.ticks():
        place = x.place(value)
        parts.append(f'<path class="grid" d="M{place:.1f},{y.begin:.1f}V{y.end:.1f}"/>')
        parts.append(f'<text class="x" x="{place:.1f}" y="{y.begin + 14:.1f}">{_short(value)}</text>')
    for value in y.ticks():
        place = y.place(value)
        parts.append(f'<path class="grid" d="M{x.begin:.1f},{place:.1f}H{x.end:.1f}"/>')
        parts.append(f'<text class="y" x="{x.begin - 6:.1f}" y="{place + 3.5:.1f}">{value * 100:.4g}</text>')
    middle = (y.begin + y.end) / 2
    parts.append(f'<text class="x" x="{(x.begin + x.end) / 2:.1f}" y="{_HEIGHT - 8}">bytes</text>')
    parts.append(f'<text class="x" transform="translate(12,{middle:.1f}) rotate(-90)">{escape(score_name)}, %</text>')
    return parts


def _line(y: Axis, score: float, name: str) -> list[str]:
    place = y.place(score)
    kind = name.split(maxsplit=1)[0]
    return [
        f'<path class="level {kind}" d="M{_LEFT},{place:.1f}H{_WIDTH - _RIGHT}"/>',
        f'<text class="level" x="{_WIDTH - _RIGHT:.1f}" y="{place - 3:.1f}">{name}</text>',
    ]


def _radius(point: Point, slowest_ms: float) -> float:
    """Return a radius whose area, above the smallest, is the share of the slowest one's latency."""
    if point.latency_ms is None or slowest_ms <= 0:
        return _SMALLEST
    return max(_SMALLEST, _LARGEST * math.sqrt(point.latency_ms / slowest_ms))


def _mark(point: Point, x: Axis, y: Axis, slowest_ms: float) -> str:
    left, top = x.place(point.size_bytes), y.place(point.score)
    radius = _radius(point, slowest_ms)
    return (
        f'<circle class="{point.kind}" cx="{left:.1f}" cy="{top:.1f}" r="{radius:.1f}">'
        f"<title>{escape(point.about)}</title></circle>"
    )


def _labels(points: Sequence[Point], x: Axis, y: Axis, slowest_ms: float) -> list[str]:
    """Return each label beside its point, or on the nearest line below or above that nothing else is on."""
    taken = [
        _Box(place - radius, place + radius, y.place(point.score) - radius, y.place(point.score) + radius)
        for point in points
        for place, radius in [(x.place(point.size_bytes), _radius(point, slowest_ms))]
    ]
    parts = []
    for point in points:
        if not point.label:
            continue
        width, place, radius = len(point.label) * _CHARACTER, x.place(point.size_bytes), _radius(point, slowest_ms)
        left = place + radius + 3
        if left + width > _WIDTH - 2:
            left = max(_LEFT + 2.0, place - radius - 3 - width)
        middle = y.place(point.score)
        lines = sorted((_LINE * step for step in range(-12, 13)), key=lambda shift: (abs(shift), -shift))
        boxes = [_Box(left, left + width, middle + shift - 5, middle + shift + 5) for shift in lines]
        inside = [box for box in boxes if box.top >= _TOP and box.bottom <= _HEIGHT - _BOTTOM] or boxes[:1]
        box = next((box for box in inside if not any(box.meets(other) for other in taken)), inside[0])
        taken.append(box)
        parts.append(f'<text class="label" x="{box.left:.1f}" y="{box.top + 8.5:.1f}">{escape(point.label)}</text>')
    return parts


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: "_Box") -> bool:
        """Say whether two boxes have a place in common."""
        beside = self.right <= other.left or other.right <= self.left
        return not beside and self.top < other.bottom and other.top < self.bottom


def _short(value: float) -> str:
    """Return a number of bytes in at most five characters."""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"
