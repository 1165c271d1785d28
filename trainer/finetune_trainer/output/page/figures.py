"""Tables of figures that a task has beside its metrics."""

from __future__ import annotations

from html import escape

from finetune_trainer.output.page.tables import shorten, table
from finetune_trainer.output.result import Result

MOST_ROWS = 60


def figures(result: Result) -> str:
    parts = []
    for found in result.tables:
        shown = [tuple(escape(shorten(cell, 80)) for cell in row) for row in found.rows[:MOST_ROWS]]
        left = len(found.rows) - len(shown)
        more = f'<p class="muted">{left:,} more are in metrics.json.</p>' if left else ""
        head = tuple(escape(name) for name in found.head)
        parts.append(
            f'<h2>{escape(found.title)}, on the {result.judged_on} rows</h2><div class="card">{table(head, shown)}'
            f"{more}</div>"
        )
    return "".join(parts)
