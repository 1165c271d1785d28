"""A job's status for people: what it is doing, how well, since when, and if it failed why and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from finetune_api.lenient import parse_lenient
from finetune_api.method import DEFAULT_METHOD
from finetune_api.status import AttemptStatus, Checkpoint, Phase, Status, Verdict
from finetune_api.times import seconds
from finetune_cli.progress_lines import columns, data_lines, folds, metrics, progress, score_line, verdict_line
from finetune_cli.terminal import size
from finetune_operator.job.status.display import duration

BAR = 30
COLORS = {
    Phase.SUCCEEDED: "green",
    Phase.FAILED: "red",
    Phase.RUNNING: "cyan",
    Phase.RESTARTING: "yellow",
    Phase.SUSPENDED: "yellow",
}


def status_of(body: dict[str, Any]) -> Status:
    """The status as stored; what a newer operator wrote is passed over."""
    return parse_lenient(Status, body.get("status") or {})[0]


def job_lines(body: dict[str, Any], now: float) -> Iterator[str]:
    """All of `kubectl finetune status NAME`."""
    status, spec, meta = status_of(body), body.get("spec") or {}, body["metadata"]
    phase = status.phase or Phase.PENDING
    yield (
        f"{click.style(meta['name'], bold=True)} in {meta.get('namespace', 'default')}:"
        f" {click.style(phase.value, fg=COLORS.get(phase))}"
    )
    method = (spec.get("method") or {}).get("type", DEFAULT_METHOD)
    yield _row("Job", f"{method} tuning of {(spec.get('model') or {}).get('uri', '?')} for {spec.get('task', '?')}")
    yield _row("Age", _ages(meta, status, now))
    if status.failure:
        field = f"{status.failure.field}: " if status.failure.field else ""
        yield _row("Failure", click.style(f"{status.failure.reason}: {field}{status.failure.message}", fg="red"))
        yield _row("What to do", status.failure.hint)
    elif status.message:
        yield _row("Because", f"{status.reason}: {status.message}" if status.reason else status.message)
    if status.progress:
        yield _row("Progress", f"{bar(status.progress.percent)} {progress(status.progress)}")
    if status.folds and status.folds.done:
        yield _row("Folds", folds(status.folds))
    if status.evaluation:
        yield _row("Evaluation", metrics(status.evaluation))
    if status.best:
        yield _row("Best", f"{status.best.metric} {status.best.value:.4g} at step {status.best.step}")
    if status.test:
        yield _row("Test", metrics(status.test))
    yield from _table("Sets", [score_line(score) for score in status.sets or ()])
    verdicts = sorted(status.verdicts or (), key=lambda v: not v.warning)
    yield from _table("Verdict", [_told(verdict) for verdict in verdicts])
    if status.data:
        first, *rest = data_lines(status.data)
        yield _row("Data", first.removeprefix("data: "))
        yield from (_row("", line) for line in rest)
    if status.resolved and status.resolved.columns:
        yield _row("Columns", columns(status.resolved.columns))
    yield from _table("Checkpoints", [_checkpoint(c, now) for c in status.checkpoints])
    if len(status.attempts) > 1 or (status.attempts and phase is not Phase.SUCCEEDED):
        yield from _table("Attempts", [_attempt(a) for a in status.attempts])
    if status.goodput is not None:
        yield _row("Goodput", f"{status.goodput:.0%} of the workers' time went into steps that were kept")
    if status.output:
        yield _row(
            "Output", f"{status.output.uri} ({size(status.output.bytes)})" if status.output.bytes else status.output.uri
        )
        if status.output.report:
            yield _row("Report", status.output.report)
    for condition in status.conditions:
        if condition.type in ("ReportsDegraded", "NameConflict", "FieldsIgnored") and condition.status == "True":
            yield _row("Note", click.style(f"{condition.type}: {condition.message}", fg="yellow"))


def list_lines(bodies: Sequence[dict[str, Any]], everywhere: bool, now: float) -> Iterator[str]:
    """The table of `kubectl finetune list`."""
    head = [
        *(["NAMESPACE"] if everywhere else []),
        "NAME",
        "PHASE",
        "MODEL",
        "METHOD",
        "PROGRESS",
        "LOSS",
        "BEST",
        "ETA",
        "AGE",
    ]
    rows = [head]
    for body in sorted(bodies, key=lambda b: (b["metadata"].get("namespace", ""), b["metadata"]["name"])):
        status, meta = status_of(body), body["metadata"]
        shown = status.display
        cells = [
            meta["name"],
            status.phase.value if status.phase else "Pending",
            (shown and shown.model) or "",
            (body["spec"].get("method") or {}).get("type", DEFAULT_METHOD),
            (shown and shown.progress) or "",
            (shown and shown.loss) or "",
            (shown and shown.best) or "",
            (shown and shown.eta) or "",
            _since(meta.get("creationTimestamp"), now),
        ]
        rows.append([meta.get("namespace", ""), *cells] if everywhere else cells)
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        yield "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def bar(percent: float) -> str:
    """A bar of fixed width."""
    done = round(BAR * min(100.0, max(0.0, percent)) / 100)
    return "█" * done + "░" * (BAR - done)


def _row(name: str, text: str) -> str:
    return f"  {name + ':' if name else '':<13}{text}"


def _table(name: str, rows: list[str]) -> Iterator[str]:
    for i, row in enumerate(rows):
        yield _row(name if i == 0 else "", row)


def _told(verdict: Verdict) -> str:
    line = verdict_line(verdict)
    return click.style(line, fg="yellow") if verdict.warning else line


def _checkpoint(checkpoint: Checkpoint, now: float) -> str:
    parts = f"step {checkpoint.step}, {size(checkpoint.bytes)}, {_since(checkpoint.time, now)} ago"
    parts += f", {metrics(checkpoint.metrics)}" if checkpoint.metrics else ""
    return f"{parts}{' (best)' if checkpoint.best else ''}  {checkpoint.uri}"


def _attempt(attempt: AttemptStatus) -> str:
    if attempt.reason is None:
        return f"{attempt.number}: since {attempt.start_time}, from step {attempt.from_step or 0}"
    code = f" (exit code {attempt.exit_code})" if attempt.exit_code else ""
    lost = f", {attempt.lost_steps} steps lost" if attempt.lost_steps else ""
    steps = f", steps {attempt.from_step or 0} to {attempt.last_step}" if attempt.last_step is not None else ""
    return f"{attempt.number}: {attempt.reason}{code}{steps}{lost}{f': {attempt.message}' if attempt.message else ''}"


def _ages(meta: dict[str, Any], status: Status, now: float) -> str:
    text = _since(meta.get("creationTimestamp"), now)
    if status.start_time and status.completion_time:
        took = (seconds(status.completion_time) or 0) - (seconds(status.start_time) or 0)
        return f"{text}; finished in {duration(took)}"
    return text


def _since(moment: str | None, now: float) -> str:
    start = seconds(moment)
    return duration(now - start) if start is not None else "-"
