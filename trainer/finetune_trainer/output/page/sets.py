"""How the model does on further sets of rows, the worst of them marked."""

from __future__ import annotations

from html import escape

from finetune_trainer.output.judged import score_table
from finetune_trainer.output.page.tables import table
from finetune_trainer.output.result import Result


def sets(result: Result) -> str:
    if not result.sets:
        return ""
    head, lines = score_table(result.with_sets, result.metric, result.judged_on)
    rows = [
        tuple(f"<strong>{cell}</strong>" if cells[0] == result.worst_set else cell for cell in map(escape, cells))
        for cells in lines
    ]
    words = f'<p class="muted">{escape(result.words_of_sets)}</p>'
    return f'<h2>Further sets</h2><div class="card">{table(head, rows)}{words}</div>'
