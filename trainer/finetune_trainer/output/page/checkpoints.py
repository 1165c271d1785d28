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
        rows.append(
            (
                f"{c.step:,}",
                where,
                escape(metrics),
                f'<code title="{escape(c.digest)}">{escape(c.digest[:12])}…</code>',
                size(c.bytes),
            )
        )
    return (
        "<h2>Checkpoints</h2><div"
        f' class="card">{table(("step", "where", "metrics", "SHA-256", "size"), rows, words=4)}</div>'
        if rows
        else ""
    )
