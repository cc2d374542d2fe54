"""The picture of the latency distributions: a hand-made SVG, readable on light and dark pages."""

import math
from collections.abc import Sequence
from html import escape
from typing import Final

WIDTH, HEIGHT = 900, 520
LEFT, RIGHT, TOP, BOTTOM = 70, 210, 60, 70
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#a6761d", "#6a3d9a")
"""Okabe and Ito's first, which stay apart for every kind of eye; they can be read on white and on black."""
PERCENTS: Final = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)
NINES: Final = 4
"""The height of the picture: each step up leaves a tenth of the answers that came later, so that the tail is not a line."""
Line = tuple[str, Sequence[tuple[float, int]]]
"""A name, and (upper end in ms, count) of each bucket."""


def draw(lines: Sequence[Line], title: str) -> str:
    """Return an SVG: for each line, which part of the answers had come after so many milliseconds."""
    shown = [(name, buckets) for name, buckets in lines if buckets]
    low, high = _decades(shown)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title"',
        ' font-family="system-ui, sans-serif" font-size="13" fill="#808080">',
        f'<title id="title">{escape(title)}</title>',
        f'<text x="{LEFT}" y="30" font-size="18">{escape(title)}</text>',
        *_grid(low, high),
    ]
    for at, (name, buckets) in enumerate(shown):
        parts += _curve(name, buckets, at, low, high)
    return "\n".join([*parts, "</svg>", ""])


def _curve(name: str, buckets: Sequence[tuple[float, int]], at: int, low: int, high: int) -> list[str]:
    total, seen, points = sum(count for _, count in buckets), 0, [(buckets[0][0] / 1.12, 0.0)]
    for upper, count in buckets:
        seen += count
        points.append((upper, seen / total * 100))
    path = " ".join(f"{_x(upper, low, high):.1f},{_y(percent):.1f}" for upper, percent in points)
    colour, dash = COLOURS[at % len(COLOURS)], "" if at < len(COLOURS) else ' stroke-dasharray="6 4"'
    y = TOP + 16 + at * 22
    x = WIDTH - RIGHT + 20
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>',
        f'<line x1="{x}" y1="{y - 4}" x2="{x + 24}" y2="{y - 4}" stroke="{colour}" stroke-width="3"{dash}/>',
        f'<text x="{x + 32}" y="{y}">{escape(name)}</text>',
    ]


def _grid(low: int, high: int) -> list[str]:
    parts = []
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for percent in PERCENTS:
        y = _y(percent)
        parts.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#808080" stroke-opacity="0.25"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{percent:g} %</text>')
    for decade in range(low, high + 1):
        for step in range(1, 10 if decade < high else 2):
            x = _x(10**decade * step, low, high)
            strong = 0.5 if step == 1 else 0.15
            parts.append(
                f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#808080" stroke-opacity="{strong}"/>'
            )
        parts.append(
            f'<text x="{_x(10**decade, low, high):.1f}" y="{bottom + 20}" text-anchor="middle">{10**decade:g}</text>'
        )
    middle = (LEFT + right) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 22}" text-anchor="middle">latency of one payment, ms (logarithmic)</text>'
    )
    parts.append(
        f'<text x="20" y="{(TOP + bottom) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 20 {(TOP + bottom) / 2})">answered within that time</text>'
    )
    return parts


def _decades(lines: Sequence[Line]) -> tuple[int, int]:
    """Return the powers of ten that hold every line; where there are none, one decade."""
    uppers = [upper for _, buckets in lines for upper, _ in buckets]
    if not uppers:
        return 0, 1
    low = math.floor(math.log10(min(uppers) / 1.12))
    return low, max(low + 1, math.ceil(math.log10(max(uppers))))


def _x(upper: float, low: int, high: int) -> float:
    part = (math.log10(upper) - low) / (high - low)
    return LEFT + min(1.0, max(0.0, part)) * (WIDTH - RIGHT - LEFT)


def _y(percent: float) -> float:
    nines = min(NINES, -math.log10(max(1 - percent / 100, 10**-NINES)))
    return HEIGHT - BOTTOM - nines / NINES * (HEIGHT - BOTTOM - TOP)
