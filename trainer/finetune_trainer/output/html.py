"""report.html: one self-contained page that says how good the model is, how it got there, and on what it stands.

It fetches nothing (a Content-Security-Policy inside holds it to that) and runs no script; every text from data or
configuration is escaped. It stays below 1 MB whatever the length of the run: curves are thinned, lists are cut and say so.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from finetune_api.resolve import higher_is_better
from finetune_trainer.output.charts import Curve, chart, number, smooth
from finetune_trainer.output.result import Result, bounds, headline

MOST_CLASSES, MOST_CONFUSION, MOST_SAMPLES, MOST_TEXT, MOST_ATTEMPTS = 60, 12, 20, 3000, 20
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_TONES = ("var(--tone1)", "var(--tone2)", "var(--tone3)", "#8b6fd0", "#c4507a", "#a08a2c", "var(--soft)")


def html_report(result: Result, events: list[dict[str, Any]]) -> str:
    """The page; `events` are all events of the run."""
    style = (Path(__file__).parent / "style.css").read_text()
    body = [
        _head(result), _notes(result), _tiles(result, events), _curves(result, events), _classes(result), _samples(result), _data(result),
        _settings(result), _time(result), _checkpoints(result), _foot(result),
    ]  # fmt: skip
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>{escape(result.title)} · fine-tuning report</title>'
        f"<style>{style}</style></head>\n<body><main>\n" + "\n".join(part for part in body if part) + "\n</main></body></html>\n"
    )


# ---------------------------------------------------------------- what it is and how good


def _head(result: Result) -> str:
    how = {"full": "all weights tuned", "freeze": "head and last layers tuned", "lora": "LoRA adapter"}[result.config.method.type]
    when = datetime.fromtimestamp(result.report.time, UTC).strftime("%d %B %Y, %H:%M UTC")
    return (
        f'<h1>{escape(result.title)}</h1><p class="lead"><code>{escape(result.base)}</code>, fine-tuned for {escape(result.config.task)} ({how}). '
        f"Job <code>{escape(result.config.job.name)}</code>, finished {when}.</p>"
    )


def _notes(result: Result) -> str:
    notes = list(result.notes)
    if not result.metrics:
        notes.append("No rows were held out, so nothing here says how good the model is on new rows. Set data.validation or data.test.")
    return "".join(f'<div class="note">{escape(_cut(note, 600))}</div>' for note in notes[:12])


def _tiles(result: Result, events: list[dict[str, Any]]) -> str:
    metrics, report = result.metrics, result.report
    chosen = (report.resolved and report.resolved.metric) or (report.best and report.best.metric) or ""
    names = sorted(headline(metrics), key=lambda n: n != chosen)
    tiles = [_metric_tile(result, name, name == names[0]) for name in names[:5]]
    if report.best:
        tiles.append(_tile(f"best {report.best.metric}", _figure(report.best.value), f"step {report.best.step:,}, on the validation rows"))
    if report.progress:
        tiles.append(_tile("steps", f"{report.progress.step:,}", f"{report.progress.epoch:.3g} epochs"))
    losses = [e["loss"] for e in events if e["kind"] == "step" and e.get("loss") is not None]
    if losses:
        tiles.append(_tile("training loss", number(losses[-1]), f"from {number(losses[0])}"))
    if report.progress and report.progress.rows_per_second:
        tokens = report.progress.tokens_per_second
        tiles.append(_tile("rows a second", number(report.progress.rows_per_second), f"{tokens:,.0f} tokens a second" if tokens else ""))
    return f'<section class="tiles">{"".join(tiles)}</section>'


def _metric_tile(result: Result, name: str, main: bool) -> str:
    interval, data = bounds(result.metrics, name), result.report.data
    rows = 0 if data is None else data.test_rows if result.judged_on == "test" else data.validation_rows
    on = f"on {f'{rows:,} ' if rows else ''}{result.judged_on} rows"
    more = f"95 %: {_figure(interval[0])} to {_figure(interval[1])}<br>{on}" if interval else on
    return _tile(name, _figure(result.metrics[name]), more, main, raw=True)


def _tile(name: str, value: str, more: str, main: bool = False, raw: bool = False) -> str:
    kind = "card tile main" if main else "card tile"
    inner = f'<div class="name">{escape(name)}</div><div class="value">{escape(value)}</div><div class="more">{more if raw else escape(more)}</div>'
    return f'<div class="{kind}">{inner}</div>'


# ---------------------------------------------------------------- how it got there


def _curves(result: Result, events: list[dict[str, Any]]) -> str:
    steps = [e for e in events if e["kind"] == "step"]
    evaluations = [{**e, **(e.get("metrics") or {})} for e in events if e["kind"] == "evaluation"]
    loss = _points(steps, "loss")
    held_out = _points(evaluations, "eval_loss") or _points(evaluations, "loss")
    raw = Curve("each step", loss, 1, faint=True)
    drawn = [Curve("training", loss, 1)] if len(loss) < 40 else [raw, Curve("training, smoothed", smooth(loss), 1)]
    figures = [chart("Loss", [*drawn, Curve("validation", held_out, 2, dots=True)])]
    best = result.report.best
    names = sorted({k for e in evaluations for k, v in e.items() if isinstance(v, int | float)} - {"step", "time", "loss", "eval_loss", "seconds", "rows"})
    names = [n for n in names if not n.endswith(("-low", "-high"))]
    for name in sorted(names, key=lambda n: not (best and n == best.metric))[:4]:
        mark = (best.step, best.value, f"best {_figure(best.value)}, step {best.step:,}") if best and best.metric == name else None
        arrow = "higher is better" if higher_is_better(name) else "lower is better" if name == "perplexity" else ""
        title = f"{name} on the validation rows" + (f" ({arrow})" if arrow else "")
        figures.append(chart(title, [Curve(name, _points(evaluations, name), 3, dots=True)], mark=mark))
    rate = _points(steps, "learningRate") or _points(steps, "learning_rate")
    norm = _points(steps, "gradNorm") or _points(steps, "grad_norm")
    figures.append(chart("Learning rate", [Curve("learning rate", rate, 1)]))
    drawn = [Curve("gradient norm", norm, 1)] if len(norm) < 40 else [Curve("each step", norm, 1, faint=True), Curve("smoothed", smooth(norm), 1)]
    figures.append(chart("Gradient norm before clipping", drawn))
    figures = [figure for figure in figures if figure]
    return f'<h2>Training</h2><section class="pair">{"".join(figures)}</section>' if figures else ""


def _points(events: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(e["step"], e[name]) for e in events if isinstance(e.get(name), int | float)]


def _classes(result: Result) -> str:
    cards = []
    if result.classes:
        shown = result.classes[:MOST_CLASSES]
        rows = [(escape(_cut(c.label, 80)), f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}", f"{c.support:,}") for c in shown]
        more = f'<p class="muted">{len(result.classes) - len(shown):,} more classes are in metrics.json.</p>' if len(result.classes) > len(shown) else ""
        cards.append(f'<div class="card"><h3>Per class</h3>{_table(("class", "precision", "recall", "F1", "rows"), rows)}{more}</div>')
    if result.confusion:
        cards.append(_confusion(result) if len(result.labels) <= MOST_CONFUSION else _mistakes(result))
    return f'<h2>Classes, on the {result.judged_on} rows</h2><section class="pair">{"".join(cards)}</section>' if cards else ""


def _confusion(result: Result) -> str:
    assert result.confusion is not None
    head = "".join(f'<th title="{escape(label)}">{escape(_cut(label, 24))}</th>' for label in result.labels)
    body = ""
    for label, row in zip(result.labels, result.confusion, strict=True):
        total = sum(row) or 1
        cells = "".join(f'<td style="background: rgba(var(--heat), {0.62 * n / total:.3f})">{n:,}</td>' for n in row)
        body += f'<tr><th class="side" title="{escape(label)}">{escape(_cut(label, 24))}</th>{cells}</tr>'
    title = "<h3>Confusion: true class by row, predicted class by column</h3>"
    return f'<div class="card">{title}<table class="confusion"><tr><th></th>{head}</tr>{body}</table></div>'


def _mistakes(result: Result) -> str:
    assert result.confusion is not None
    found = [(n, i, j) for i, row in enumerate(result.confusion) for j, n in enumerate(row) if i != j and n]
    rows = [(escape(_cut(result.labels[i], 60)), escape(_cut(result.labels[j], 60)), f"{n:,}") for n, i, j in sorted(found, reverse=True)[:20]]
    if not rows:
        return ""
    return f'<div class="card"><h3>Most frequent mistakes (all are in metrics.json)</h3>{_table(("true class", "taken for", "rows"), rows, words=2)}</div>'


def _samples(result: Result) -> str:
    if not result.samples:
        return ""
    cards = []
    for sample in result.samples[:MOST_SAMPLES]:
        wanted = f"<h3>Reference</h3><pre>{escape(_cut(sample.reference, MOST_TEXT))}</pre>" if sample.reference else ""
        cards.append(
            f'<div class="card sample"><h3>Prompt</h3><pre>{escape(_cut(sample.prompt, MOST_TEXT))}</pre><div class="pair">'
            f'<div class="before"><h3>Before tuning</h3><pre>{escape(_cut(sample.before, MOST_TEXT)) or "(nothing)"}</pre></div>'
            f'<div class="after"><h3>After tuning</h3><pre>{escape(_cut(sample.after, MOST_TEXT)) or "(nothing)"}</pre></div></div>{wanted}</div>'
        )
    more = f'<p class="muted">{len(result.samples) - MOST_SAMPLES} more samples are left out here.</p>' if len(result.samples) > MOST_SAMPLES else ""
    return f"<h2>Before and after</h2>{''.join(cards)}{more}"


# ---------------------------------------------------------------- what it stands on


def _data(result: Result) -> str:
    data, source = result.report.data, result.config.data
    facts: list[tuple[str, str]] = [("train", source.train.uri)]
    for name, held in (("validation", source.validation), ("test", source.test)):
        if held is not None:
            facts.append((name, held.uri or f"{held.fraction:.3g} of the training rows"))
    if data is not None:
        facts += [("rows to learn from", f"{data.train_rows:,}"), ("validation rows", f"{data.validation_rows:,}"), ("test rows", f"{data.test_rows:,}")]
        facts += [("rows left out", f"{data.bad_rows:,}"), ("objects", f"{data.objects:,} ({_size(data.bytes)})")]
        if data.tokens_per_epoch:
            facts.append(("tokens an epoch (estimated)", f"{data.tokens_per_epoch:,}"))
        if data.lengths:
            lengths = data.lengths
            facts.append(("tokens a row", f"median {lengths.p50}, 95 % at most {lengths.p95}, longest {lengths.max}; {lengths.truncated_fraction:.2%} cut"))
        if data.label_count:
            facts.append(("classes", f"{data.label_count}: {', '.join(data.labels or ())}"))
        if data.manifest_digest:
            facts.append(("data manifest (SHA-256)", data.manifest_digest))
    found = data.findings if data else ()
    rows = [(escape(f.kind), escape(f.message), _place(f.file, f.line), f"{f.count:,}") for f in found]
    findings = _table(("finding", "what", "first seen", "rows"), rows, words=3) if rows else '<p class="muted">Nothing out of the ordinary was found.</p>'
    return f'<h2>Data</h2><section class="pair"><div class="card">{_facts(facts)}</div><div class="card"><h3>Findings</h3>{findings}</div></section>'


def _place(file: str | None, line: int | None) -> str:
    return escape(f"{file or ''}{f':{line}' if line else ''}").replace("/", "/<wbr>")


def _settings(result: Result) -> str:
    training, method = result.config.training, result.config.method
    resolved = [(k, _plain(v)) for k, v in (result.report.resolved.to_json() if result.report.resolved else {}).items()]
    special = method.lora if method.type == "lora" else method.freeze if method.type == "freeze" else None
    given = [("method", method.type), *((k, _plain(v)) for k, v in (special.to_json() if special else {}).items())]
    named = ("schedule", "warmupRatio", "weightDecay", "maxGradNorm", "seed", "gradientCheckpointing")
    given += [(k, _plain(v)) for k, v in training.to_json().items() if k in named]
    world = result.config.world
    given += [("processes", f"{world.workers} × {world.processes_per_worker}")]
    given += [(f"{name} version", value) for name, value in result.versions.items()]
    cards = [f'<div class="card"><h3>Values in force</h3>{_facts(resolved)}</div>'] if resolved else []
    return f'<h2>Settings</h2><section class="pair">{"".join(cards)}<div class="card"><h3>As given, and versions</h3>{_facts(given)}</div></section>'


def _time(result: Result) -> str:
    attempts = list(result.attempts) or ([{"number": result.config.attempt, "seconds": dict(result.report.seconds)}] if result.report.seconds else [])
    if not attempts:
        return ""
    causes = list(dict.fromkeys(cause for a in attempts for cause in a.get("seconds") or {}))
    tone = {cause: _TONES[i % len(_TONES)] for i, cause in enumerate(causes)}
    longest = max(sum((a.get("seconds") or {}).values()) for a in attempts) or 1.0
    cards = []
    for attempt in attempts[-MOST_ATTEMPTS:]:
        seconds = {k: v for k, v in (attempt.get("seconds") or {}).items() if v > 0}
        steps = f", steps {attempt.get('fromStep') or 0:,} to {attempt['lastStep']:,}" if attempt.get("lastStep") is not None else ""
        bar = "".join(f'<i style="width: {100 * v / longest:.2f}%; background: {tone[k]}" title="{escape(k)}"></i>' for k, v in seconds.items())
        keys = "".join(f'<span><b style="background: {tone[k]}"></b>{escape(k)} {_duration(v)}</span>' for k, v in seconds.items())
        title = escape(f"Attempt {attempt.get('number', '?')}{steps}: {_duration(sum(seconds.values()))}")
        cards.append(f'<h3>{title}</h3><div class="bar">{bar}</div><p class="spent">{keys}</p>')
    return f'<h2>Where the time went</h2><div class="card">{"".join(cards)}</div>'


def _checkpoints(result: Result) -> str:
    rows = []
    for c in result.report.checkpoints:
        metrics = ", ".join(f"{k} {_figure(v)}" for k, v in (c.metrics or {}).items())
        where = f"<code>{escape(c.uri)}</code>{' <strong>best</strong>' if c.best else ''}"
        rows.append((f"{c.step:,}", where, escape(metrics), f'<code title="{escape(c.digest)}">{escape(c.digest[:12])}…</code>', _size(c.bytes)))
    return f'<h2>Checkpoints</h2><div class="card">{_table(("step", "where", "metrics", "SHA-256", "size"), rows, words=4)}</div>' if rows else ""


def _foot(result: Result) -> str:
    uri = escape(result.config.output.uri)
    where = "All figures are in metrics.json, every step in events.jsonl and tensorboard/, how to load the model in README.md"
    return f"<footer>{where}, all below <code>{uri}</code>.</footer>"


# ---------------------------------------------------------------- small pieces


def _facts(facts: list[tuple[str, str]]) -> str:
    return '<table class="facts">' + "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in facts) + "</table>"


def _table(head: tuple[str, ...], rows: list[Any], words: int = 1) -> str:
    """Cells are HTML; the first `words` columns are text, the others numbers."""
    kinds = ["" if i < words else ' class="number"' for i in range(len(head))]
    top = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, head, strict=True))
    body = "".join("<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def _figure(value: float) -> str:
    return f"{value:.3f}" if 0.001 <= abs(value) < 10 else number(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value) if abs(value) >= 1e-12 else "0"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def _size(count: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} B"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
