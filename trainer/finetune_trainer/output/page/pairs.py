"""Numbers predicted beside the true ones, as a map of how often each pair occurs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from finetune_trainer.output.page.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, ticks
from finetune_trainer.output.page.numbers import number
from finetune_trainer.output.result import Result


def pairs(result: Result) -> str:
    if result.pairs is None:
        return ""
    title = "Predicted number upward, true number to the right; on the line they are the same"
    figure = _map(result.pairs.bounds, result.pairs.counts, title)
    return f'<h2>Numbers, on the {result.judged_on} rows</h2><section class="pair">{figure}</section>'


def _map(bounds: Sequence[float], counts: Sequence[Sequence[int]], title: str) -> str:
    low, high = bounds[0], bounds[-1]
    most = max(max(row) for row in counts) or 1

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<figure class="chart"><figcaption>{title}</figcaption>']
    parts.append(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">')
    for (bottom, top), row in zip(pairwise(bounds), counts, strict=True):
        for (left, right), n in zip(pairwise(bounds), row, strict=True):
            if n:
                shade = 0.15 + 0.85 * n / most
                parts.append(
                    f'<rect x="{x(left):.1f}" y="{y(top):.1f}" width="{x(right) - x(left):.1f}"'
                    f' height="{y(bottom) - y(top):.1f}" style="fill: rgba(var(--heat), {shade:.2f})">'
                    f"<title>predicted {number(bottom)} to {number(top)}, true {number(left)} to {number(right)}:"
                    f" {n:,}</title></rect>"
                )
    for tick in (t for t in ticks(low, high, 5) if low <= t <= high):
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{number(tick)}</text>')
        below = HEIGHT - BOTTOM + 17
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{below}" text-anchor="middle">{number(tick)}</text>')
    parts.append(f'<line class="axis" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"/>')
    return "".join(parts) + "</svg></figure>"
