"""The result beside what it is compared with, beside the rows that it learned from, and what both show."""

from __future__ import annotations

from html import escape

from finetune_trainer.output.judged import score_table
from finetune_trainer.output.page.tables import table
from finetune_trainer.output.result import Result


def compared(result: Result) -> str:
    beside = (
        (f"On the same {result.judged_on} rows", result.compared),
        ("Learned and held out", result.learned_and_held_out),
    )
    parts = []
    for title, lines in beside:
        if lines:
            head, cells = score_table(lines, result.metric)
            rows = [tuple(map(escape, row)) for row in cells]
            parts.append(f"<h3>{title}</h3>{table(head, rows)}")
    told = "".join(f"<li>{escape(verdict.message)}</li>" for verdict in result.verdicts)
    words = f"<ul>{told}</ul>" if told else ""
    card = f'<div class="card">{"<br>".join(parts)}</div>' if parts else ""
    return f"<h2>What it is worth</h2>{words}{card}" if card or told else ""
