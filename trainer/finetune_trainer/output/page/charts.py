"""Curves as inline SVG: axes, ticks and labels; colours come from the page's variables, so dark and light both read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate

from finetune_trainer.output.page.numbers import number

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 38
MOST_POINTS = 400
TONES = 6
"""Colours that the page has for curves."""

XY = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """(step, value) in order; `tone` 1 to TONES picks the colour, `dots` draws each point, `faint` is background."""

    name: str
    points: Sequence[XY]
    tone: int = 1
    dots: bool = False
    faint: bool = False
    dashed: bool = False

    @property
    def style(self) -> str:
        """Its classes on the page."""
        return " ".join((f"tone{self.tone}", *["faint"] * self.faint, *["dashed"] * self.dashed))


def chart(title: str, curves: Sequence[Curve], *, mark: tuple[float, float, str] | None = None) -> str:
    """A figure with these curves over the steps; `mark` is (step, value, text) of a point to point out.

    Empty without points.
    """
    curves = [c for c in curves if c.points]
    if not curves:
        return ""
    solid = [c for c in curves if not c.faint] or curves
    xs = [x for c in curves for x, _ in c.points]
    ys = sorted(y for c in curves for _, y in c.points)
    low, high = ys[0], ys[-1]
    if any(c.faint for c in curves) and len(ys) > 20:  # a few wild steps must not flatten the curve
        shown = [y for c in solid for _, y in c.points]
        low, high = min(ys[len(ys) // 50], *shown), max(ys[-1 - len(ys) // 50], *shown)
    left, right = min(xs), max(xs)
    x_ticks, y_ticks = ticks(left, right, 6, whole=True), ticks(low, high, 5)
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    across, up = (right - left) or 1.0, (high - low) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        clamped = min(max(y, low), high)
        return LEFT + (x - left) / across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - (clamped - low) / up * (
            HEIGHT - TOP - BOTTOM
        )

    parts = [f'<figure class="chart"><figcaption>{escape(title)}{_legend(curves)}</figcaption>']
    parts.append(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">')
    for y in y_ticks:
        _, py = place(left, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{py + 4:.1f}" text-anchor="end">{number(y)}</text>')
    for x in x_ticks:
        px, _ = place(x, low)
        parts.append(
            f'<text class="tick" x="{px:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{number(x)}</text>'
        )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">step</text>')
    for curve in curves:
        points = [place(x, y) for x, y in thin(curve.points, MOST_POINTS)]
        if len(points) > 1:
            parts.append(
                f'<polyline class="curve {curve.style}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
            )
        if curve.dots or len(points) == 1:
            for (x, y), (px, py) in zip(thin(curve.points, MOST_POINTS), points, strict=True):
                parts.append(
                    f'<circle class="dot tone{curve.tone}" cx="{px:.1f}" cy="{py:.1f}" r="3"><title>step {x:g}:'
                    f" {number(y)}</title></circle>"
                )
    if mark:
        px, py = place(mark[0], mark[1])
        anchor = "end" if px > WIDTH * 0.7 else "start" if px < WIDTH * 0.3 else "middle"
        below = py < TOP + 26
        parts.append(f'<circle class="mark" cx="{px:.1f}" cy="{py:.1f}" r="6.5"/>')
        parts.append(
            f'<text class="marked" x="{px:.1f}" y="{py + (22 if below else -13):.1f}"'
            f' text-anchor="{anchor}">{escape(mark[2])}</text>'
        )
    return "".join(parts) + "</svg></figure>"


def _legend(curves: Sequence[Curve]) -> str:
    if len([c for c in curves if not c.faint]) < 2 and not any(c.faint for c in curves):
        return ""
    keys = "".join(f'<span class="key"><i class="{c.style}"></i>{escape(c.name)}</span>' for c in curves)
    return f'<span class="legend">{keys}</span>'


def thin(points: Sequence[XY], most: int) -> list[XY]:
    """At most `most` points, and two at the ends: the lowest and the highest of each bucket, so no spike is lost."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most // 2))
    kept: list[XY] = []
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        ends = {
            min(range(len(bucket)), key=lambda i: bucket[i][1]),
            max(range(len(bucket)), key=lambda i: bucket[i][1]),
        }
        kept += [bucket[i] for i in sorted(ends)]
    return [points[0], *kept[1:-1], points[-1]]


def smooth(points: Sequence[XY], share: float = 0.05) -> list[XY]:
    """The mean over a window of `share` of the points around each, narrower at the ends: no lag, no invented start."""
    reach = max(1, int(len(points) * share / 2))
    sums = list(accumulate((y for _, y in points), initial=0.0))
    found = []
    for i, (x, _) in enumerate(points):
        near = min(reach, i, len(points) - 1 - i)
        found.append((x, (sums[i + near + 1] - sums[i - near]) / (2 * near + 1)))
    return found


def ticks(low: float, high: float, wanted: int, whole: bool = False) -> list[float]:
    """Round numbers that cover [low, high] (whole: within it, and integers)."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        return [low] if whole else [low - pad, low, low + pad]
    rough = (high - low) / wanted
    scale = 10 ** math.floor(math.log10(rough))
    step = next(m * scale for m in (1, 2, 2.5, 5, 10) if m * scale >= rough * 0.999)
    if whole:
        step = max(1.0, float(math.ceil(step)))
        return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)] or [low]
    return [i * step for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]
