"""How good the model is at each class, and what it takes for what."""

from __future__ import annotations

from html import escape

from finetune_trainer.output.page.tables import shorten, table
from finetune_trainer.output.result import Result, class_table

MOST_CLASSES, MOST_CONFUSION = 60, 12


def classes(result: Result) -> str:
    title, one, counted = map(escape, result.class_words)
    cards = []
    if result.classes:
        shown = result.classes[:MOST_CLASSES]
        head, cells = class_table(shown, one, counted)
        rows = [(escape(shorten(label, 80)), *figures) for label, *figures in cells]
        more = (
            f'<p class="muted">{len(result.classes) - len(shown):,} more {title.lower()} are in metrics.json.</p>'
            if len(result.classes) > len(shown)
            else ""
        )
        cards.append(f'<div class="card"><h3>Per {one}</h3>{table(head, rows)}{more}</div>')
    if result.confusion:
        cards.append(_confusion(result) if len(result.labels) <= MOST_CONFUSION else _mistakes(result))
    return (
        f'<h2>{title}, on the {result.judged_on} rows</h2><section class="pair">{"".join(cards)}</section>'
        if cards
        else ""
    )


def _confusion(result: Result) -> str:
    assert result.confusion is not None
    head = "".join(f'<th title="{escape(label)}">{escape(shorten(label, 24))}</th>' for label in result.labels)
    body = ""
    for label, row in zip(result.labels, result.confusion, strict=True):
        total = sum(row) or 1
        cells = "".join(f'<td style="background: rgba(var(--heat), {0.62 * n / total:.3f})">{n:,}</td>' for n in row)
        body += f'<tr><th class="side" title="{escape(label)}">{escape(shorten(label, 24))}</th>{cells}</tr>'
    title = "<h3>Confusion: true class by row, predicted class by column</h3>"
    return f'<div class="card">{title}<table class="confusion"><tr><th></th>{head}</tr>{body}</table></div>'


def _mistakes(result: Result) -> str:
    assert result.confusion is not None
    found = [(n, i, j) for i, row in enumerate(result.confusion) for j, n in enumerate(row) if i != j and n]
    rows = [
        (escape(shorten(result.labels[i], 60)), escape(shorten(result.labels[j], 60)), f"{n:,}")
        for n, i, j in sorted(found, reverse=True)[:20]
    ]
    if not rows:
        return ""
    return (
        '<div class="card"><h3>Most frequent mistakes (all are in'
        f" metrics.json)</h3>{table(('true class', 'taken for', 'rows'), rows, words=2)}</div>"
    )
