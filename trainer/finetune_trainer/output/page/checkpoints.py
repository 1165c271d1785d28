"""The checkpoints that are kept."""

from __future__ import annotations

from html import escape

from finetune_trainer.output.page.numbers import figure, size
from finetune_trainer.output.page.tables import table
from finetune_trainer.output.result import Result


def checkpoints(result: Result) -> str:
    rows = []
    for c in result.report.checkpoints:
        metrics = ", ".join(f"{k} {figure(v)}" for k, v in (c.metrics or {}).items())
        where = f"<code>{escape(c.uri)}</code>{' <strong>best</strong>' if c.best else ''}"
        digest = f'<code title="{escape(c.digest)}">{escape(c.digest[:12])}…</code>'
        rows.append((f"{c.step:,}", where, escape(metrics), digest, size(c.bytes)))
    if not rows:
        return ""
    listed = table(("step", "where", "metrics", "SHA-256", "size"), rows, words=4)
    return f'<h2>Checkpoints</h2><div class="card">{listed}</div>'
