"""How the model got there: curves, scores by class, and what it wrote before and after."""

from __future__ import annotations

from html import escape
from typing import Any

from finetune_api.metrics import direction
from finetune_trainer.output.page.charts import Curve, chart, smooth
from finetune_trainer.output.page.parts import figure, shorten, table
from finetune_trainer.output.result import Result

MOST_CLASSES, MOST_CONFUSION, MOST_SAMPLES, MOST_TEXT = 60, 12, 20, 3000


def curves(result: Result, events: list[dict[str, Any]]) -> str:
    steps = [e for e in events if e["kind"] == "step"]
    evaluations = [{**e, **(e.get("metrics") or {})} for e in events if e["kind"] == "evaluation"]
    loss = _points(steps, "loss")
    held_out = _points(evaluations, "eval_loss") or _points(evaluations, "loss")
    raw = Curve("each step", loss, 1, faint=True)
    drawn = [Curve("training", loss, 1)] if len(loss) < 40 else [raw, Curve("training, smoothed", smooth(loss), 1)]
    figures = [chart("Loss", [*drawn, Curve("validation", held_out, 2, dots=True)])]
    best = result.report.best
    names = sorted(
        {k for e in evaluations for k, v in e.items() if isinstance(v, int | float)}
        - {"step", "time", "loss", "eval_loss", "seconds", "rows"}
    )
    names = [n for n in names if not n.endswith(("-low", "-high"))]
    for name in sorted(names, key=lambda n: not (best and n == best.metric))[:4]:
        mark = (
            (best.step, best.value, f"best {figure(best.value)}, step {best.step:,}")
            if best and best.metric == name
            else None
        )
        better = direction(name)
        title = f"{name} on the validation rows" + (f" ({better})" if better else "")
        figures.append(chart(title, [Curve(name, _points(evaluations, name), 3, dots=True)], mark=mark))
    rate = _points(steps, "learningRate") or _points(steps, "learning_rate")
    norm = _points(steps, "gradNorm") or _points(steps, "grad_norm")
    figures.append(chart("Learning rate", [Curve("learning rate", rate, 1)]))
    drawn = (
        [Curve("gradient norm", norm, 1)]
        if len(norm) < 40
        else [Curve("each step", norm, 1, faint=True), Curve("smoothed", smooth(norm), 1)]
    )
    figures.append(chart("Gradient norm before clipping", drawn))
    figures = [figure for figure in figures if figure]
    return f'<h2>Training</h2><section class="pair">{"".join(figures)}</section>' if figures else ""


def _points(events: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(e["step"], e[name]) for e in events if isinstance(e.get(name), int | float)]


def classes(result: Result) -> str:
    cards = []
    if result.classes:
        shown = result.classes[:MOST_CLASSES]
        rows = [
            (escape(shorten(c.label, 80)), f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}", f"{c.support:,}")
            for c in shown
        ]
        more = (
            f'<p class="muted">{len(result.classes) - len(shown):,} more classes are in metrics.json.</p>'
            if len(result.classes) > len(shown)
            else ""
        )
        cards.append(
            '<div class="card"><h3>Per'
            f" class</h3>{table(('class', 'precision', 'recall', 'F1', 'rows'), rows)}{more}</div>"
        )
    if result.confusion:
        cards.append(_confusion(result) if len(result.labels) <= MOST_CONFUSION else _mistakes(result))
    return (
        f'<h2>Classes, on the {result.judged_on} rows</h2><section class="pair">{"".join(cards)}</section>'
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


def samples(result: Result) -> str:
    if not result.samples:
        return ""
    cards = []
    for sample in result.samples[:MOST_SAMPLES]:
        wanted = (
            f"<h3>Reference</h3><pre>{escape(shorten(sample.reference, MOST_TEXT))}</pre>" if sample.reference else ""
        )
        cards.append(
            f'<div class="card sample"><h3>Prompt</h3><pre>{escape(shorten(sample.prompt, MOST_TEXT))}</pre><div'
            f' class="pair"><div class="before"><h3>Before tuning</h3><pre>{_written(sample.before)}</pre></div><div'
            f' class="after"><h3>After tuning</h3><pre>{_written(sample.after)}</pre></div></div>{wanted}</div>'
        )
    more = (
        f'<p class="muted">{len(result.samples) - MOST_SAMPLES} more samples are left out here.</p>'
        if len(result.samples) > MOST_SAMPLES
        else ""
    )
    return f"<h2>Before and after</h2>{''.join(cards)}{more}"


def _written(text: str) -> str:
    """What a model wrote, which may be nothing to see."""
    return escape(shorten(text, MOST_TEXT)) if text.strip() else "(only white space)" if text else "(nothing)"
