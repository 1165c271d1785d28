"""What a learning-rate range test (Smith 2017) says: a suggestion, and the curve for a terminal and for a browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]
"""A rate, and the loss of the step that was made at it."""

KEPT = 0.9
"""What the running mean of the losses keeps at each step; its start is corrected, as Adam's."""
LEAST_FALL = 0.02
"""Share of the first loss by which it must fall, or nothing can be said."""
MARGIN = 10.0
"""Where the loss is lowest the rate is about to be too high."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """`rate`: a tenth of the one at the lowest loss; `steepest`: where the loss falls fastest."""

    rate: float
    steepest: float
    lowest: float


def smoothed(points: Sequence[Point]) -> list[Point]:
    """The losses as a running mean."""
    found, mean = [], 0.0
    for n, (rate, loss) in enumerate(points, 1):
        mean = KEPT * mean + (1 - KEPT) * loss
        found.append((rate, mean / (1 - KEPT**n)))
    return found


def suggestion(points: Sequence[Point]) -> Suggestion | None:
    """None where the loss does not fall at any rate."""
    curve = smoothed(points)
    if len(curve) < 3:
        return None
    best = min(range(len(curve)), key=lambda i: curve[i][1])
    if best < 2 or curve[0][1] - curve[best][1] < LEAST_FALL * abs(curve[0][1]):
        return None

    def slope(i: int) -> float:
        (before, high), (after, low) = curve[i - 1], curve[i + 1]
        return (low - high) / math.log(after / before)

    steepest = min(range(1, best), key=slope)
    return Suggestion(curve[best][0] / MARGIN, curve[steepest][0], curve[best][0])


def text_plot(points: Sequence[Point], found: Suggestion | None, *, width: int = 72, height: int = 12) -> str:
    """The running mean over the logarithm of the rate; a column of | where the suggestion is."""
    curve = smoothed(points)
    left, right, low, high = _bounds(curve)
    grid = [[" "] * width for _ in range(height)]

    def column(rate: float) -> int:
        return min(width - 1, max(0, round((math.log(rate) - left) / (right - left) * (width - 1))))

    if found is not None:
        for row in grid:
            row[column(found.rate)] = "|"
    for rate, loss in curve:
        up = min(1.0, (loss - low) / (high - low))
        grid[round((1 - up) * (height - 1))][column(rate)] = "*"
    edge = {0: f"{high:9.4g} ", height - 1: f"{low:9.4g} "}
    lines = [edge.get(n, " " * 10) + "".join(row).rstrip() for n, row in enumerate(grid)]
    ends = f"{math.exp(left):.1e}", f"{math.exp(right):.1e}"
    return "\n".join([*lines, " " * 10 + ends[0] + " " * (width - len("".join(ends))) + ends[1]])


def page(title: str, points: Sequence[Point], found: Suggestion | None, said: Sequence[str]) -> str:
    """The same as a page of its own, with each step's loss."""
    curve = smoothed(points)
    left, right, low, high = _bounds(curve)
    low = min(low, *(loss for _, loss in points))

    def place(rate: float, loss: float) -> str:
        x = 60 + (math.log(rate) - left) / (right - left) * 640
        return f"{x:.1f},{340 - (min(loss, high) - low) / (high - low) * 320:.1f}"

    dots = "".join('<circle cx="{}" cy="{}" r="2" fill="#999"/>'.format(*place(*p).split(",")) for p in points)
    line = " ".join(place(*p) for p in curve)
    decades = range(math.ceil(left / math.log(10)), math.floor(right / math.log(10)) + 1)
    ticks = "".join(f'<text x="{place(10.0**n, low).split(",")[0]}" y="362">1e{n}</text>' for n in decades)
    mark = ""
    if found is not None:
        x = place(found.rate, low).split(",")[0]
        mark = f'<line x1="{x}" x2="{x}" y1="20" y2="340" stroke="#c33" stroke-dasharray="4"/>'
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<body style="font: 15px system-ui; max-width: 46rem; margin: 2rem auto">'
        f'<h1 style="font-size: 1.3rem">{escape(title)}</h1>'
        + "".join(f"<p>{escape(sentence)}</p>" for sentence in said)
        + '<svg viewBox="0 0 720 390" role="img" aria-label="loss over the learning rate" font-size="12"'
        ' text-anchor="middle">'
        f'<path d="M60 20V340H700" fill="none" stroke="#999"/>{ticks}{dots}{mark}'
        f'<polyline points="{line}" fill="none" stroke="#26c" stroke-width="2"/>'
        f'<text x="52" y="26" text-anchor="end">{high:.3g}</text>'
        f'<text x="52" y="344" text-anchor="end">{low:.3g}</text>'
        '<text x="380" y="384">learning rate</text><text x="64" y="14" text-anchor="start">loss</text>'
        "</svg></body></html>\n"
    )


def _bounds(curve: Sequence[Point]) -> tuple[float, float, float, float]:
    """Logarithms of the first and the last rate, and the losses to show: what runs away at the end is cut."""
    losses = [loss for _, loss in curve]
    low = min(losses)
    high = max(min(max(losses), losses[0] + (losses[0] - low)), losses[0])
    left, right = math.log(curve[0][0]), math.log(curve[-1][0])
    return left, max(right, left + 1e-9), low, high if high > low else low + 1.0
