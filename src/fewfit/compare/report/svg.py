"""Plots as SVG text: no library, no script; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from fewfit.compare.report.styles import MARKS, Style
from fewfit.compare.schema import Bin

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 44

_BOX = (LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)

_SHAPES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "triangle": ((0, -1.2), (1.1, 0.9), (-1.1, 0.9)),
    "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    "down": ((0, 1.2), (1.1, -0.9), (-1.1, -0.9)),
    "flat": ((-1.4, -0.5), (1.4, -0.5), (1.4, 0.5), (-1.4, 0.5)),
    "tall": ((-0.5, -1.4), (0.5, -1.4), (0.5, 1.4), (-0.5, 1.4)),
    "left": ((-1.2, 0), (0.9, -1.1), (0.9, 1.1)),
}


class Point(NamedTuple):
    """A point of a line, with the interval of y."""

    x: float
    y: float
    low: float
    high: float


def line_plot(
    series: Mapping[str, Sequence[Point]],
    styles: Mapping[str, Style],
    *,
    x_label: str,
    y_label: str,
    title: str,
) -> str:
    """Return y against x, x on a logarithmic scale, one line in its own style per series."""
    points = [point for line in series.values() for point in line]
    xs = sorted({point.x for point in points})
    low, high = math.log10(min(xs)), math.log10(max(xs))
    pad = 0.06 * (high - low) or 0.5
    low, high = low - pad, high + pad
    bottom = math.floor(20 * min(point.low for point in points)) / 20
    top = min(1.0, math.ceil(20 * max(point.high for point in points)) / 20)
    top = max(top, bottom + 0.05)

    def px(x: float) -> float:
        return LEFT + (math.log10(x) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def py(y: float) -> float:
        return TOP + (top - y) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    ticks = xs if len(xs) <= 6 and _apart([px(x) for x in xs]) else _decades(low, high)
    body = [_axes(px, py, ticks, _steps(bottom, top), x_label, y_label)]
    for i, (name, line) in enumerate(series.items()):
        style = styles[name]
        body.append(f'<g class="s{style.colour}">')
        path = " ".join(f"{px(p.x):.1f},{py(p.y):.1f}" for p in line)
        body.append(f'<polyline class="line" points="{path}"/>')
        for p in line:
            x = px(p.x) + 1.5 * (i - len(series) / 2)
            body.append(
                f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{py(p.low):.1f}" '
                f'y2="{py(p.high):.1f}"/>'
            )
            body.append(mark(style, px(p.x), py(p.y)))
        body.append("</g>")
    return _figure(body, title)


def reliability_plot(bins: Sequence[Bin], *, title: str, style: Style) -> str:
    """Return accuracy against confidence, the area of a point growing with its predictions."""
    left, top, size = 52.0, 12.0, 168.0
    total = sum(item.n for item in bins)

    def px(x: float) -> float:
        return left + x * size

    def py(y: float) -> float:
        return top + (1 - y) * size

    body = [
        _axes(px, py, [0, 0.5, 1], [0, 0.5, 1], "confidence", "accuracy", (left, top, size, size)),
        f'<line class="ideal" x1="{px(0)}" y1="{py(0)}" x2="{px(1)}" y2="{py(1)}"/>',
        f'<g class="s{style.colour}">',
    ]
    path = " ".join(f"{px(b.confidence):.1f},{py(b.accuracy):.1f}" for b in bins)
    body.append(f'<polyline class="line" points="{path}"/>')
    for b in bins:
        radius = 2 + 9 * math.sqrt(b.n / total)
        body.append(
            f'<circle class="blob" cx="{px(b.confidence):.1f}" cy="{py(b.accuracy):.1f}" '
            f'r="{radius:.1f}"><title>{b.n} predictions</title></circle>'
        )
    return _figure([*body, "</g>"], title, left + size + 12, top + size + 44)


def mark(style: Style, x: float, y: float) -> str:
    """Return the mark of a series, so that lines differ by more than colour."""
    kind, r = MARKS[style.mark], 4.0
    if kind == "circle":
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
    corners = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in _SHAPES[kind])
    return f'<polygon class="mark" points="{corners}"/>'


def swatch(style: Style) -> str:
    """Return a line with its mark, for a legend."""
    return (
        f'<svg class="swatch s{style.colour}" width="28" height="12" viewBox="0 0 28 12" '
        f'aria-hidden="true"><line class="line" x1="1" x2="27" y1="6" y2="6"/>'
        f"{mark(style, 14, 6)}</svg>"
    )


def _figure(body: Sequence[str], title: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def _axes(
    px: Callable[[float], float],
    py: Callable[[float], float],
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    y_label: str,
    box: tuple[float, float, float, float] = _BOX,
) -> str:
    left, top, width, height = box
    bottom, right = top + height, left + width
    parts = []
    for y in y_ticks:
        at = f"{py(y):.1f}"
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at}" y2="{at}"/>')
        parts.append(
            f'<text x="{left - 6}" y="{py(y) + 4:.1f}" text-anchor="end">{_number(y)}</text>'
        )
    for x in x_ticks:
        at = f"{px(x):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{at}" y="{bottom + 16}" text-anchor="middle">{_number(x)}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(
        f'<text x="{(left + right) / 2}" y="{bottom + 34}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    middle = (top + bottom) / 2
    parts.append(
        f'<text transform="translate({left - 38},{middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    return "".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _steps(bottom: float, top: float) -> list[float]:
    span = top - bottom
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if span / s <= 7)
    first = math.ceil(round(bottom / step, 6))
    return [i * step for i in range(first, math.floor(round(top / step, 6)) + 1)]


def _decades(low: float, high: float) -> list[float]:
    every = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    within = [x for x in every if low <= math.log10(x) <= high]
    whole = [x for x in within if round(math.log10(x), 6).is_integer()]
    return whole if len(within) > 7 and len(whole) > 1 else within


def _apart(positions: Sequence[float]) -> bool:
    return all(b - a > 26 for a, b in pairwise(positions))
