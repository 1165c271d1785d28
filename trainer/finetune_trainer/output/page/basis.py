"""What the result stands on: data and findings, settings and versions, time by cause, checkpoints."""

from __future__ import annotations

from html import escape

from finetune_trainer.output.page.parts import duration, fact_table, figure, setting, size, table
from finetune_trainer.output.result import Result

MOST_ATTEMPTS = 20
_TONES = ("var(--tone1)", "var(--tone2)", "var(--tone3)", "#8b6fd0", "#c4507a", "#a08a2c", "var(--soft)")


def data(result: Result) -> str:
    data, source = result.report.data, result.config.data
    facts: list[tuple[str, str]] = [("train", source.train.uri)]
    for name, held in (("validation", source.validation), ("test", source.test)):
        if held is not None:
            facts.append((name, held.uri or f"{held.fraction:.3g} of the training rows"))
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
            lengths = data.lengths
            facts.append(
                (
                    "tokens a row",
                    (
                        f"median {lengths.p50}, 95 % at most {lengths.p95}, longest {lengths.max};"
                        f" {lengths.truncated_fraction:.2%} cut"
                    ),
                )
            )
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


def settings(result: Result) -> str:
    training = result.config.training
    resolved = [
        (k, setting(v)) for k, v in (result.report.resolved.to_json() if result.report.resolved else {}).items()
    ]
    given = [("method", result.method.name), *((k, setting(v)) for k, v in result.method_settings.items())]
    named = ("schedule", "warmupRatio", "weightDecay", "maxGradNorm", "seed", "gradientCheckpointing")
    given += [(k, setting(v)) for k, v in training.to_json().items() if k in named]
    world = result.config.world
    given += [("processes", f"{world.workers} × {world.processes_per_worker}")]
    given += [(f"{name} version", value) for name, value in result.versions.items()]
    cards = [f'<div class="card"><h3>Values in force</h3>{fact_table(resolved)}</div>'] if resolved else []
    return (
        f'<h2>Settings</h2><section class="pair">{"".join(cards)}<div class="card"><h3>As given, and'
        f" versions</h3>{fact_table(given)}</div></section>"
    )


def time(result: Result) -> str:
    attempts = list(result.attempts) or (
        [{"number": result.config.attempt, "seconds": dict(result.report.seconds)}] if result.report.seconds else []
    )
    if not attempts:
        return ""
    causes = list(dict.fromkeys(cause for a in attempts for cause in a.get("seconds") or {}))
    tone = {cause: _TONES[i % len(_TONES)] for i, cause in enumerate(causes)}
    longest = max(sum((a.get("seconds") or {}).values()) for a in attempts) or 1.0
    cards = []
    for attempt in attempts[-MOST_ATTEMPTS:]:
        seconds = {k: v for k, v in (attempt.get("seconds") or {}).items() if v > 0}
        steps = (
            f", steps {attempt.get('fromStep') or 0:,} to {attempt['lastStep']:,}"
            if attempt.get("lastStep") is not None
            else ""
        )
        bar = "".join(
            f'<i style="width: {100 * v / longest:.2f}%; background: {tone[k]}" title="{escape(k)}"></i>'
            for k, v in seconds.items()
        )
        keys = "".join(
            f'<span><b style="background: {tone[k]}"></b>{escape(k)} {duration(v)}</span>' for k, v in seconds.items()
        )
        title = escape(f"Attempt {attempt.get('number', '?')}{steps}: {duration(sum(seconds.values()))}")
        cards.append(f'<h3>{title}</h3><div class="bar">{bar}</div><p class="spent">{keys}</p>')
    return f'<h2>Where the time went</h2><div class="card">{"".join(cards)}</div>'


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
