"""The data that the model learned from, and what was found in it."""

from __future__ import annotations

from html import escape

from finetune_trainer.output.page.numbers import size
from finetune_trainer.output.page.tables import fact_table, table
from finetune_trainer.output.result import Result


def data(result: Result) -> str:
    data, source = result.report.data, result.config.data
    facts: list[tuple[str, str]] = [("train", source.train.uri)]
    if source.train.per_class is not None:
        facts.append(("rows of each class", f"{source.train.per_class:,}, drawn by seed {source.train.seed or 0}"))
    for name, held in (("validation", source.validation), ("test", source.test)):
        if held is not None:
            facts.append((name, held.uri or f"{held.fraction:.3g} of the training rows"))
    facts += [(f"set {each.name}", each.uri) for each in result.config.evaluation.sets or ()]
    if data is not None:
        facts += [
            ("rows to learn from", f"{data.train_rows:,}"),
            ("validation rows", f"{data.validation_rows:,}"),
            ("test rows", f"{data.test_rows:,}"),
        ]
        facts += [("rows left out", f"{data.bad_rows:,}"), ("objects", f"{data.objects:,} ({size(data.bytes)})")]
        if data.tokens_per_epoch:
            facts.append(("tokens an epoch (estimated)", f"{data.tokens_per_epoch:,}"))
        if data.lengths:
            spread = f"median {data.lengths.p50}, 95 % at most {data.lengths.p95}, longest {data.lengths.max}"
            facts.append(("tokens a row", f"{spread}; {data.lengths.truncated_fraction:.2%} cut"))
        if data.label_count:
            facts.append(("classes", f"{data.label_count}: {', '.join(data.labels or ())}"))
        if data.manifest_digest:
            facts.append(("data manifest (SHA-256)", data.manifest_digest))
    found = data.findings if data else ()
    rows = [(escape(f.kind), escape(f.message), _place(f.file, f.line), f"{f.count:,}") for f in found]
    findings = (
        table(("finding", "what", "first seen", "rows"), rows, words=3)
        if rows
        else '<p class="muted">Nothing out of the ordinary was found.</p>'
    )
    return (
        f'<h2>Data</h2><section class="pair"><div class="card">{fact_table(facts)}</div><div'
        f' class="card"><h3>Findings</h3>{findings}</div></section>'
    )


def _place(file: str | None, line: int | None) -> str:
    return escape(f"{file or ''}{f':{line}' if line else ''}").replace("/", "/<wbr>")
