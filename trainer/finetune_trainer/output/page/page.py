"""report.html: one self-contained page that says how good the model is, how it got there, and on what it stands.

It fetches nothing (a Content-Security-Policy inside holds it to that) and runs no script; every text from data or
configuration is escaped. It stays below 1 MB however long the run: curves are thinned, lists are cut and say so.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from finetune_trainer.output.page.checkpoints import checkpoints
from finetune_trainer.output.page.classes import classes
from finetune_trainer.output.page.compared import compared
from finetune_trainer.output.page.curves import curves
from finetune_trainer.output.page.data import data
from finetune_trainer.output.page.figures import figures
from finetune_trainer.output.page.folds import folds
from finetune_trainer.output.page.numbers import figure, number
from finetune_trainer.output.page.pairs import pairs
from finetune_trainer.output.page.pictures import pictures
from finetune_trainer.output.page.samples import samples
from finetune_trainer.output.page.sets import sets
from finetune_trainer.output.page.settings import settings
from finetune_trainer.output.page.tables import shorten
from finetune_trainer.output.page.timing import timing
from finetune_trainer.output.page.wrong_answers import wrong_answers
from finetune_trainer.output.result import Result, bounds, headline

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html_report(result: Result, events: list[dict[str, Any]]) -> str:
    """The page; `events` are all events of the run."""
    style = (Path(__file__).parent / "style.css").read_text()
    body = [
        _head(result),
        _notes(result),
        _tiles(result, events),
        folds(result, events),
        curves(result, events),
        compared(result),
        sets(result),
        classes(result),
        figures(result),
        pictures(result),
        pairs(result),
        samples(result),
        wrong_answers(result),
        data(result),
        settings(result),
        timing(result),
        checkpoints(result),
        _foot(result),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
        ' content="width=device-width, initial-scale=1"><meta http-equiv="Content-Security-Policy"'
        f' content="{_POLICY}"><title>{escape(result.title)} · fine-tuning'
        f" report</title><style>{style}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _head(result: Result) -> str:
    when = datetime.fromtimestamp(result.report.time, UTC).strftime("%d %B %Y, %H:%M UTC")
    return (
        f'<h1>{escape(result.title)}</h1><p class="lead"><code>{escape(result.base)}</code>, fine-tuned for'
        f" {escape(result.config.task)} ({result.method.title}). Job"
        f" <code>{escape(result.config.job.name)}</code>, finished {when}.</p>"
    )


def _notes(result: Result) -> str:
    notes = [*(verdict.message for verdict in result.verdicts if verdict.warning), *result.notes]
    if not result.metrics and result.folds is None:
        notes.append(
            "No rows were held out, so nothing here says how good the model is on new rows. Set data.validation or"
            " data.test."
        )
    return "".join(f'<div class="note">{escape(shorten(note, 600))}</div>' for note in notes[:12])


def _tiles(result: Result, events: list[dict[str, Any]]) -> str:
    metrics, report = result.metrics, result.report
    chosen = (report.resolved and report.resolved.metric) or (report.best and report.best.metric) or ""
    names = sorted(headline(metrics), key=lambda n: n != chosen)
    tiles = [_metric_tile(result, name, name == names[0]) for name in names[:5]]
    if result.folds:
        name = chosen or "loss"
        spread = f"± {figure(result.folds.deviation[name])}" if name in result.folds.deviation else ""
        more = f"{spread} over {len(result.folds.rows)} folds"
        tiles.append(_tile(f"{name}, cross-validated", figure(result.folds.mean[name]), more, main=not names))
    if report.best:
        tiles.append(
            _tile(
                f"best {report.best.metric}",
                figure(report.best.value),
                f"step {report.best.step:,}, on the validation rows",
            )
        )
    if report.progress:
        tiles.append(_tile("steps", f"{report.progress.step:,}", f"{report.progress.epoch:.3g} epochs"))
    losses = [e["loss"] for e in events if e["kind"] == "step" and "fold" not in e and e.get("loss") is not None]
    if losses:
        tiles.append(_tile("training loss", figure(losses[-1]), f"from {figure(losses[0])}"))
    if report.progress and report.progress.rows_per_second:
        tokens = report.progress.tokens_per_second
        tiles.append(
            _tile(
                "rows a second",
                number(report.progress.rows_per_second),
                f"{tokens:,.0f} tokens a second" if tokens else "",
            )
        )
    return f'<section class="tiles">{"".join(tiles)}</section>'


def _metric_tile(result: Result, name: str, main: bool) -> str:
    interval, rows = bounds(result.metrics, name), result.judged_rows
    on = f"on {f'{rows:,} ' if rows else ''}{result.judged_on} rows"
    more = f"95 %: {figure(interval[0])} to {figure(interval[1])}<br>{on}" if interval else on
    return _tile(name, figure(result.metrics[name]), more, main, raw=True)


def _tile(name: str, value: str, more: str, main: bool = False, raw: bool = False) -> str:
    kind = "card tile main" if main else "card tile"
    inner = (
        f'<div class="name">{escape(name)}</div><div class="value">{escape(value)}</div><div'
        f' class="more">{more if raw else escape(more)}</div>'
    )
    return f'<div class="{kind}">{inner}</div>'


def _foot(result: Result) -> str:
    uri = escape(result.config.output.uri)
    where = (
        "All figures are in metrics.json, every step in events.jsonl and tensorboard/, how to load the model in"
        " README.md"
    )
    return f"<footer>{where}, all below <code>{uri}</code>.</footer>"
